"""Pixel readers of a loader: decoded once into memory, or decoded at each use.

Both give uint8 batches (B, C, h, w) at the model's size for given rows. Odd: only the streaming one crops
before it resizes (random_resized_crop on the full-size image); it decodes a large JPEG no larger than the
crop needs, and its training resize is torch's antialiased bilinear one, which is faster than Pillow's and
within one grey level of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tesela.core.errors import DataError, ImageError
from tesela.data.augment.augment import Augment
from tesela.data.scan import Unreadable, attempt, in_threads
from tesela.data.source import Items, decode_limits, fetch_rows
from tesela.imaging.decode import decode, upright_size
from tesela.imaging.preprocess import fit_image
from tesela.imaging.spec import ImageSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A set is kept in memory where its pixels at the model's size take no more than this.
CACHE_BYTES = 2 << 30
_LOOKED_AT = 16
#: Bytes that a reader keeps for decoding into; larger images get memory of their own.
_LARGEST_SCRATCH = 256 << 20
_T = TypeVar("_T")
Box = tuple[float, float, float, float]
Encoded: TypeAlias = "bytes | NDArray[np.uint8]"


class Reader(Protocol):
    """Gives pixels by row."""

    def read(self, rows: NDArray[np.int64], seed: int, epoch: int, /) -> Pixels:
        """The rows' images at the model's size."""
        ...


class Pixels(NamedTuple):
    """Images of a batch.

    Attributes:
        images: (B, C, h, w), uint8.
        boxes: (B, 4), the part (top, left, height, width) of each image that was cut out; None for all.
    """

    images: Tensor
    boxes: NDArray[np.float64] | None = None


class RamReader:
    """All images in one tensor (N, C, h, w), uint8, on any device."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def read(self, rows: NDArray[np.int64], _seed: int, _epoch: int, /) -> Pixels:
        """The rows' images, copied."""
        return Pixels(self.images.index_select(0, torch.from_numpy(rows).to(self.images.device)))


class StreamReader:
    """Images decoded when asked for.

    Args:
        items: where from.
        spec: the model's view.
        augment: with random_resized_crop, cropped here; else None.
    """

    def __init__(self, items: Items, spec: ImageSpec, augment: Augment | None) -> None:
        self.items, self.spec, self.augment = items, spec, augment
        self._scratch = np.empty(0, np.uint8)
        self._limits = decode_limits(items)

    def read(self, rows: NDArray[np.int64], seed: int, epoch: int, /) -> Pixels:
        """The rows' images, decoded one after another."""
        fetch_rows(self.items, rows)
        if self.augment is None:
            views = [
                self._guarded(row, lambda row: planes(fitted(self.items, row, self.spec)))
                for row in rows.tolist()
            ]
            return Pixels(torch.stack(views))
        sources = [self._guarded(row, self._source) for row in rows.tolist()]
        sizes = np.array([size for _, size in sources], np.int64)
        boxes = self.augment.boxes(sizes, seed=seed, epoch=epoch, indices=rows)
        images = zip(rows.tolist(), sources, boxes.tolist(), strict=True)
        views = [self._guarded(row, partial(self._crop, *source, box)) for row, source, box in images]
        return Pixels(torch.stack(views), boxes)

    def _guarded(self, row: int, work: Callable[[int], _T]) -> _T:
        """The work's result; an image that fails now was readable when the loader was made."""
        try:
            return work(row)
        except ImageError as error:
            raise DataError(
                f"{self.items.name(row)} became unreadable: {error.message}",
                hint="'tesela data check DATA' lists what is unreadable",
            ) from error

    def _source(self, row: int) -> tuple[Encoded, tuple[int, int]]:
        """The encoded file, or pixels if there is none, and the image's (height, width)."""
        data = self.items.raw(row)
        if data is not None:
            return data, upright_size(data, limits=self._limits)
        image = self.items.read(row, channels=self.spec.channels)
        return image, (image.shape[0], image.shape[1])

    def _crop(self, source: Encoded, size: tuple[int, int], box: Box, _row: int) -> Tensor:
        """A part of one image at the model's size, decoded at the smallest scale that serves it."""
        if isinstance(source, np.ndarray):
            return resized_part(source, box, self.spec.size)
        top, left, height, width = box
        least = math.ceil(size[0] * self.spec.height / height), math.ceil(size[1] * self.spec.width / width)
        if self._scratch.size < 3 * size[0] * size[1] <= _LARGEST_SCRATCH:
            self._scratch = np.empty(3 * size[0] * size[1], np.uint8)
        image = decode(
            source,
            channels=self.spec.channels,
            limits=self._limits,
            size_hint=least,
            scratch=self._scratch,
        )
        down, across = image.shape[0] / size[0], image.shape[1] / size[1]
        return resized_part(image, (top * down, left * across, height * down, width * across), self.spec.size)


def planes(image: NDArray[np.uint8]) -> Tensor:
    """(H, W, C) as (C, H, W)."""
    return torch.from_numpy(image).permute(2, 0, 1)


def resized_part(image: NDArray[np.uint8], box: Box, size: tuple[int, int]) -> Tensor:
    """A part (top, left, height, width; rounded to whole pixels) of an image (H, W, C) at ``size``.

    (C, h, w), uint8.
    """
    top, left = round(box[0]), round(box[1])
    part = image[top : max(round(box[0] + box[2]), top + 1), left : max(round(box[1] + box[3]), left + 1)]
    return F.interpolate(planes(part)[None], size, mode="bilinear", antialias=True)[0]


def fitted(items: Items, row: int, spec: ImageSpec) -> NDArray[np.uint8]:
    """One image as evaluation, server and board see it: (h, w, C)."""
    return fit_image(items.read(row, channels=spec.channels), spec)


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


def fits_in_ram(items: Items, spec: ImageSpec) -> bool:
    """Whether cache "auto" keeps all images at the model's size."""
    return len(items) * spec.height * spec.width * spec.channels <= CACHE_BYTES


def larger_than_view(items: Items, spec: ImageSpec) -> bool:
    """Whether images have more detail than the model's view, so that a crop of them should see it.

    Some of them are looked at, evenly spread.
    """
    return any(_is_larger(items, row, spec) for row in range(0, len(items), max(1, len(items) // _LOOKED_AT)))


def _is_larger(items: Items, row: int, spec: ImageSpec) -> bool:
    try:
        height, width = items.read(row).shape[:2]
    except ImageError:
        return False
    return bool(height > spec.height or width > spec.width)
