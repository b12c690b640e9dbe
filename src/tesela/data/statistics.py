"""Size, channels, mean and standard deviation of a data set, for an ImageSpec.

Measured on up to 2,000 training images, evenly spaced, so it is the same in every run. Odd: the size is the
median of the images' sizes, for folders of photographs differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tesela.core.errors import ImageError
from tesela.data.scan import nothing_readable
from tesela.data.source import Items

_SAMPLE = 2000
#: Below this a standard deviation is taken as this: a set of black images would divide by zero.
_LEAST_STD = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """Statistics of a data set.

    Attributes:
        size: median (height, width).
        mean: per channel, 0..1.
        std: per channel over all pixels, 0..1.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def pixel_statistics(items: Items, *, channels: int, sample: int = _SAMPLE) -> Statistics:
    """Statistics of evenly spaced images; unreadable ones are passed over (the loader lists them).

    Raises:
        DataError: none of them can be read.
    """
    sizes, sums, squares, pixels = [], np.zeros(channels, np.int64), np.zeros(channels, np.int64), 0
    for row in range(0, len(items), max(1, len(items) // sample)):
        try:
            image = items.read(row, channels=channels)
        except ImageError:
            continue
        sizes.append(image.shape[:2])
        flat = image.reshape(-1, channels)
        sums += flat.sum(0, dtype=np.int64)
        squares += np.einsum("nc,nc->c", flat, flat, dtype=np.int64)
        pixels += len(flat)
    if not sizes:
        raise nothing_readable(items)
    mean = sums / pixels / 255
    std = np.sqrt(np.maximum(squares / pixels / 255**2 - mean**2, _LEAST_STD**2))
    height, width = np.median(np.array(sizes), axis=0).round().astype(int).tolist()
    return Statistics(
        size=(height, width),
        mean=tuple(round(v, 4) for v in mean.tolist()),
        std=tuple(round(v, 4) for v in std.tolist()),
    )
