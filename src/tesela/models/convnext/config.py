"""Sizes of ConvNeXt, without torch.

Depths and widths of section 3 of arXiv 2201.03545 and table 9 of arXiv 2301.00808, whose networks
(``convnextv2_*``) have response norms in place of layer scale. ``convnextv2_atto_small`` is for images of 28
to 64 px: its stem keeps every pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from tesela.core.errors import ConfigError
from tesela.core.registry import registered_config
from tesela.layers.convolution.next_plan import KERNEL, RATIO
from tesela.layers.grid import Grid
from tesela.models.pyramid import PyramidConfig


@registered_config(
    "model",
    "convnext",
    target="tesela.models.convnext.network:ConvNext",
    summary="ConvNeXt: depthwise 7x7 convolutions in blocks like a transformer's",
)
@dataclass(frozen=True, kw_only=True, slots=True)
class ConvNextConfig(PyramidConfig):
    """A ConvNeXt; one value for each stage in both tuples."""

    widths: tuple[int, ...] = (96, 192, 384, 768)
    """Channels (D) of each stage."""
    depths: tuple[int, ...] = (3, 3, 9, 3)
    """Blocks of each stage; every stage but the first halves the feature map."""
    stem: int = 4
    """Side of the first convolution's patches in pixels."""
    response_norm: bool = False
    """Global response norm in the MLP (arXiv 2301.00808, section 3)."""
    layer_scale: float = 1e-6
    """First value of the factors at the end of each block; 0 for none."""
    norm_eps: float = 1e-6
    """Epsilon of the LayerNorms but the last."""
    pooled_norm_eps: float = 1e-6
    """Epsilon of the LayerNorm between mean and head."""
    drop_path: float = 0.0
    """Stochastic depth of the last block; earlier blocks less, linearly from 0."""

    def __post_init__(self) -> None:
        """Check what would fail later with a worse message."""
        PyramidConfig.__post_init__(self)
        if len(self.widths) != len(self.depths) or min((*self.widths, *self.depths), default=0) < 1:
            raise ConfigError(
                f"widths {self.widths} and depths {self.depths} need one positive value for each stage",
                hint="give as many widths as there are depths",
            )
        if self.stem < 1:
            raise ConfigError(f"the stem must be 1 or more pixels wide, not {self.stem}", hint="4 is usual")
        if self.layer_scale < 0:
            raise ConfigError(f"layer_scale must be 0 or more, not {self.layer_scale}", hint="1e-6 is usual")
        if not 0.0 <= self.drop_path < 1.0:
            raise ConfigError(
                f"drop_path must be in [0, 1), not {self.drop_path}", hint="0.1 is a usual value"
            )
        self.grids()

    def grids(self, image_size: tuple[int, int] | None = None) -> list[Grid]:
        """Rows and columns of each stage's map; pixels that fill no patch at the border are left out.

        Raises:
            ConfigError: the image is too small for the last stage.
        """
        size = image_size or self.image_size
        step = [self.stem << stage for stage in range(len(self.depths))]
        if min(size) < step[-1]:
            raise ConfigError(
                f"an image of {size[0]}x{size[1]} pixels is smaller than a cell of the last stage",
                hint=f"use an image size of {step[-1]} or more, or a smaller stem",
            )
        return [(size[0] // side, size[1] // side) for side in step]

    def backbone_parameters(self) -> int:
        """Number of trainable values before the norm of the head."""
        first = self.widths[0]
        total = (self.stem**2 * self.channels + 1) * first + 2 * first
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            hidden = RATIO * width
            block = (KERNEL**2 + 1) * width + 2 * width + (width + 1) * hidden + (hidden + 1) * width
            block += (2 * hidden if self.response_norm else 0) + (width if self.layer_scale else 0)
            total += depth * block
            if stage:
                before = self.widths[stage - 1]
                total += 2 * before + (4 * before + 1) * width
        return total

    def parameter_count(self, num_classes: int) -> int:
        """Number of trainable values of a classifier, its norm before the head included."""
        return self.backbone_parameters() + 2 * self.width + (self.width + 1) * num_classes

    def backbone_products(self, image_size: tuple[int, int]) -> int:
        """Multiply-adds of one image's way to the last map."""
        total = 0
        for stage, (rows, columns) in enumerate(self.grids(image_size)):
            width, cells = self.widths[stage], rows * columns
            before = 4 * self.widths[stage - 1] if stage else self.stem**2 * self.channels
            total += cells * width * (before + self.depths[stage] * (KERNEL**2 + 2 * RATIO * width))
        return total

    def tiny(self) -> Self:
        """Two stages of a few channels."""
        return replace(self, image_size=(4 * self.stem, 6 * self.stem), widths=(8, 12), depths=(1, 2))

    def summary(self) -> str:
        """Blocks, widths and grid."""
        rows, columns = self.grid()
        blocks, widths = ("-".join(map(str, values)) for values in (self.depths, self.widths))
        return f"{blocks} blocks, widths {widths}, {rows}x{columns} cells at {self.image_size[0]} px"


Row = dict[str, Any]

_SECOND: Row = {"response_norm": True, "layer_scale": 0.0}


def _widths(first: int) -> tuple[int, ...]:
    return tuple(first << stage for stage in range(4))


_DEEP = (3, 3, 27, 3)
MODELS: dict[str, Row] = {
    "convnext_tiny": {},
    "convnext_small": {"depths": _DEEP},
    "convnext_base": {"depths": _DEEP, "widths": _widths(128)},
    "convnext_large": {"depths": _DEEP, "widths": _widths(192)},
    "convnext_xlarge": {"depths": _DEEP, "widths": _widths(256)},
    "convnextv2_atto": {**_SECOND, "depths": (2, 2, 6, 2), "widths": _widths(40)},
    "convnextv2_femto": {**_SECOND, "depths": (2, 2, 6, 2), "widths": _widths(48)},
    "convnextv2_pico": {**_SECOND, "depths": (2, 2, 6, 2), "widths": _widths(64)},
    "convnextv2_nano": {**_SECOND, "depths": (2, 2, 8, 2), "widths": _widths(80)},
    "convnextv2_tiny": {**_SECOND},
    "convnextv2_base": {**_SECOND, "depths": _DEEP, "widths": _widths(128)},
    "convnextv2_large": {**_SECOND, "depths": _DEEP, "widths": _widths(192)},
    "convnextv2_huge": {**_SECOND, "depths": _DEEP, "widths": _widths(352)},
    "convnextv2_atto_small": {
        **_SECOND,
        "depths": (2, 2, 6, 2),
        "widths": _widths(40),
        "stem": 1,
        "image_size": (32, 32),
    },
}
