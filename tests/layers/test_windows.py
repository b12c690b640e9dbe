"""WindowPlan against counting by hand and against the definition of windows with moved borders.

Partition against transformers' Swin.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from transformers.models.swin.modeling_swin import window_partition

from tesela.layers.attention.window_plan import WindowPlan
from tesela.layers.attention.windows import gather, mask, numbers, scatter, spread_windows
from tesela.layers.grid import Grid

CPU = torch.device("cpu")
CASES = [
    WindowPlan(),
    WindowPlan("rows"),
    WindowPlan("columns"),
    *(WindowPlan("windows", side, shifted=shifted) for side in (2, 3, 4) for shifted in (False, True)),
]
GRIDS = [(1, 1), (4, 4), (6, 9), (5, 7), (2, 8), (1, 6), (7, 3)]


def sees(windows: WindowPlan, grid: Grid, one: int, other: int) -> bool:
    """The definition: same row, same column, or the same window, whose borders are moved by half a side
    and cut at the edge."""
    (row, column), (down, right) = divmod(one, grid[1]), divmod(other, grid[1])
    if windows.shape in ("rows", "columns"):
        return row == down if windows.shape == "rows" else column == right
    if windows.shape == "all":
        return True
    same = True
    for here, there, whole in ((row, down, grid[0]), (column, right, grid[1])):
        shift = windows.window // 2 if windows.shifted and whole > windows.window else 0
        same &= (here - shift) // windows.window == (there - shift) // windows.window
    return same


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("windows", CASES)
def test_who_sees_whom_equals_the_definition(windows: WindowPlan, grid: Grid) -> None:
    """Whole chain: gather, mask within windows, spread over all pairs."""
    count = grid[0] * grid[1]
    place, allowed = numbers(windows, grid, device=CPU), mask(windows, grid, device=CPU)
    bias = torch.zeros(1, 1, *place.shape, place.shape[1])
    bias = bias if allowed is None else bias.masked_fill(~allowed, -torch.inf)
    assert bias.amax(-1).eq(0).all(), "a softmax would be empty"
    found = spread_windows(bias, windows, grid)[0, 0] == 0
    expected = torch.tensor(
        [[sees(windows, grid, one, other) for other in range(count)] for one in range(count)]
    )
    assert torch.equal(found, expected)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("windows", CASES)
def test_cells_come_back_in_order_and_are_counted(windows: WindowPlan, grid: Grid) -> None:
    values = torch.randn(2, 3, grid[0] * grid[1], 5)
    cut = gather(values, windows, grid)
    assert torch.equal(scatter(cut, windows, grid), values)
    padded, size = windows.padded(grid), windows.size(grid)
    assert cut.shape == (2, 3, padded[0] * padded[1] // (size[0] * size[1]), size[0] * size[1], 5)
    for prefix in (0, 3):
        computed = cut.shape[2] * cut.shape[3] * (cut.shape[3] + prefix) + prefix * (
            prefix + grid[0] * grid[1]
        )
        assert windows.pairs(grid, prefix=prefix) == computed
    assert set(numbers(windows, grid, device=CPU).flatten().tolist()) - {0} == set(
        range(1, grid[0] * grid[1] + 1)
    )


def test_windows_are_those_of_swin() -> None:
    """Reference: transformers' window_partition after the cyclic shift."""
    image = torch.randn(1, 6, 9, 4)
    expected = window_partition(image.roll((-1, -1), dims=(1, 2)), 3).flatten(1, 2)
    found = gather(image.flatten(1, 2)[:, None], WindowPlan("windows", 3, shifted=True), (6, 9))[0, 0]
    assert torch.equal(found, expected)


def test_sizes_and_offsets_by_hand() -> None:
    windows = WindowPlan("windows", 4, shifted=True)
    assert (
        windows.size((9, 3)) == (4, 3)
        and windows.padded((9, 3)) == (12, 3)
        and windows.shift((9, 3)) == (2, 0)
    )
    assert (
        windows.offsets((9, 3)) == (7, 5)
        and WindowPlan("rows").offsets((9, 3)) == (0, 5)
        and WindowPlan("columns").offsets((9, 3)) == (17, 0)
    )
    assert WindowPlan().pairs((2, 3), prefix=1) == 49 and WindowPlan().offset_products((2, 3)) == 6 * 5
    assert (
        WindowPlan("rows").pairs((2, 3), prefix=1) == 6 * 4 + 7
        and WindowPlan("rows").offset_products((2, 3)) == 6 * 3
    )
    assert windows.offset_products((9, 3)) == 36 * 7


def test_neighbours_across_a_border_meet_in_the_next_block() -> None:
    """What shifting is for.

    Each pair of adjacent patches shares a window in one of two blocks, but at corners of the grid of windows.
    """
    grid, plain, moved = (8, 8), WindowPlan("windows", 4), WindowPlan("windows", 4, shifted=True)
    for row, column in itertools.product(range(8), range(7)):
        pair = (row * 8 + column, row * 8 + column + 1)
        assert sees(plain, grid, *pair) or sees(moved, grid, *pair)
