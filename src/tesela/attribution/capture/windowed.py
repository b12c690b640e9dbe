"""Capture of pyramids of this package whose attention runs within windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tesela.attribution.capture.decoder import decoder_shares
from tesela.attribution.capture.record import Capture
from tesela.attribution.methods.pyramid import Merging, Stage, WindowPlaces, merging
from tesela.layers.grid import Grid
from tesela.layers.trace import AttentionRecord
from tesela.models.backbone import Backbone
from tesela.models.model import Model

#: Every stage but the first halves the map.
STRIDE = 2


def windowed(found: Capture, model: Model, grids: Sequence[Grid]) -> Capture:
    """With the layers in stages, each window at its place.

    Args:
        found: the capture, whose layers have places and are named ``stages.S....``.
        model: what was captured.
        grids: of its stages, for images of this size.
    """
    stages = []
    for number, grid in enumerate(grids):
        layers = tuple((one, _placement(one, grid)) for one in found.layers if _stage(one) == number)
        stages.append(Stage(grid=grid, layers=layers, merging=_merging(model.backbone, number, grids)))
    whole = replace(found, stages=tuple(stages), grid=grids[0])
    if found.logits.ndim == 4:
        return replace(whole, shares=decoder_shares(model, len(stages)))
    return whole


def _stage(layer: AttentionRecord) -> int:
    return int(layer.name.split(".")[1])


def _placement(layer: AttentionRecord, grid: Grid) -> WindowPlaces:
    assert layer.places is not None, "the layer attends within windows"
    return WindowPlaces(places=layer.places, tokens=grid[0] * grid[1])


def _merging(backbone: Backbone[Any], number: int, grids: Sequence[Grid]) -> Merging | None:
    weight = backbone.merging_weights(number)
    if weight is None:
        return None
    side, before, after = weight.shape[2], grids[number - 1], grids[number]
    margin = (side - 1) // 2
    down, right = (
        max(0, STRIDE * (new - 1) + side - 2 * margin - old) for new, old in zip(after, before, strict=True)
    )
    padding = (margin, margin)
    return merging(weight, (STRIDE, STRIDE), padding, entered=before, beyond=(down, right))
