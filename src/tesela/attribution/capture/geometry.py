"""Token grids of third-party models, read off attention and convolution shapes.

No configuration is asked. A plain transformer has one number of tokens N; its grid is what a convolution left
with the most cells that fit, and the rest is prefix. A pyramid has stages without prefix: a stage is the
layers with the same number of queries, on the grid that a convolution from the grid of the stage before left;
where keys are fewer than queries, a convolution inside the attention made them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from tesela.attribution.capture.foreign import StridedLayer
from tesela.attribution.methods.pyramid import Reduction, Stage, merging
from tesela.core.errors import UsageError
from tesela.layers.grid import Grid
from tesela.layers.trace import AttentionRecord

#: More tokens before the patches than any model has.
MOST_PREFIX = 64


def is_pool(record: AttentionRecord, all_records: Sequence[AttentionRecord]) -> bool:
    """Whether an attention reads the tokens with few queries of its own.

    The last one, of another length than all layers.
    """
    queries, keys = record.q.shape[2], record.k.shape[2]
    others = [one for one in all_records if one is not record]
    if record is not all_records[-1] or not others or queries >= keys:
        return False
    return queries != others[-1].q.shape[2] and keys <= others[-1].q.shape[2]


def flat_grid(
    model: nn.Module, tokens: int, size: Grid, convolutions: Sequence[StridedLayer]
) -> tuple[Grid, int]:
    """Grid and prefix of N tokens.

    Raises:
        UsageError: neither shapes nor configuration tell.
    """
    fitting = [one.left for one in convolutions if 0 <= tokens - one.left[0] * one.left[1] <= MOST_PREFIX]
    fitting.sort(key=lambda one: one[0] * one[1])
    grid = fitting[-1] if fitting else _by_patch_size(model, tokens, size) or _by_aspect(tokens, size)
    prefix = tokens - grid[0] * grid[1]
    said = getattr(model, "num_prefix_tokens", None)
    if isinstance(said, int) and said != prefix:
        raise UsageError(
            f"the model has {tokens} tokens and a grid of {grid[0]} x {grid[1]}, and says that {said} "
            "tokens are no patches",
            hint="switch off what leaves tokens out or merges them",
        )
    return grid, prefix


def _by_patch_size(model: nn.Module, tokens: int, size: Grid) -> Grid | None:
    """From a configuration that names its patches, for models that cut patches without a convolution."""
    patch: Any = getattr(getattr(model, "config", None), "patch_size", None)
    if patch is None:
        return None
    height, width = (patch, patch) if isinstance(patch, int) else (int(patch[0]), int(patch[-1]))
    grid = (size[0] // height, size[1] // width)
    return grid if 0 <= tokens - grid[0] * grid[1] <= MOST_PREFIX else None


def _by_aspect(tokens: int, size: Grid) -> Grid:
    """The largest grid of square patches that fits."""
    for patches in range(tokens, max(0, tokens - MOST_PREFIX - 1), -1):
        rows = round((patches * size[0] / size[1]) ** 0.5)
        if rows and patches % rows == 0 and rows * size[1] == patches // rows * size[0]:
            return rows, patches // rows
    raise UsageError(
        f"{tokens} tokens make no grid on an image of {size[0]} x {size[1]}",
        hint="use a method without attention",
    )


def pyramid_stages(
    records: Sequence[AttentionRecord], size: Grid, convolutions: Sequence[StridedLayer]
) -> tuple[Stage, ...]:
    """The stages of a pyramid, from the image up.

    Raises:
        UsageError: the layers are no such pyramid.
    """
    stages: list[Stage] = []
    before = size
    between = [one for one in convolutions if not any(_within(one, record) for record in records)]
    for record in records:
        tokens = record.q.shape[2]
        if not stages or tokens != stages[-1].tokens:
            made = next((one for one in between if _merges(one, before, tokens)), None)
            if made is None:
                where = f"it is not known where the {tokens} tokens of {record.name!r} stand"
                raise UsageError(where, hint="use a method without attention")
            operator = merging(made.weight, made.stride, made.padding, entered=before)
            stages.append(Stage(grid=made.left, layers=(), merging=operator))
            before = made.left
        stage = stages[-1]
        reduction = _reduction(record, stage.grid, convolutions)
        stages[-1] = Stage(
            grid=stage.grid, layers=(*stage.layers, (record, reduction)), merging=stage.merging
        )
    return tuple(stages)


def _merges(one: StridedLayer, entered: Grid, tokens: int) -> bool:
    return one.groups == 1 and one.entered == entered and one.left[0] * one.left[1] == tokens


def _within(one: StridedLayer, record: AttentionRecord) -> bool:
    """Whether the convolution belongs to the module of that attention."""
    return one.name.startswith(f"{record.name}.")


def _reduction(record: AttentionRecord, grid: Grid, convolutions: Sequence[StridedLayer]) -> Reduction | None:
    """Reduction of the grid to keys, by the attention's own convolution.

    None where each token is a key.
    """
    keys = record.k.shape[2]
    if keys == record.q.shape[2]:
        return None
    for one in convolutions:
        fits = (
            one.entered == grid
            and one.left[0] * one.left[1] == keys
            and one.stride == tuple(one.weight.shape[2:])
        )
        if fits and _within(one, record):
            return Reduction(grid=grid, cells=one.left, ratio=one.stride)
    raise UsageError(
        f"it is not known how the {keys} keys of {record.name!r} were made",
        hint="use a method without attention",
    )
