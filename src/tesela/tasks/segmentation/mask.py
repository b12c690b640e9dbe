"""Masks at the images' own sizes, from the logits of a segmenter's view; NumPy alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tesela.imaging.preprocess import unfit

if TYPE_CHECKING:
    from tesela.models.bundle import BundleInfo


#: Side of the parts in which a mask is brought to an image's own size.
PART = 1024


def mask_of(logits: NDArray[np.floating[Any]], size: tuple[int, int], info: BundleInfo) -> NDArray[np.uint8]:
    """(H, W) most probable class of each pixel of an image of ``size``, from logits (K, h, w) of its view.

    One class after the other on a part of the image after the other, so that memory does not grow with them.
    """
    if size == logits.shape[1:]:  # at the image's own size already
        whole: NDArray[np.uint8] = logits.argmax(0).astype(np.uint8)
        return whole
    found = np.zeros(size, np.uint8)
    for top in range(0, size[0], PART):
        for left in range(0, size[1], PART):
            rows, columns = (top, min(top + PART, size[0])), (left, min(left + PART, size[1]))
            part = found[slice(*rows), slice(*columns)]
            best = unfit(logits[0], size, info.image, rows=rows, columns=columns)
            for label in range(1, len(logits)):
                values = unfit(logits[label], size, info.image, rows=rows, columns=columns)
                higher = values > best
                part[higher] = label
                np.copyto(best, values, where=higher)
    return found
