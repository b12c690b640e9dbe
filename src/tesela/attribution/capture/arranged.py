"""Captures of third-party models: what was intercepted, arranged into stages of layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tesela.attribution.capture.call import call
from tesela.attribution.capture.decoder import decoder_shares
from tesela.attribution.capture.foreign import Interception, recording_fused
from tesela.attribution.capture.geometry import flat_grid, is_pool, pyramid_stages
from tesela.attribution.capture.pooled import Pooled
from tesela.attribution.capture.reading import pools, reading
from tesela.attribution.capture.record import Capture
from tesela.attribution.methods.pyramid import Stage
from tesela.core.errors import UsageError
from tesela.layers.trace import AttentionRecord


def capture_foreign(model: nn.Module, images: Tensor, gradient: bool) -> Capture:
    """A pass of a third-party model, or of any whose layers have several grids."""
    images, logits, seen = watched(model, images, gradient, None)
    records = seen.records
    if records and not gradient:
        layers = records[:-1] if is_pool(records[-1], records) else records
        if layers[-1].name != seen.tail:  # the guess which layer is the last was wrong: now it is known
            images, logits, seen = watched(model, images, gradient, layers[-1].name)
            records = seen.records
    size = (images.shape[2], images.shape[3])
    nothing: Any = {"layers": (), "prefix": 0, "pool": None, "weights": None, "special": 0}
    plain = Capture(
        images=images, logits=logits, grid=grid_of(model, size), entering=seen.entering, **nothing
    )
    if not records:
        return plain
    try:
        return _arranged(model, plain, records, seen)
    except UsageError as error:
        return replace(plain, trouble=error.message)


def watched(
    model: nn.Module, images: Tensor, gradient: bool, tail: str | None
) -> tuple[Tensor, Tensor, Interception]:
    """A pass under interception: the images as the model saw them, the logits, and what was seen."""
    seen = Interception(model, gradient=gradient, tail=tail)
    with recording_fused(model), torch.set_grad_enabled(gradient), seen:
        images = images.detach().clone().requires_grad_(gradient)
        logits = call(model, images)
    return images, logits, seen


def _arranged(
    model: nn.Module, plain: Capture, records: list[AttentionRecord], seen: Interception
) -> Capture:
    """The capture with its layers in stages, and how the head reads them."""
    images, logits = plain.images, plain.logits
    pool = records[-1] if is_pool(records[-1], records) else None
    layers = tuple(records[:-1] if pool is not None else records)
    if any(len(one.q) != len(images) for one in layers):
        raise UsageError(
            "attention runs within windows whose places are not known", hint="use a method without attention"
        )
    size = (images.shape[2], images.shape[3])
    lengths = {length for one in layers for length in (one.q.shape[2], one.k.shape[2])}
    if len(lengths) == 1:
        grid, prefix = flat_grid(model, lengths.pop(), size, seen.convolutions)
        stages: tuple[Stage, ...] = (
            Stage(grid=grid, layers=tuple((layer, None) for layer in layers), merging=None),
        )
    else:
        stages, prefix = pyramid_stages(layers, size, seen.convolutions), 0
        grid = stages[0].grid
    pooled = seen.pooled if seen.pooled is not None and _fits(seen.pooled, stages, prefix) else None
    found = replace(plain, layers=layers, grid=grid, prefix=prefix, stages=stages, pooled=pooled)
    if logits.ndim == 4:
        return replace(found, shares=decoder_shares(model, len(stages)))
    if pool is not None and pools(pool, logits):
        return replace(found, pool=pool, pooled=None)
    read = reading(layers[-1], logits, prefix=prefix)
    return replace(found, read=read, special=0 if read is not None else min(1, prefix))


def _fits(pooled: Pooled, stages: tuple[Stage, ...], prefix: int) -> bool:
    """Whether what was averaged are the patches of the last stage, with or without the prefix."""
    return pooled.tokens.shape[1] in (stages[-1].tokens, stages[-1].tokens + prefix)


def grid_of(model: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """The model's grid for images of that size; the pixels themselves where it does not say."""
    ask: Callable[[Any], Any] | None = getattr(model, "grid", None)
    if not callable(ask):
        return size
    rows, columns = ask(size)
    return int(rows), int(columns)
