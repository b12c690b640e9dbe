"""Where a loader's pixels come from: images decoded once into memory, or files decoded each time they are needed.

Both give uint8 batches (B, C, h, w) at the model's size for given rows. Odd: only the streaming one crops before it resizes
(random_resized_crop on the full-size image); it decodes a large JPEG no larger than the crop needs, and its training resize
is torch's antialiased bilinear one, which is faster than Pillow's and within one grey level of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tesela.core.errors import DataError, ImageError
from tesela.data.augment import Augment
from tesela.data.scan import Unreadable, attempt, in_threads
from tesela.data.source import Items
from tesela.imaging.decode import decode, upright_size
from tesela.imaging.preprocess import fit
from tesela.imaging.spec import ImageSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A set is kept in memory where its pixels at the model's size take no more than this.
RAM_BYTES = 2 << 30
_LOOKED_AT = 16
Box = tuple[float, float, float, float]


class Reader(Protocol):
    """Gives pixels by row."""

    def read(self, rows: NDArray[np.int64], seed: int, epoch: int, /) -> Tensor:
        """(B, C, h, w), uint8."""
        ...


class RamReader:
    """All images in one tensor (N, C, h, w), uint8, on any device."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def read(self, rows: NDArray[np.int64], _seed: int, _epoch: int, /) -> Tensor:
        """The rows' images, copied."""
        return self.images.index_select(0, torch.from_numpy(rows).to(self.images.device))


class StreamReader:
    """Images decoded when asked for.

    Args:
        items: where from.
        spec: the model's view.
        augment: with random_resized_crop, cropped here; else None.
    """

    def __init__(self, items: Items, spec: ImageSpec, augment: Augment | None) -> None:
        self.items, self.spec, self.augment = items, spec, augment

    def read(self, rows: NDArray[np.int64], seed: int, epoch: int, /) -> Tensor:
        """The rows' images, decoded one after another."""
        return torch.stack([self._image(row, seed, epoch) for row in rows.tolist()])

    def _image(self, row: int, seed: int, epoch: int) -> Tensor:
        try:
            if self.augment is None:
                return torch.from_numpy(fitted(self.items, row, self.spec)).permute(2, 0, 1)
            return self._crop(row, self.augment, seed, epoch)
        except ImageError as error:
            raise DataError(
                f"{self.items.name(row)} became unreadable: {error.message}", hint="'tesela data check DATA' lists what is unreadable"
            ) from error

    def _crop(self, row: int, augment: Augment, seed: int, epoch: int) -> Tensor:
        """A random part of one image at the model's size, decoded at the smallest scale that serves it."""
        data = self.items.raw(row)
        if data is None:
            image = self.items.read(row, channels=self.spec.channels)
            return resized_part(image, self._box(augment, image.shape[:2], row, seed, epoch), self.spec.size)
        size = upright_size(data)
        top, left, height, width = self._box(augment, size, row, seed, epoch)
        least = size[0] * self.spec.height / height, size[1] * self.spec.width / width
        image = decode(data, channels=self.spec.channels, size_hint=(math.ceil(least[0]), math.ceil(least[1])))
        down, across = image.shape[0] / size[0], image.shape[1] / size[1]
        return resized_part(image, (top * down, left * across, height * down, width * across), self.spec.size)

    def _box(self, augment: Augment, size: tuple[int, ...], row: int, seed: int, epoch: int) -> Box:
        top, left, height, width = augment.boxes(np.array([size[:2]]), seed=seed, epoch=epoch, indices=np.array([row]))[0].tolist()
        return top, left, height, width


def resized_part(image: NDArray[np.uint8], box: Box, size: tuple[int, int]) -> Tensor:
    """A part (top, left, height, width; rounded to whole pixels) of an image (H, W, C) at ``size``: (C, h, w), uint8."""
    top, left = round(box[0]), round(box[1])
    part = image[top : max(round(box[0] + box[2]), top + 1), left : max(round(box[1] + box[3]), left + 1)]
    planes = torch.from_numpy(part).permute(2, 0, 1)[None]
    return F.interpolate(planes, size, mode="bilinear", antialias=True)[0]


def fitted(items: Items, row: int, spec: ImageSpec) -> NDArray[np.uint8]:
    """One image as evaluation, server and board see it: (h, w, C)."""
    return fit(items.read(row, channels=spec.channels), spec)


def load_all(items: Items, spec: ImageSpec) -> tuple[Tensor, list[Unreadable]]:
    """Every image fitted, (N, C, h, w) uint8, and those that could not be (their rows are black)."""
    images = np.zeros((len(items), spec.channels, *spec.size), np.uint8)
    unreadable = []
    results = in_threads(lambda row: attempt(items, row, lambda: fitted(items, row, spec)), len(items))
    for row, result in enumerate(results):
        if isinstance(result, Unreadable):
            unreadable.append(result)
        else:
            images[row] = result.transpose(2, 0, 1)
    return torch.from_numpy(images), unreadable


def fits_in_ram(items: Items, spec: ImageSpec, *, crops: bool) -> bool:
    """Whether cache "auto" keeps decoded images: they fit, and nothing needs more detail than the model's size has."""
    if len(items) * spec.height * spec.width * spec.channels > RAM_BYTES:
        return False
    return not crops or not any(_is_larger(items, row, spec) for row in range(0, len(items), max(1, len(items) // _LOOKED_AT)))


def _is_larger(items: Items, row: int, spec: ImageSpec) -> bool:
    try:
        height, width = items.read(row).shape[:2]
    except ImageError:
        return False
    return bool(height > spec.height or width > spec.width)
