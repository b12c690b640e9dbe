"""Masks at the images' own sizes, from the logits of a segmenter's view; NumPy alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tesela.imaging.preprocess import unfit

if TYPE_CHECKING:
    from tesela.models.bundle import BundleInfo


def mask_of(logits: NDArray[np.floating[Any]], size: tuple[int, int], info: BundleInfo) -> NDArray[np.uint8]:
    """(H, W) most probable class of each pixel of an image of ``size``, from logits (K, h, w) of its view.

    One class after the other, so that memory does not grow with their number.
    """
    if size == logits.shape[1:]:  # at the image's own size already
        whole: NDArray[np.uint8] = logits.argmax(0).astype(np.uint8)
        return whole
    best = unfit(logits[0], size, info.image)
    found = np.zeros(size, np.uint8)
    for label in range(1, len(logits)):
        values = unfit(logits[label], size, info.image)
        higher = values > best
        found[higher] = label
        np.copyto(best, values, where=higher)
    return found
