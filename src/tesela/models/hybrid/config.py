"""Sizes of hybrids, without torch.

A residual network's feature map is cut into patches instead of the image.

``r50_vit_b16`` reads: the units of ResNet-50, then ViT-B, with one token for each 16x16 pixels. The number is
always the total down-sampling. By the paper (section 4.1) 32 is (i) the output of stage 4 of a regular
network, and 16 is (ii) stage 4 dropped and its units moved to stage 3, four times as many tokens; both with
1x1 patches. ``r_vit_ti16`` has the root alone, which divides by 4, and 4x4 patches. Names in ``mini`` are for
28 to 64 px: a 3x3 root, and half of the width.

Odd: the published R+Ti/16 (arXiv 2106.10270) has 8x8 patches on the root and so divides by 32; here it is
``r_vit_ti32``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from tesela.core.errors import ConfigError
from tesela.core.registry import registered_config
from tesela.layers.convolution.residual_plan import ResidualPlan
from tesela.layers.grid import Grid, patch_grid
from tesela.models.encoder.config import EncoderConfig
from tesela.models.vit.config import SIZES as VIT


@registered_config(
    "model",
    "hybrid",
    target="tesela.models.hybrid.network:Hybrid",
    summary="Vision Transformer on a residual network's map",
)
@dataclass(frozen=True, kw_only=True, slots=True)
class HybridConfig(EncoderConfig):
    """A hybrid of a residual network and a Vision Transformer."""

    stages: tuple[int, ...] = (3, 4, 9)
    """Units of each stage of the residual network; none leaves its root."""
    width_factor: float = 1.0
    """Multiplies the widths of the residual network."""
    patch_size: tuple[int, int] = (1, 1)
    """Height and width of a patch in cells of the feature map."""
    root: Literal["large", "small"] = "large"
    """large: 7x7 with stride 2 and max-pooling; small: 3x3, for images of 28 to 64 px."""
    arithmetic: Literal["paper", "timm"] = "paper"
    """Epsilons of the residual network: as in the paper's code, or as timm and transformers have them."""
    norm_groups: int = 32
    """Groups of the residual network's GroupNorms."""

    def __post_init__(self) -> None:
        """Check residual network and patches, then the rest."""
        if min(self.patch_size) < 1:
            raise ConfigError(
                f"patch_size {self.patch_size} is not positive",
                hint="give height and width in cells of the feature map",
            )
        self.plan().check(norm="group", groups=self.norm_groups)
        EncoderConfig.__post_init__(self)

    def plan(self) -> ResidualPlan:
        """The arithmetic of the residual network."""
        return ResidualPlan(
            channels=self.channels, stages=self.stages, width_factor=self.width_factor, root=self.root
        )

    @property
    def down_sampling(self) -> tuple[int, int]:
        """Pixels of one token, height and width."""
        rows, columns = (self.plan().reduction * side for side in self.patch_size)
        return rows, columns

    def grid(self, image_size: tuple[int, int] | None = None) -> Grid:
        """Rows and columns of patches on the feature map."""
        size = image_size or self.image_size
        try:
            return patch_grid(self.plan().grid(size), self.patch_size)
        except ConfigError as error:
            near = (
                max(1, round(side / step)) * step for side, step in zip(size, self.down_sampling, strict=True)
            )
            raise ConfigError(
                f"an image of {size[0]}x{size[1]} pixels has a feature map that does not fit: "
                f"{error.message.replace(' pixels', '')}",
                hint="use an image size of {}x{} or another patch size".format(*near),
            ) from None

    def tiny(self) -> Self:
        """Two blocks of width 16 on at most two stages of an eighth of the width."""
        small = replace(self, stages=(1, 1)[: len(self.stages)], width_factor=0.125, norm_groups=4)
        size = 3 * small.down_sampling[0], 2 * small.down_sampling[1]
        return replace(small, width=16, depth=2, heads=2, image_size=size)

    def stem_parameters(self) -> int:
        """The residual network, and weight and bias of the patch embedding."""
        plan = self.plan()
        return (
            plan.parameter_count() + (plan.width * self.patch_size[0] * self.patch_size[1] + 1) * self.width
        )

    def stem_products(self, image_size: tuple[int, int]) -> int:
        """The convolutions', and one per patch."""
        (rows, columns), plan = self.grid(image_size), self.plan()
        return (
            plan.products(image_size)
            + rows * columns * plan.width * self.patch_size[0] * self.patch_size[1] * self.width
        )

    def summary(self) -> str:
        """The residual network, then the transformer."""
        units = "-".join(str(count) for count in self.stages)
        body = f"{units} bottleneck units" if units else "root"
        return f"{body}, {EncoderConfig.summary(self)}"


Row = dict[str, Any]

# Units by the number of layers; with 16, those of stage 4 have moved to stage 3 (the paper, section 4.1).
_STAGES: dict[tuple[int, int], tuple[int, ...]] = {
    (26, 32): (2, 2, 2, 2),
    (26, 16): (2, 2, 4),
    (50, 32): (3, 4, 6, 3),
    (50, 16): (3, 4, 9),
}

_RESNETS: dict[str, Row] = {
    f"r{depth}_vit_{size}{pixels}": {**VIT[size], "stages": _STAGES[depth, pixels]}
    for depth, size in ((26, "s"), (26, "b"), (50, "s"), (50, "b"), (50, "l"))
    for pixels in (16, 32)
}
_ROOTS: dict[str, Row] = {
    f"r_vit_{size}{pixels}": {**VIT[size], "stages": (), "patch_size": (pixels // 4, pixels // 4)}
    for size in ("ti", "s")
    for pixels in (16, 32)
}
_MINI: Row = {
    "image_size": (32, 32),
    "root": "small",
    "width_factor": 0.5,
    "width": 192,
    "depth": 6,
    "heads": 6,
    "mlp_ratio": 2.0,
}
_COMPACT: dict[str, Row] = {
    "r11_vit_mini4": {**_MINI, "stages": (1, 1, 1)},
    "r20_vit_mini4": {**_MINI, "stages": (2, 2, 2)},
    "r14_vit_mini8": {**_MINI, "stages": (1, 1, 1, 1)},
}

MODELS: dict[str, Row] = _ROOTS | _RESNETS | _COMPACT
