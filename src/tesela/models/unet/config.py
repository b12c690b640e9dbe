"""Sizes of the convolutional baselines, without torch: the contracting half of a U-Net.

Architecture of arXiv 1505.04597.

With the decoder ``unet`` they are segmenters: the expanding half, with a skip connection on each scale.
``unet_separable`` has depthwise-separable convolutions throughout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from tesela.core.errors import ConfigError
from tesela.core.registry import registered_config
from tesela.layers.convolution.unit_plan import unit_parameters, unit_products
from tesela.layers.grid import Grid
from tesela.models.pyramid import PyramidConfig


@registered_config(
    "model",
    "unet",
    target="tesela.models.unet.network:Unet",
    summary="Convolutional baseline for segmentation: U-Net, whole or depthwise-separable",
)
@dataclass(frozen=True, kw_only=True, slots=True)
class UnetConfig(PyramidConfig):
    """Scales of two convolutions each, with max-pooling between them."""

    image_size: tuple[int, int] = (256, 256)
    """Height and width in pixels that the model is made for; other sizes work at run time."""
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Channels of each scale, from fine to coarse."""
    separable: bool = False
    """Depthwise-separable convolutions, all but the first."""

    def __post_init__(self) -> None:
        """Check what would fail later with a worse message."""
        PyramidConfig.__post_init__(self)
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise ConfigError(
                f"widths {self.widths} are no pyramid",
                hint="give two or more positive numbers, such as 32,64",
            )
        self.grids()

    def grids(self, image_size: tuple[int, int] | None = None) -> list[Grid]:
        """Rows and columns of each scale.

        Raises:
            ConfigError: the image is too small for the scales.
        """
        size = image_size or self.image_size
        found = [(size[0] >> scale, size[1] >> scale) for scale in range(len(self.widths))]
        if min(found[-1]) < 1:
            least = 1 << len(self.widths) - 1
            raise ConfigError(
                f"an image of {size[0]}x{size[1]} pixels has no pixel left in scale {len(self.widths)}",
                hint=f"use an image size of {least} or more, or fewer widths",
            )
        return found

    def units(self) -> list[list[tuple[int, int, bool]]]:
        """Channels before and after each convolution of each scale, and whether it is separable."""
        found, before = [], self.channels
        for scale, after in enumerate(self.widths):
            found.append([(before, after, self.separable and scale > 0), (after, after, self.separable)])
            before = after
        return found

    def backbone_parameters(self) -> int:
        """Number of trainable values of the encoder."""
        return sum(unit_parameters(a, b, separable=thin) for scale in self.units() for a, b, thin in scale)

    def backbone_products(self, image_size: tuple[int, int]) -> int:
        """Multiply-adds of one image's way through the encoder."""
        return sum(
            rows * columns * unit_products(a, b, separable=thin)
            for (rows, columns), scale in zip(self.grids(image_size), self.units(), strict=True)
            for a, b, thin in scale
        )

    def tiny(self) -> Self:
        """Three scales of a few channels."""
        return replace(self, image_size=(20, 12), widths=(4, 6, 8))

    def summary(self) -> str:
        """Widths and grid."""
        rows, columns = self.grid()
        kind = "separable convolutions" if self.separable else "convolutions"
        return (
            f"{kind}, widths {'-'.join(map(str, self.widths))}, {rows}x{columns} cells at "
            f"{self.image_size[0]} px"
        )


Row = dict[str, Any]

MODELS: dict[str, Row] = {
    "unet": {},
    "unet_separable": {"separable": True},
    "unet_small": {"widths": (16, 32, 64, 128, 256)},
}
#: The decoder that each of them has as a segmenter.
DECODERS: dict[str, Row] = {name: {"name": "unet"} for name in MODELS}
CLASSES = dict.fromkeys(MODELS, 3)
