"""ImageSpec: size, channels, normalisation and fit of the images a model expects.

It is stored in every bundle, and training's evaluation, export, server and board all read it: one
preprocessing. Mean and standard deviation are in units of the 0..1 scale. Odd: models of timm or transformers
keep those libraries' arithmetic: images are resized to whole pixels (``resized``), then the middle is cut out
at a whole pixel. Our own cuts at fractions of a pixel, in one step with the resize, and reads ``crop_ratio``
for ``crop`` alone: the short side is brought to size / crop_ratio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from tesela.core.errors import ConfigError

Resize = Literal["squash", "crop", "pad", "none"]
Interpolation = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
Arithmetic = Literal["exact", "timm", "transformers"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSpec:
    """The model's view of an image."""

    height: int
    """Height in pixels."""
    width: int
    """Width in pixels."""
    channels: int
    """1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha); arrays may have any other number."""
    mean: tuple[float, ...]
    """Mean per channel, subtracted after scaling to 0..1."""
    std: tuple[float, ...]
    """Deviation per channel, divided by after the mean was subtracted."""
    resize: Resize = "squash"
    """squash (ignore the aspect), crop (the middle), pad (black bars) or none (the image must have the size
    already)."""
    crop_ratio: float = 1.0
    """With crop: the share of the resized image that the crop keeps per side."""
    interpolation: Interpolation = "bicubic"
    """Filter of the resize, one of Pillow's; antialiased when shrinking."""
    arithmetic: Arithmetic = "exact"
    """exact (fractions of a pixel), or the whole pixels that timm or transformers would take."""
    resized: tuple[int, ...] = ()
    """With timm's or transformers' arithmetic, what images are resized to before the middle is cut out: the
    short side, or (height, width), which crop covers, pad stays within, and squash takes as they are."""

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ConfigError(
                f"an image of {self.height} x {self.width} has no pixels",
                hint="give a height and a width of 1 or more",
            )
        if self.channels < 1:
            raise ConfigError(
                f"images have 1 channel or more, not {self.channels}", hint="use 1 for grey, 3 for colour"
            )
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ConfigError(
                f"mean and std need {self.channels} values each", hint="give one value per channel"
            )
        if min(self.std) <= 0:
            raise ConfigError("std must be above 0", hint="use 1.0 where nothing is to be scaled")
        if not 0 < self.crop_ratio <= 1:
            raise ConfigError(
                f"crop_ratio must be above 0 and at most 1, not {self.crop_ratio}",
                hint="0.875 is usual, 1.0 keeps all",
            )
        self._check_resized()

    def _check_resized(self) -> None:
        if (self.arithmetic == "exact") != (not self.resized) or (self.resized and self.resize == "none"):
            raise ConfigError(
                f"resized={self.resized} does not go with arithmetic={self.arithmetic}, resize={self.resize}",
                hint="timm's and transformers' arithmetic need it with squash, crop or pad; exact has none",
            )
        if len(self.resized) > 2 or (len(self.resized) == 1 and self.resize != "crop"):
            raise ConfigError(
                f"resized={self.resized} is no size for resize={self.resize}",
                hint="give (height, width); with crop the short side alone will do",
            )
        if self.resized and self.resize != "pad":
            sides = self.resized * 2 if len(self.resized) == 1 else self.resized
            if sides[0] < self.height or sides[1] < self.width:
                raise ConfigError(
                    f"images resized to {self.resized} are smaller than {self.height} x {self.width}",
                    hint="give a size of at least the view's",
                )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    def at(self, size: tuple[int, int]) -> ImageSpec:
        """The same preprocessing for a view of another (height, width)."""
        if not self.resized or size == self.size:
            return replace(self, height=size[0], width=size[1])
        if self.arithmetic == "timm":
            resized = timm_sides(size, self.crop_ratio, resize=self.resize)
        else:
            scales = [new / old for new, old in zip(size, self.size, strict=True)]
            scales = [max(scales)] if len(self.resized) == 1 else scales
            resized = tuple(round(side * scale) for side, scale in zip(self.resized, scales, strict=True))
            resized = (max(*resized, *size),) if len(resized) == 1 else resized
        return replace(self, height=size[0], width=size[1], resized=resized)

    def exact(self, resize: Resize) -> ImageSpec:
        """The same view and normalisation with our own arithmetic and no border cut off."""
        return replace(self, resize=resize, crop_ratio=1.0, arithmetic="exact", resized=())


def timm_sides(size: tuple[int, int], ratio: float, *, resize: Resize) -> tuple[int, ...]:
    """What timm resizes images to for a view of ``size``: the short side for a square crop, else both sides.

    ``transforms_imagenet_eval`` of timm/data/transforms_factory.py.
    """
    sides = tuple(math.floor(side / ratio) for side in size)
    return sides[:1] if resize == "crop" and sides[0] == sides[1] else sides
