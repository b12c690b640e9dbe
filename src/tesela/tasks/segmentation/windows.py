"""Logits of an image at its own size: sliding windows of the model's view, and flips.

Windows overlap by half; where several look at a pixel, their logits are averaged, so are those of an image
and its mirror image. Plain NumPy over whatever computes logits, so that evaluation, ``predict`` and a board
do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    #: Logits (B, K, h, w) of normalised views (B, C, h, w).
    Compute = Callable[[Floats], Floats]

#: Windows computed at once.
TOGETHER = 8


def window_starts(length: int, view: int) -> list[int]:
    """First pixels of windows of ``view`` pixels that cover ``length``, overlapping by half or more."""
    if length <= view:
        return [0]
    count = -(-(length - view) // max(1, view // 2)) + 1
    return sorted({round(place * (length - view) / (count - 1)) for place in range(count)})


def sliding_logits(compute: Compute, image: Floats, *, view: tuple[int, int], flip: bool) -> Floats:
    """Logits (K, H, W) of one image at its own size.

    Args:
        compute: gives logits of views.
        image: (C, H, W), normalised.
        view: height and width of a window.
        flip: average each window with its mirror image.
    """
    _, height, width = image.shape
    below, beside = max(0, view[0] - height), max(0, view[1] - width)
    padded = np.pad(image, ((0, 0), (0, below), (0, beside))) if below or beside else image
    total: Floats | None = None
    seen = np.zeros(padded.shape[1:], np.float32)
    for places in _groups(padded.shape[1:], view):
        cuts = [padded[:, top : top + view[0], left : left + view[1]] for top, left in places]
        logits = flipped_mean(compute, np.stack(cuts), flip=flip)
        if total is None:
            total = np.zeros((logits.shape[1], *padded.shape[1:]), np.float32)
        for (top, left), part in zip(places, logits, strict=True):
            total[:, top : top + view[0], left : left + view[1]] += part
            seen[top : top + view[0], left : left + view[1]] += 1
    assert total is not None
    total /= seen
    return total[:, :height, :width]


def _groups(size: tuple[int, ...], view: tuple[int, int]) -> Iterator[list[tuple[int, int]]]:
    places = [
        (top, left) for top in window_starts(size[0], view[0]) for left in window_starts(size[1], view[1])
    ]
    for start in range(0, len(places), TOGETHER):
        yield places[start : start + TOGETHER]


def flipped_mean(compute: Compute, views: Floats, *, flip: bool) -> Floats:
    """Logits of views (B, C, h, w), averaged with those of their mirror images if ``flip``."""
    logits = compute(views)
    if not flip:
        return logits
    mirrored = compute(np.ascontiguousarray(views[..., ::-1]))
    mean: Floats = (logits + mirrored[..., ::-1]) * np.float32(0.5)
    return mean
