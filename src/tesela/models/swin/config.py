"""Sizes of Swin, without torch.

Values of section 3.3 of arXiv 2103.14030. ``swin_nano_small`` is for images of 28 to 64 px: its patches have
2 pixels a side, its windows 4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from tesela.core.errors import ConfigError
from tesela.core.registry import registered_config
from tesela.layers.grid import Grid
from tesela.layers.hierarchical.swin_plan import EDGES, MERGED, Edges, SwinWindows, merged_grid
from tesela.models.pyramid import PyramidConfig


@registered_config(
    "model",
    "swin",
    target="tesela.models.swin.network:Swin",
    summary="Swin: attention within shifted windows, patches merged from stage to stage",
)
@dataclass(frozen=True, kw_only=True, slots=True)
class SwinConfig(PyramidConfig):
    """A Swin; one value for each stage in every tuple."""

    widths: tuple[int, ...] = (96, 192, 384, 768)
    """Width of a token (D)."""
    depths: tuple[int, ...] = (2, 2, 6, 2)
    """Number of blocks; every second one's windows are shifted by half a side."""
    heads: tuple[int, ...] = (3, 6, 12, 24)
    """Attention heads of each block."""
    windows: tuple[int, ...] = (7, 7, 7, 7)
    """Side of a window in tokens; cut to the map where that is smaller."""
    patch: int = 4
    """Side of a patch in pixels."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP as a multiple of the width."""
    qkv_bias: bool = True
    """Whether the query, key and value projections have a bias."""
    edges: Edges = "transformers"
    """Whose rule holds on maps that windows do not fill: transformers pads them, then shifts both axes or
    neither; timm shifts each axis, then pads."""
    norm_eps: float = 1e-5
    """Epsilon of the LayerNorms of the blocks, and of the last."""
    dropout: float = 0.0
    """After the patches, attention and dense layers."""
    attention_dropout: float = 0.0
    """On the attention weights."""
    drop_path: float = 0.0
    """Stochastic depth of the last block; earlier blocks less, linearly from 0."""

    def __post_init__(self) -> None:
        """Check what would fail later with a worse message."""
        PyramidConfig.__post_init__(self)
        for name in ("widths", "heads", "windows", "depths"):
            values = getattr(self, name)
            if len(values) != len(self.depths) or min(values, default=0) < 1:
                raise ConfigError(
                    f"{name} needs {len(self.depths)} positive values, one for each stage of depths",
                    hint="give as many values as there are depths",
                )
        for width, heads in zip(self.widths, self.heads, strict=True):
            if width % heads:
                raise ConfigError(
                    f"width {width} is not divisible by {heads} heads", hint="change widths or heads"
                )
        if self.patch < 1:
            raise ConfigError(f"the patch must be 1 or more pixels wide, not {self.patch}", hint="4 is usual")
        if self.mlp_ratio <= 0:
            raise ConfigError(f"mlp_ratio must be positive, not {self.mlp_ratio}", hint="4 is usual")
        if self.edges not in EDGES:
            raise ConfigError(f"edges cannot be {self.edges!r}", hint=f"choose one of: {', '.join(EDGES)}")
        for name in ("dropout", "attention_dropout", "drop_path"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(
                    f"{name} must be in [0, 1), not {getattr(self, name)}", hint="0.1 is a usual value"
                )

    def grids(self, image_size: tuple[int, int] | None = None) -> list[Grid]:
        """Rows and columns of each stage's tokens; images and odd maps are padded to whole cells."""
        height, width = image_size or self.image_size
        found = [(-(-height // self.patch), -(-width // self.patch))]
        for _ in self.depths[1:]:
            found.append(merged_grid(found[-1]))
        return found

    def plan(self, stage: int, index: int) -> SwinWindows:
        """Windows of a stage's block ``index``."""
        return SwinWindows(self.windows[stage], shifted=index % 2 == 1, edges=self.edges)

    def hidden(self, stage: int) -> int:
        """Hidden width of the MLP in a stage."""
        return int(self.widths[stage] * self.mlp_ratio)

    def backbone_parameters(self) -> int:
        """Number of trainable values of the network, its last norm included."""
        first = self.widths[0]
        total = (self.patch**2 * self.channels + 1) * first + 2 * first
        for stage, width in enumerate(self.widths):
            hidden, table = self.hidden(stage), (2 * self.windows[stage] - 1) ** 2 * self.heads[stage]
            attention = 3 * width * (width + self.qkv_bias) + (width + 1) * width + table
            mlp = (width + 1) * hidden + (hidden + 1) * width
            total += self.depths[stage] * (4 * width + attention + mlp)
            if stage:
                before = MERGED * self.widths[stage - 1]
                total += 2 * before + before * width
        return total + 2 * self.width

    def backbone_products(self, image_size: tuple[int, int]) -> int:
        """Multiply-adds of one image's way to the last tokens, padding included."""
        total = 0
        for stage, grid in enumerate(self.grids(image_size)):
            width, cells = self.widths[stage], grid[0] * grid[1]
            plan = self.plan(stage, 0)
            size, padded = plan.size(grid), plan.padded(grid)
            places = padded[0] * padded[1]
            block = places * width * (4 * width + 2 * size[0] * size[1]) + cells * 2 * width * self.hidden(
                stage
            )
            before = MERGED * self.widths[stage - 1] if stage else self.patch**2 * self.channels
            total += cells * before * width + self.depths[stage] * block
        return total

    def tiny(self) -> Self:
        """Two stages of a few channels, whose windows fill no map."""
        return replace(
            self,
            image_size=(5 * self.patch, 7 * self.patch),
            widths=(8, 12),
            depths=(2, 2),
            heads=(2, 3),
            windows=(3, 3),
        )

    def summary(self) -> str:
        """Blocks, widths, windows and grid."""
        rows, columns = self.grid()
        blocks, widths = ("-".join(map(str, values)) for values in (self.depths, self.widths))
        sides = "-".join(map(str, dict.fromkeys(self.windows)))
        return (
            f"{blocks} blocks, widths {widths}, windows of {sides}, {rows}x{columns} tokens at "
            f"{self.image_size[0]} px"
        )


Row = dict[str, Any]

_DEEP: Row = {"depths": (2, 2, 18, 2)}
_BASE: Row = {**_DEEP, "widths": (128, 256, 512, 1024), "heads": (4, 8, 16, 32)}
_LARGE: Row = {**_DEEP, "widths": (192, 384, 768, 1536), "heads": (6, 12, 24, 48)}
_FINE: Row = {"image_size": (384, 384), "windows": (12, 12, 12, 12)}

MODELS: dict[str, Row] = {
    "swin_tiny": {},
    "swin_small": {**_DEEP},
    "swin_base": {**_BASE},
    "swin_large": {**_LARGE},
    "swin_base_384": {**_BASE, **_FINE},
    "swin_large_384": {**_LARGE, **_FINE},
    "swin_nano_small": {
        "widths": (32, 64, 128),
        "depths": (2, 2, 4),
        "heads": (2, 4, 8),
        "windows": (4, 4, 4),
        "patch": 2,
        "image_size": (32, 32),
    },
}
