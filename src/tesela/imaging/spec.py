"""ImageSpec: size, channels, normalisation and fit of the images a model expects.

It is stored in every bundle, and training's evaluation, export, server and board all read it: one
preprocessing. Mean and standard deviation are in units of the 0..1 scale. Odd: ``crop_ratio`` means something
for ``crop`` only, where the short side is resized to size / crop_ratio before the middle is cut out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tesela.core.errors import ConfigError

Resize = Literal["squash", "crop", "pad", "none"]
Interpolation = Literal["bilinear", "bicubic", "nearest"]


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
    """Filter of the resize; antialiased when shrinking."""

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

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width
