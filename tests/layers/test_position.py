"""Positions: interpolation against a bicubic written out in NumPy, sine and cosine against a loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tesela.layers.grid import Grid
from tesela.layers.initialise import initialise
from tesela.layers.position.embedding import (
    AxisPositions,
    LearnedPositions,
    NoPositions,
    SinCosPositions,
    interpolate_positions,
    make_positions,
)


def cubic(distance: float) -> float:
    """Keys' kernel with a = -0.75, as image libraries of deep learning use it."""
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def weights(old: int, new: int, kernel: str) -> np.ndarray:
    """(new, old): pixel centres at half, borders repeated."""
    matrix = np.zeros((new, old))
    for target in range(new):
        centre = (target + 0.5) * old / new - 0.5
        if kernel == "bilinear":
            centre = max(centre, 0.0)
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            weight = cubic(centre - tap) if kernel == "bicubic" else max(0.0, 1 - abs(centre - tap))
            matrix[target, min(max(tap, 0), old - 1)] += weight
    return matrix


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("old", "new"), [((4, 4), (7, 3)), ((3, 5), (6, 10)), ((7, 7), (2, 9)), ((2, 2), (5, 5))]
)
@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_interpolation_equals_the_formula(
    old: tuple[int, int], new: tuple[int, int], prefix: int, mode: str
) -> None:
    table = torch.randn(1, prefix + old[0] * old[1], 3)
    image = table[0, prefix:].reshape(*old, 3).double().numpy()
    expected = np.einsum(
        "yr,xc,rcd->yxd", weights(old[0], new[0], mode), weights(old[1], new[1], mode), image
    ).reshape(-1, 3)
    found = interpolate_positions(table, old, new, prefix=prefix, mode=mode)
    assert torch.equal(found[:, :prefix], table[:, :prefix])
    np.testing.assert_allclose(found[0, prefix:].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_learned_positions_are_added_and_moved() -> None:
    positions = LearnedPositions((2, 3), 4, prefix=1)
    initialise(positions, torch.Generator().manual_seed(0))
    tokens = torch.randn(2, 7, 4)
    assert torch.equal(positions(tokens, (2, 3)), tokens + positions.table)
    longer = torch.randn(2, 1 + 20, 4)
    before = positions(longer, (4, 5))
    positions.move_to((4, 5))
    assert torch.equal(positions(longer, (4, 5)), before) and positions.table.shape == (1, 21, 4)


def test_a_prefix_without_positions_stays_as_it_is() -> None:
    positions = LearnedPositions((2, 2), 4, prefix=0)
    initialise(positions)
    tokens = torch.randn(2, 6, 4)
    found = positions(tokens, (2, 2))
    assert torch.equal(found[:, :2], tokens[:, :2]) and torch.equal(
        found[:, 2:], tokens[:, 2:] + positions.table
    )


@pytest.mark.parametrize("grid", [(3, 5), (1, 2), (4, 4)])
def test_sine_and_cosine_equal_a_loop(grid: tuple[int, int]) -> None:
    width, quarter = 8, 2
    tokens = torch.randn(1, 1 + grid[0] * grid[1], width)
    found = SinCosPositions(width)(tokens, grid) - tokens
    assert torch.equal(found[:, 0], torch.zeros(1, width))
    for row in range(grid[0]):
        for column in range(grid[1]):
            omegas = [10_000 ** (-index / quarter) for index in range(quarter)]
            expected = [
                f(place * omega)
                for place, f in ((column, math.sin), (column, math.cos), (row, math.sin), (row, math.cos))
                for omega in omegas
            ]
            np.testing.assert_allclose(found[0, 1 + row * grid[1] + column].numpy(), expected, atol=1e-6)


def axes(grid: Grid, *, prefix: int = 0, mode: str = "bicubic") -> AxisPositions:
    positions = AxisPositions(grid, 6, prefix=prefix, mode=mode, std=1.0)
    initialise(positions, torch.Generator().manual_seed(0))
    return positions


def test_rows_and_columns_stand_side_by_side() -> None:
    positions = axes((2, 3), prefix=1)
    tokens = torch.randn(2, 7, 6)
    found = positions(tokens, (2, 3)) - tokens
    assert positions.prefix is not None
    torch.testing.assert_close(found[:, :1], positions.prefix.expand(2, -1, -1))
    for row in range(2):
        for column in range(3):
            expected = torch.cat([positions.rows[0, row], positions.columns[0, column]])
            torch.testing.assert_close(found[0, 1 + 3 * row + column], expected)
    assert sum(parameter.numel() for parameter in positions.parameters()) == 6 + (2 + 3) * 3


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("old", "new"), [((4, 4), (7, 3)), ((3, 5), (6, 10)), ((1, 4), (3, 8))])
def test_each_axis_is_interpolated_as_the_whole_table_would_be(old: Grid, new: Grid, mode: str) -> None:
    """Reference: the 2-D interpolation of the table that the two tables make."""
    positions = axes(old, prefix=2, mode=mode)
    expected = interpolate_positions(positions.at(old), old, new, prefix=2, mode=mode)
    found = positions.at(new)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    positions.move_to(new)
    assert (
        torch.equal(positions.at(new), found)
        and positions.rows.shape == (1, new[0], 3)
        and positions.columns.shape == (1, new[1], 3)
    )


@pytest.mark.parametrize("prefix", [0, 2])
def test_registers_between_prefix_and_patches_get_nothing(prefix: int) -> None:
    """As before a later block: two special tokens, three registers, six patches."""
    positions = LearnedPositions((2, 3), 4, prefix=prefix)
    initialise(positions)
    tokens = torch.zeros(1, 2 + 3 + 6, 4)
    found = positions(tokens, (2, 3))[0]
    assert torch.equal(found[5:], positions.table[0, prefix:]) and torch.equal(
        found[:prefix], positions.table[0, :prefix]
    )
    assert torch.equal(found[prefix:5], torch.zeros(5 - prefix, 4))


@pytest.mark.parametrize("kind", ["learned", "learned2d", "sincos2d"])
def test_patches_that_are_left_keep_their_positions(kind: str) -> None:
    positions = make_positions(kind, grid=(2, 3), width=8, prefix=1)
    initialise(positions)
    kept = torch.tensor([[0, 4], [1, 5]])
    whole, found = positions(torch.zeros(2, 7, 8), (2, 3)), positions(torch.zeros(2, 3, 8), (2, 3), kept=kept)
    for image in range(2):
        assert torch.equal(found[image], whole[image, [0, *(kept[image] + 1).tolist()]])


def test_variants_by_name() -> None:
    kinds = {
        "none": NoPositions,
        "learned": LearnedPositions,
        "sincos2d": SinCosPositions,
        "learned2d": AxisPositions,
        "rotary": NoPositions,
    }
    for name, kind in kinds.items():
        assert type(make_positions(name, grid=(2, 2), width=4, prefix=0)) is kind
