"""Histograms of a graph's tensors on real images, and their best uint8 ranges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tesela.exporters.int8.layers import open_session

if TYPE_CHECKING:
    from tesela.exporters.int8.layers import Layer

FINE_BINS = 2048
#: Shares of the range that are tried as clipped range.
CLIP_SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


@dataclass(kw_only=True, slots=True)
class Observed:
    """Values of one tensor.

    Attributes:
        low: smallest value.
        high: largest value.
        channels: (D,) largest absolute value of each channel, the last axis.
        counts: histogram between ``low`` and ``high``.
        scale: step of its uint8 form.
        zero: the integer that stands for 0.
        error: mean squared error of that form.
        power: mean square of the values.
    """

    low: float = 0.0
    high: float = 0.0
    channels: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(FINE_BINS))
    scale: float = 1.0
    zero: int = 0
    error: float = 0.0
    power: float = 0.0

    def choose(self) -> None:
        """Set the range with the least squared error."""
        edges = np.linspace(self.low, self.high, FINE_BINS + 1)
        middles = (edges[:-1] + edges[1:]) / 2
        weights = self.counts / max(self.counts.sum(), 1.0)
        self.power = float((weights * middles**2).sum())
        best = np.inf
        for below in CLIP_SHARES:
            for above in CLIP_SHARES:
                low, high = min(0.0, self.low * below), max(0.0, self.high * above)
                scale = (high - low) / 255 or 1.0
                zero = int(np.clip(np.rint(-low / scale), 0, 255))
                rounded = (np.clip(np.rint(middles / scale) + zero, 0, 255) - zero) * scale
                error = float((weights * (rounded - middles) ** 2).sum()) + scale**2 / 12 * 1e-3
                if error < best:
                    best, self.scale, self.zero, self.error = error, scale, zero, error


def observe(
    graph: Any,
    layers: Sequence[Layer],
    images: NDArray[np.float32],
    *,
    channels: bool = False,
    batch: int = 4,
) -> dict[str, Observed]:
    """Values of the tensors that layers read.

    Args:
        graph: an ONNX model.
        layers: the readers.
        images: (N, C, h, w), normalised.
        channels: the largest of each channel alone; else the histogram too.
        batch: images at a time.
    """
    names = list(dict.fromkeys(layer.input for layer in layers if layer.input != "images"))
    session = open_session(graph, outputs=names)
    found = {name: Observed() for name in {layer.input for layer in layers}}
    for histogram in (False,) if channels else (False, True):
        for first in range(0, len(images), batch):
            part = images[first : first + batch]
            values = dict(zip(names, session.run(names, {"images": part}), strict=True))
            values["images"] = part
            for name, seen in found.items():
                _count(seen, values[name], histogram=histogram)
    if not channels:
        for seen in found.values():
            seen.choose()
    return found


def _count(seen: Observed, values: NDArray[np.float32], *, histogram: bool) -> None:
    if histogram:
        counts, _ = np.histogram(values, bins=FINE_BINS, range=(seen.low, max(seen.high, seen.low + 1e-12)))
        seen.counts += counts
        return
    seen.low, seen.high = min(seen.low, float(values.min())), max(seen.high, float(values.max()))
    largest = np.abs(values).reshape(-1, values.shape[-1]).max(0)
    known = seen.channels
    seen.channels = np.maximum(known, largest) if known.shape == largest.shape else largest
