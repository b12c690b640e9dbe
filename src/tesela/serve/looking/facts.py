"""Facts of a served model that its network has to be asked for, gathered once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tesela.attribution.methods.table import methods
from tesela.core.errors import UsageError
from tesela.imaging.color import colour_channels
from tesela.imaging.png import encode_png
from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import CARD
from tesela.serve.looking.attention import (
    NoAttentionError,
    attention_layers,
    attention_of,
    mean_distance,
)

#: Pictures in a row of the sheet of filters, and most pixels of a side of a sheet.
ACROSS, MOST_SIDE = 7, 2048
#: Methods that need no further passes; one request of another would hold up all that wait.
QUICK = tuple(name for name, method in methods().items() if not method.passes)


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkFacts:
    """What a network says of itself.

    Attributes:
        parameters: number of weights; None without a network, as the next three and the sheets.
        layers: that attend.
        heads: of each.
        grid: rows and columns of patches.
        distance: mean attention distance in pixels, layers x heads, over example images.
        filters: PNG sheet of the first layer's principal filters.
        positions: PNG sheet of the similarity of positions, a map at each patch's place.
        methods: of explanation that work.
        options: parameters of ``/v1/explain`` that some of them take.
    """

    parameters: int | None = None
    layers: int | None = None
    heads: int | None = None
    grid: tuple[int, int] | None = None
    distance: list[list[float]] | None = None
    filters: bytes | None = None
    positions: bytes | None = None
    methods: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def network_facts(
    network: Any, spec: ImageSpec, examples: NDArray[np.uint8], *, explained: bool
) -> NetworkFacts:
    """Facts of a torch network.

    Args:
        network: the module.
        spec: its view of an image.
        examples: (n, h, w, C), uint8, what the distances are measured on.
        explained: whether its task has classes that can be explained.
    """
    from tesela.inspection.inspect import inspect

    blank = np.zeros((*spec.size, spec.channels), np.uint8)
    layers = heads = grid = distance = None
    try:
        found = attention_of(network, blank, spec)
        (layers, heads), grid = found.prefix.shape, found.grid
        if len(examples):
            distance = mean_distance(network, examples, spec)
    except NoAttentionError:
        pass
    attends = explained and attention_layers(network, spec) > 0
    filters = positions = None
    try:
        inside = inspect(network)
    except UsageError:
        inside = None
    if inside is not None:
        filters = _tiled(inside.filters.images.numpy())
        table = None if inside.positions is None else inside.positions.similarity
        positions = None if table is None else _plate(table[0].numpy())
    able = [name for name in QUICK if attends or (explained and not methods()[name].attention)]
    return NetworkFacts(
        parameters=sum(weight.numel() for weight in network.parameters()),
        layers=layers,
        heads=heads,
        grid=grid,
        distance=distance,
        filters=filters,
        positions=positions,
        methods=tuple(able),
    )


def card_text(bundle: Path | None) -> str:
    """The model card of a bundle; empty without one."""
    if bundle is None or not (bundle / CARD).is_file():
        return ""
    return (bundle / CARD).read_text("utf-8", errors="replace")


def _tiled(images: NDArray[np.float32]) -> bytes:
    """Filters (m, C, h, w) as one sheet, each with its own scale, 0 at the middle grey."""
    images = images[:, : colour_channels(images.shape[1])]  # alpha's part has no colour
    count, channels, height, width = images.shape
    scale = np.abs(images).max((1, 2, 3), keepdims=True)
    levels = ((images / np.where(scale > 0, scale, 1.0) * 0.5 + 0.5) * 255).round().astype(np.uint8)
    across = min(count, ACROSS)
    down = -(-count // across)
    sheet = np.full((down * across, channels, height + 1, width + 1), 255, np.uint8)
    sheet[:count, :, :height, :width] = levels
    rows = sheet.reshape(down, across, channels, height + 1, width + 1).transpose(0, 3, 1, 4, 2)
    return encode_png(rows.reshape(down * (height + 1), across * (width + 1), channels))


def _plate(maps: NDArray[np.float32]) -> bytes | None:
    """Similarities (Hp, Wp, h, w), from -1 to 1, as one grey sheet; None where it would be too large."""
    rows, columns, height, width = maps.shape
    if max(rows * height, columns * width) > MOST_SIDE:
        return None
    levels = ((maps.clip(-1, 1) * 0.5 + 0.5) * 255).round().astype(np.uint8)
    return encode_png(levels.transpose(0, 2, 1, 3).reshape(rows * height, columns * width))
