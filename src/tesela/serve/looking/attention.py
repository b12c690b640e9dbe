"""Attention of one image for the API: where a token looks, and all heads on one sheet.

Torch is imported when the first of these is asked for. A query is the token that the model's head reads (or
the tokens it averages, with their weights), or a patch. Pyramids, whose layers have grids of their own, are
not shown.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tesela.imaging.png import encode_png
from tesela.imaging.preprocess import normalize
from tesela.imaging.spec import ImageSpec

#: Queries whose rows are computed at once.
QUERIES_AT_ONCE = 256


class NoAttentionError(Exception):
    """The model has no attention among one grid of patches."""


class OutOfRangeError(Exception):
    """There is no such layer, head or patch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadAttention:
    """Attention of one query in every layer and head.

    Attributes:
        grid: rows and columns of patches.
        patches: (layers, heads, rows, columns), float64, as it is.
        prefix: (layers, heads), the share on tokens that are no patches.
        entropy: (layers, heads), in nats, over all tokens.
    """

    grid: tuple[int, int]
    patches: NDArray[np.float64]
    prefix: NDArray[np.float64]
    entropy: NDArray[np.float64]

    def one(self, layer: int | None, head: int | None) -> tuple[int, NDArray[np.float64], float]:
        """The layer's number (the last if None), its weights (rows, columns), and the share on the prefix.

        Without a head both are the mean over heads.

        Raises:
            OutOfRangeError: there is no such layer or head.
        """
        layers, heads = self.prefix.shape
        chosen = layers - 1 if layer is None else layer
        if not 0 <= chosen < layers or (head is not None and not 0 <= head < heads):
            raise OutOfRangeError
        if head is None:
            return chosen, self.patches[chosen].mean(0), float(self.prefix[chosen].mean())
        return chosen, self.patches[chosen, head], float(self.prefix[chosen, head])

    def sheet(self) -> bytes:
        """Every head's map, a row for each layer, as a grey PNG; each map is scaled to its maximum."""
        layers, heads, rows, columns = self.patches.shape
        peak = self.patches.max((2, 3), keepdims=True)
        grey = (self.patches / np.where(peak > 0, peak, 1.0) * 255).round().astype(np.uint8)
        return encode_png(grey.transpose(0, 2, 1, 3).reshape(layers * rows, heads * columns))


@contextlib.contextmanager
def captured(network: Any, view: NDArray[np.uint8], spec: ImageSpec) -> Iterator[Any]:
    """What one forward pass of an image (h, w, C), uint8, leaves behind (``tesela.attribution.capture``)."""
    import torch

    from tesela.attribution.capture.call import undisturbed, unwrapped
    from tesela.attribution.capture.capture import capture

    model = unwrapped(network)
    parameter = next(model.parameters())
    images = torch.from_numpy(normalize(view[None], spec)).to(parameter)
    with undisturbed(model), torch.no_grad():
        yield capture(model, images, gradient=False)


def attention_layers(network: Any, spec: ImageSpec) -> int:
    """Number of layers that attend, those of pyramids too."""
    with captured(network, np.zeros((*spec.size, spec.channels), np.uint8), spec) as found:
        return len(found.layers)


def mean_distance(network: Any, images: NDArray[np.uint8], spec: ImageSpec) -> list[list[float]]:
    """Mean attention distance (layers x heads) in pixels over images (n, h, w, C), on one grid."""
    from tesela.inspection.distance import attention_distance

    distances = []
    for image in images:
        with captured(network, image, spec) as found:
            pitch = spec.height / found.grid[0], spec.width / found.grid[1]
            distances.append(attention_distance(found.layers, found.grid, found.prefix, pitch=pitch).numpy())
    rounded: list[list[float]] = np.stack(distances).astype(np.float64).mean(0).round(4).tolist()
    return rounded


def attention_of(
    network: Any, view: NDArray[np.uint8], spec: ImageSpec, *, patch: tuple[int, int] | None = None
) -> HeadAttention:
    """Attention of what the head reads, or of a patch (row, column), on an image (h, w, C), uint8.

    Raises:
        NoAttentionError: the model cannot be shown so.
        OutOfRangeError: the patch is not on the grid.
    """
    import torch

    from tesela.attribution.capture.rows import attention_rows

    with captured(network, view, spec) as found:
        tokens = found.prefix + found.grid[0] * found.grid[1]
        heads = {record.q.shape[1] for record in found.layers}
        lengths = {length for record in found.layers for length in (record.q.shape[2], record.k.shape[2])}
        windows = any(record.places is not None for record in found.layers)
        if windows or lengths != {tokens} or len(heads) != 1:
            raise NoAttentionError
        if patch is not None and not (0 <= patch[0] < found.grid[0] and 0 <= patch[1] < found.grid[1]):
            raise OutOfRangeError
        start = found.start(patch=patch)[0, 0].double()
        rows = []
        for record in found.layers:
            look = attention_rows(record)
            total = torch.zeros(record.q.shape[1], tokens, dtype=torch.float64, device=start.device)
            for begin in range(0, tokens, QUERIES_AT_ONCE):
                part = start[begin : begin + QUERIES_AT_ONCE]
                if part.any():
                    total += torch.einsum("q,hqn->hn", part, look(begin, begin + len(part))[0].double())
            rows.append(total.cpu().numpy())
    whole = np.stack(rows)  # (layers, heads, tokens)
    logs = np.log(np.where(whole > 0, whole, 1.0))
    return HeadAttention(
        grid=found.grid,
        patches=whole[..., found.prefix :].reshape(*whole.shape[:2], *found.grid),
        prefix=whole[..., : found.prefix].sum(-1),
        entropy=-(whole * logs).sum(-1),
    )
