"""Sizes of TinyViT, without torch.

Values of table 1 of arXiv 2207.10666 and of its published code. ``tiny_vit_2m_small`` is for images of 28 to
64 px: its stem keeps every pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from tesela.core.errors import ConfigError
from tesela.core.registry import registered_config
from tesela.layers.convolution.residual_plan import halved
from tesela.layers.grid import Grid
from tesela.layers.hierarchical.swin_plan import WholeWindows
from tesela.models.pyramid import PyramidConfig

#: Weights of a depthwise window, and width in the middle of an inverted bottleneck as a multiple of its ends.
WINDOW, EXPAND = 9, 4
#: Strides of the stem's two convolutions, by what the stem divides a side by.
STEMS: dict[int, tuple[int, int]] = {1: (1, 1), 2: (2, 1), 4: (2, 2)}


@registered_config(
    "model",
    "tiny_vit",
    target="tesela.models.tiny_vit.network:TinyVit",
    summary="TinyViT: convolutions, then attention within windows; small and fast",
)
@dataclass(frozen=True, kw_only=True, slots=True)
class TinyVitConfig(PyramidConfig):
    """A TinyViT; its first stage is convolutional, the others attend."""

    widths: tuple[int, ...] = (64, 128, 160, 320)
    """Channels (D) of each stage."""
    depths: tuple[int, ...] = (2, 2, 6, 2)
    """Blocks of each stage; every stage but the first halves the feature map."""
    heads: tuple[int, ...] = (4, 5, 10)
    """Attention heads of each stage but the first."""
    windows: tuple[int, ...] = (7, 14, 7)
    """Side of a window in tokens, of each stage but the first; maps are padded to whole windows."""
    stem: int = 4
    """What the two convolutions of the stem divide a side by: 1, 2 or 4."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP as a multiple of the width."""
    dropout: float = 0.0
    """Inside the MLPs."""
    drop_path: float = 0.0
    """Stochastic depth of the last block; earlier blocks less, linearly from 0."""

    def __post_init__(self) -> None:
        """Check what would fail later with a worse message."""
        PyramidConfig.__post_init__(self)
        stages = len(self.depths)
        for name, count in (("widths", stages), ("depths", stages), ("heads", stages - 1)):
            _check_values(name, getattr(self, name), count)
        _check_values("windows", self.windows, stages - 1)
        for width, heads in zip(self.widths[1:], self.heads, strict=True):
            if width % heads:
                raise ConfigError(
                    f"width {width} is not divisible by {heads} heads", hint="change widths or heads"
                )
        if self.stem not in STEMS or self.widths[0] % 2:
            raise ConfigError(
                f"a stem of {self.stem} to {self.widths[0]} channels cannot be",
                hint="stem is 1, 2 or 4, the first width an even number",
            )
        if self.mlp_ratio <= 0:
            raise ConfigError(f"mlp_ratio must be positive, not {self.mlp_ratio}", hint="4 is usual")
        for name in ("dropout", "drop_path"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(
                    f"{name} must be in [0, 1), not {getattr(self, name)}", hint="0.1 is a usual value"
                )

    def grids(self, image_size: tuple[int, int] | None = None) -> list[Grid]:
        """Rows and columns of each stage's map; any image fits."""
        size = image_size or self.image_size
        begin = self.stem.bit_length() - 1
        return [halved(size, begin + stage) for stage in range(len(self.depths))]

    def hidden(self, stage: int) -> int:
        """Hidden width of the MLP in a stage."""
        return int(self.widths[stage] * self.mlp_ratio)

    def backbone_parameters(self) -> int:
        """Number of trainable values before the norm of the head."""
        first, wide = self.widths[0], EXPAND * self.widths[0]
        total = WINDOW * (self.channels + first) * first // 2 + first + 2 * first
        total += self.depths[0] * (2 * first * wide + WINDOW * wide + 4 * wide + 2 * first)
        for stage in range(1, len(self.widths)):
            before, width, hidden = self.widths[stage - 1], self.widths[stage], self.hidden(stage)
            total += before * width + WINDOW * width + width * width + 6 * width
            table = self.heads[stage - 1] * self.windows[stage - 1] ** 2
            attention = 2 * width + 3 * width * (width + 1) + (width + 1) * width + table
            mlp = 2 * width + (width + 1) * hidden + (hidden + 1) * width
            total += self.depths[stage] * (attention + (WINDOW + 2) * width + mlp)
        return total

    def parameter_count(self, num_classes: int) -> int:
        """Number of trainable values of a classifier, its norm before the head included."""
        return self.backbone_parameters() + 2 * self.width + (self.width + 1) * num_classes

    def backbone_products(self, image_size: tuple[int, int]) -> int:
        """Multiply-adds of one image's way to the last map, padding included."""
        grids = self.grids(image_size)
        first, cells = self.widths[0], [rows * columns for rows, columns in grids]
        stride = STEMS[self.stem][0]
        entered = -(-image_size[0] // stride) * -(-image_size[1] // stride)
        total = entered * WINDOW * self.channels * (first // 2) + cells[0] * WINDOW * (first // 2) * first
        total += self.depths[0] * cells[0] * EXPAND * first * (2 * first + WINDOW)
        for stage in range(1, len(self.widths)):
            before, width = self.widths[stage - 1], self.widths[stage]
            total += cells[stage - 1] * before * width + cells[stage] * width * (WINDOW + width)
            window = self.windows[stage - 1]
            rows, columns = WholeWindows(window).padded(grids[stage])
            attention = rows * columns * width * (4 * width + 2 * window**2)
            rest = cells[stage] * width * (WINDOW + 2 * self.hidden(stage))
            total += self.depths[stage] * (attention + rest)
        return total

    def tiny(self) -> Self:
        """Three stages of a few channels; windows fill the last map, and not the one before."""
        return replace(
            self,
            image_size=(5 * self.stem, 7 * self.stem),
            widths=(4, 8, 12),
            depths=(1, 1, 2),
            heads=(2, 3),
            windows=(2, 2),
        )

    def summary(self) -> str:
        """Blocks, widths, windows and grid."""
        rows, columns = self.grid()
        blocks, widths = ("-".join(map(str, values)) for values in (self.depths, self.widths))
        sides = "-".join(map(str, self.windows))
        return (
            f"{blocks} blocks, widths {widths}, windows of {sides}, {rows}x{columns} cells at "
            f"{self.image_size[0]} px"
        )


def _check_values(name: str, values: tuple[int, ...], count: int) -> None:
    if count < 1 or len(values) != count or min(values) < 1:
        raise ConfigError(
            f"{name} needs {count} positive values, not {values}",
            hint="widths and depths have one for each stage, of which there are two or more; heads and "
            "windows one for each but the first",
        )


Row = dict[str, Any]

_11M: Row = {"widths": (64, 128, 256, 448), "heads": (4, 8, 14)}
_21M: Row = {"widths": (96, 192, 384, 576), "heads": (6, 12, 18)}

MODELS: dict[str, Row] = {
    "tiny_vit_5m": {},
    "tiny_vit_11m": {**_11M},
    "tiny_vit_21m": {**_21M},
    "tiny_vit_21m_384": {**_21M, "image_size": (384, 384), "windows": (12, 24, 12)},
    "tiny_vit_21m_512": {**_21M, "image_size": (512, 512), "windows": (16, 32, 16)},
    "tiny_vit_2m_small": {
        "widths": (32, 64, 128, 192),
        "heads": (2, 4, 6),
        "windows": (8, 8, 4),
        "stem": 1,
        "image_size": (32, 32),
    },
}
