"""Relative positions against transformers' SAM attention, which has the same decomposed offsets, and
against a loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionAttention

from tesela.layers.attention.grid_attention import GridAttention
from tesela.layers.attention.window_plan import WindowPlan
from tesela.layers.grid import Grid
from tesela.layers.initialise import initialise
from tesela.layers.position.relative import RelativePositions
from tesela.layers.token_layout import TokenLayout


def make(windows: WindowPlan, grid: Grid, heads: int = 2, width: int = 4) -> RelativePositions:
    relative = RelativePositions(heads, width, windows=windows, grid=grid)
    initialise(relative, torch.Generator().manual_seed(0))
    return relative


def loop(relative: RelativePositions, queries: Tensor, grid: Grid) -> Tensor:
    """One pair of patches at a time, on the tables' own grid."""
    batch, heads, count, _ = queries.shape
    total = torch.zeros(batch, heads, count, count)
    for query in range(count):
        for key in range(count):
            for axis, table in ((0, relative.rows), (1, relative.columns)):
                if table is None:
                    continue
                offset = divmod(key, grid[1])[axis] - divmod(query, grid[1])[axis]
                total[:, :, query, key] += torch.einsum(
                    "bhd,hd->bh", queries[:, :, query], table[:, offset + table.shape[1] // 2]
                )
    return total


@pytest.mark.parametrize("grid", [(3, 4), (1, 5), (4, 1)])
def test_logits_equal_a_loop(grid: Grid) -> None:
    relative = make(WindowPlan(), grid)
    queries = torch.randn(2, 2, grid[0] * grid[1], 4)
    torch.testing.assert_close(
        relative.within(queries.unsqueeze(2), grid).squeeze(2), loop(relative, queries, grid)
    )


@pytest.mark.parametrize("size", [8, 12, 6])
def test_attention_equals_that_of_sam(size: int) -> None:
    """Reference: transformers, at its own grid of 8 x 8 and at larger and smaller ones, where the tables
    are stretched.

    There, the second logits are not scaled, the heads share a table, and an offset is the query's place
    minus the key's.
    """
    config = SamVisionConfig(
        hidden_size=8, num_attention_heads=2, image_size=64, patch_size=8, use_rel_pos=True
    )
    theirs = SamVisionAttention(config, window_size=0).eval()
    ours = GridAttention(8, 2, windows=WindowPlan(), grid=(8, 8), relative=True).eval()
    assert ours.relative is not None and ours.relative.rows is not None and ours.relative.columns is not None
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3)
        ours.qkv.load_state_dict(theirs.qkv.state_dict())
        ours.out.load_state_dict(theirs.proj.state_dict())
        for table, known in (
            (ours.relative.rows, theirs.rel_pos_h),
            (ours.relative.columns, theirs.rel_pos_w),
        ):
            table.copy_((known.flip(0) * 2.0).expand(2, -1, -1))
    tokens = torch.randn(2, size * size, 8)
    expected = theirs(tokens.view(2, size, size, 8))[0].flatten(1, 2)
    torch.testing.assert_close(
        ours(tokens, layout=TokenLayout((size, size), 0)), expected, rtol=1e-4, atol=1e-5
    )
    ours.relative.move_to((size, size))
    assert ours.relative.rows.shape == (2, 2 * size - 1, 4)
    torch.testing.assert_close(
        ours(tokens, layout=TokenLayout((size, size), 0)), expected, rtol=1e-4, atol=1e-5
    )


def test_windows_count_tokens_on_every_grid() -> None:
    """A window's table is the same on a larger grid.

    Where the grid was smaller than the window, its ends are repeated.
    """
    relative = make(WindowPlan("windows", 4), (3, 9))
    assert relative.rows is not None and relative.columns is not None
    assert relative.rows.shape == (2, 5, 4) and relative.columns.shape == (2, 7, 4)
    before_rows, before_columns = relative.rows.detach().clone(), relative.columns.detach().clone()
    relative.move_to((8, 8))
    assert torch.equal(relative.rows, before_rows[:, [0, 0, 1, 2, 3, 4, 4]]) and torch.equal(
        relative.columns, before_columns
    )
    relative.move_to((2, 8))
    assert torch.equal(relative.rows, before_rows[:, [1, 2, 3]])


@pytest.mark.parametrize(("shape", "tables"), [("rows", (None, 7)), ("columns", (5, None))])
def test_an_axis_has_the_table_of_its_offsets(shape: str, tables: tuple[int | None, int | None]) -> None:
    relative = make(WindowPlan(shape), (3, 4))  # type: ignore[arg-type]
    assert (
        tuple(None if table is None else table.shape[1] for table in (relative.rows, relative.columns))
        == tables
    )
    queries = torch.randn(1, 2, 12, 4)
    windows = queries.view(1, 2, 3, 4, 4) if shape == "rows" else queries.view(1, 2, 3, 4, 4).transpose(2, 3)
    found, expected = relative.within(windows, (3, 4)), loop(relative, queries, (3, 4)).view(1, 2, 3, 4, 3, 4)
    for index in range(found.shape[2]):
        part = expected[:, :, index, :, index] if shape == "rows" else expected[:, :, :, index, :, index]
        torch.testing.assert_close(found[:, :, index], part)


@pytest.mark.parametrize("grid", [(3, 4), (5, 6)])
def test_a_choice_of_patches_has_the_logits_of_the_whole(grid: Grid) -> None:
    relative = make(WindowPlan(), (3, 4))
    count = grid[0] * grid[1]
    kept = torch.stack([torch.randperm(count)[:7].sort().values for _ in range(3)])
    queries = torch.randn(3, 2, count, 4)
    whole = relative.within(queries.unsqueeze(2), grid).squeeze(2)
    for image in range(3):
        choice = kept[image]
        one = slice(image, image + 1)
        found = relative.among(queries[one][:, :, choice], TokenLayout(grid, 0, kept[one]))
        torch.testing.assert_close(found, whole[one][:, :, choice][..., choice])
