"""Sizes of SegFormer's encoder, Mix Transformer B0 to B5, without torch.

Values of table 6 of arXiv 2105.15203.

As a segmenter it goes with the all-MLP decoder, whose width belongs to the size too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from tesela.core.errors import ConfigError
from tesela.core.registry import registered_config
from tesela.layers.grid import Grid, conv_grid
from tesela.models.pyramid import PyramidConfig


@registered_config(
    "model",
    "segformer",
    target="tesela.models.segformer.network:Segformer",
    summary="SegFormer's encoder: four scales, reduced attention, no positions",
)
@dataclass(frozen=True, kw_only=True, slots=True)
class SegformerConfig(PyramidConfig):
    """A Mix Transformer; one value for each stage in every tuple."""

    image_size: tuple[int, int] = (512, 512)
    """Height and width in pixels that the model is made for; other sizes work at run time."""
    widths: tuple[int, ...] = (32, 64, 160, 256)
    """Width of a token (D)."""
    depths: tuple[int, ...] = (2, 2, 2, 2)
    """Number of blocks."""
    heads: tuple[int, ...] = (1, 2, 5, 8)
    """Attention heads of each block."""
    reductions: tuple[int, ...] = (8, 4, 2, 1)
    """Side, in tokens, of the cells that keys and values are computed from (R)."""
    mlp_ratios: tuple[float, ...] = (4.0, 4.0, 4.0, 4.0)
    """Hidden width of the Mix-FFN as a multiple of the width."""
    kernels: tuple[int, ...] = (7, 3, 3, 3)
    """Side of the patch embedding's kernel."""
    strides: tuple[int, ...] = (4, 2, 2, 2)
    """Step of the patch embedding."""
    norm_eps: float = 1e-5
    """Epsilon of the LayerNorms."""
    dropout: float = 0.0
    """After attention and dense layers."""
    attention_dropout: float = 0.0
    """On the attention weights."""
    drop_path: float = 0.0
    """Stochastic depth of the last block; earlier blocks less, linearly from 0."""

    def __post_init__(self) -> None:
        """Check what would fail later with a worse message."""
        PyramidConfig.__post_init__(self)
        for name in ("widths", "heads", "reductions", "mlp_ratios", "kernels", "strides"):
            values = getattr(self, name)
            if len(values) != len(self.depths) or min(values, default=0) <= 0:
                raise ConfigError(
                    f"{name} needs {len(self.depths)} positive values, one for each stage of depths",
                    hint="give as many values as there are depths",
                )
        for width, heads in zip(self.widths, self.heads, strict=True):
            if width % heads:
                raise ConfigError(
                    f"width {width} is not divisible by {heads} heads", hint="change widths or heads"
                )
        for name in ("dropout", "attention_dropout", "drop_path"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(
                    f"{name} must be in [0, 1), not {getattr(self, name)}", hint="0.1 is a usual value"
                )
        self.grids()

    def grids(self, image_size: tuple[int, int] | None = None) -> list[Grid]:
        """Rows and columns of tokens of each stage.

        Raises:
            ConfigError: the image is too small for the cells of a stage.
        """
        size = image_size or self.image_size
        steps = list(zip(self.kernels, self.strides, strict=True))
        grids = [conv_grid(size, steps[: stage + 1]) for stage in range(len(steps))]
        for stage, (grid, side) in enumerate(zip(grids, self.reductions, strict=True)):
            if min(grid) < side:
                raise ConfigError(
                    f"an image of {size[0]}x{size[1]} pixels has {grid[0]}x{grid[1]} tokens in stage "
                    f"{stage + 1}, fewer than a cell of {side}x{side}",
                    hint=f"use an image size of {side * self.stride(stage)} or more, or smaller reductions",
                )
        return grids

    def stride(self, stage: int) -> int:
        """Pixels from token to token in a stage."""
        step = 1
        for stride in self.strides[: stage + 1]:
            step *= stride
        return step

    def hidden(self, stage: int) -> int:
        """Hidden width of the Mix-FFN in a stage."""
        return int(self.widths[stage] * self.mlp_ratios[stage])

    def backbone_parameters(self) -> int:
        """Number of trainable values of the encoder."""
        total, before = 0, self.channels
        for stage, width in enumerate(self.widths):
            norm, hidden, side = 2 * width, self.hidden(stage), self.reductions[stage]
            attention = 4 * (width + 1) * width
            attention += ((side * side * width + 1) * width + norm) if side > 1 else 0
            mix = (width + 1) * hidden + (9 + 1) * hidden + (hidden + 1) * width
            patch = (self.kernels[stage] ** 2 * before + 1) * width + norm
            total += patch + self.depths[stage] * (2 * norm + attention + mix) + norm
            before = width
        return total

    def backbone_products(self, image_size: tuple[int, int]) -> int:
        """Multiply-adds of one image's way through the encoder."""
        total, before = 0, self.channels
        for stage, (rows, columns) in enumerate(self.grids(image_size)):
            width, hidden, side = self.widths[stage], self.hidden(stage), self.reductions[stage]
            count, cells = rows * columns, (rows // side) * (columns // side)
            reduced = cells * side * side * width * width if side > 1 else 0
            attention = 2 * count * width**2 + 2 * cells * width**2 + 2 * count * cells * width + reduced
            mix = count * hidden * (2 * width + 9)
            total += count * self.kernels[stage] ** 2 * before * width
            total += self.depths[stage] * (attention + mix)
            before = width
        return total

    def tiny(self) -> Self:
        """One block of a few channels in each stage."""
        return replace(
            self,
            image_size=(64, 96),
            widths=(8, 8, 12, 16),
            depths=(1, 1, 2, 1),
            heads=(1, 2, 3, 4),
            mlp_ratios=(2.0,) * 4,
        )

    def summary(self) -> str:
        """Blocks, widths and grid."""
        rows, columns = self.grid()
        blocks = "-".join(map(str, self.depths))
        widths = "-".join(map(str, self.widths))
        return f"{blocks} blocks, widths {widths}, {rows}x{columns} tokens at {self.image_size[0]} px"


Row = dict[str, Any]

_WIDE: Row = {"widths": (64, 128, 320, 512), "drop_path": 0.1}

MODELS: dict[str, Row] = {
    "segformer_b0": {"drop_path": 0.1},
    "segformer_b1": {**_WIDE},
    "segformer_b2": {**_WIDE, "depths": (3, 4, 6, 3)},
    "segformer_b3": {**_WIDE, "depths": (3, 4, 18, 3)},
    "segformer_b4": {**_WIDE, "depths": (3, 8, 27, 3)},
    "segformer_b5": {**_WIDE, "depths": (3, 6, 40, 3)},
}
#: The decoder that each size has as a segmenter.
DECODERS: dict[str, Row] = {
    name: {"name": "mlp", "width": 256 if name[-1] in "01" else 768} for name in MODELS
}
#: ADE20K's classes.
CLASSES = dict.fromkeys(MODELS, 150)
