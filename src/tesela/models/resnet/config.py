"""Sizes of residual networks, without torch.

``resnet50`` and its like are the plain networks of arXiv 1512.03385 with BatchNorm, the stride of a
bottleneck in its 3x3 convolution; ``bit_r50x1`` reads depth and width factor, with GroupNorm and
weight-standardised convolutions before whose sums nothing stands (arXiv 1912.11370): the baselines of the ViT
paper. Names in ``_small`` are for 28 to 64 px: a 3x3 root without pooling.

Odd: ``resnet20_small`` and ``resnet56_small`` have the widths of that paper's section 4.2, but a convolution
on shortcuts that change shape (its option B), which makes them larger by 1 %.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from tesela.core.errors import ConfigError
from tesela.core.registry import registered_config
from tesela.layers.convolution.residual_plan import ResidualPlan, halved
from tesela.layers.grid import Grid
from tesela.models.config import ModelConfig


@registered_config(
    "model", "resnet", target="tesela.models.resnet.network:ResNet", summary="Residual network: plain, or BiT"
)
@dataclass(frozen=True, kw_only=True, slots=True)
class ResNetConfig(ModelConfig):
    """A residual network."""

    stages: tuple[int, ...] = (3, 4, 6, 3)
    """Units of each stage; every stage but the first halves the feature map."""
    width_factor: float = 1.0
    """Multiplies all widths; 1 is 64 channels in the first stage."""
    unit: Literal["bottleneck", "basic"] = "bottleneck"
    """bottleneck: 1x1, 3x3 and 1x1 convolution; basic: two 3x3."""
    order: Literal["post", "pre"] = "post"
    """Norm and ReLU after each convolution, or before it (BiT)."""
    norm: Literal["batch", "group"] = "batch"
    """BatchNorm or GroupNorm."""
    norm_groups: int = 32
    """Groups of a GroupNorm."""
    norm_eps: float = 1e-5
    """Epsilon of the norms."""
    standardise: bool = False
    """Weight-standardised convolutions (arXiv 1903.10520)."""
    root: Literal["large", "small"] = "large"
    """large: 7x7 with stride 2 and max-pooling; small: 3x3, for images of 28 to 64 px."""
    drop_path: float = 0.0
    """Stochastic depth of the last unit; earlier units less, linearly from 0."""

    def __post_init__(self) -> None:
        """Check what would fail later with a worse message."""
        ModelConfig.__post_init__(self)
        if not self.stages:
            raise ConfigError(
                "a residual network needs at least one stage", hint="give stages, such as 3,4,6,3"
            )
        if not 0.0 <= self.drop_path < 1.0:
            raise ConfigError(
                f"drop_path must be in [0, 1), not {self.drop_path}", hint="0.1 is a usual value"
            )
        self.plan().check(norm=self.norm, groups=self.norm_groups)

    def plan(self) -> ResidualPlan:
        """The arithmetic of the body."""
        return ResidualPlan(
            channels=self.channels,
            stages=self.stages,
            width_factor=self.width_factor,
            unit=self.unit,
            order=self.order,
            root=self.root,
        )

    @property
    def width(self) -> int:
        """Channels of the last feature map, the width of a token (D)."""
        return self.plan().width

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Channels of each feature map, from fine to coarse."""
        plan = self.plan()
        widths = tuple((plan.base << stage) * plan.expansion for stage in range(len(plan.stages)))
        return (plan.base, *widths) if plan.root == "large" else widths

    def stage_grids(self, image_size: tuple[int, int]) -> list[Grid]:
        """Each half as large as the one before."""
        first = 1 if self.plan().root == "large" else 0
        return [halved(image_size, first + stage) for stage in range(len(self.stage_widths))]

    @property
    def pooled_width(self) -> int:
        """Width of the head's input."""
        return self.width

    @property
    def prefix(self) -> int:
        """Tokens before the patches: none."""
        return 0

    def grid(self, image_size: tuple[int, int] | None = None) -> Grid:
        """Rows and columns of the last feature map; any image fits."""
        return self.plan().grid(image_size or self.image_size)

    def parameter_count(self, num_classes: int) -> int:
        """Number of trainable values, in closed form."""
        return self.backbone_parameters() + (self.width + 1) * num_classes

    def backbone_parameters(self) -> int:
        """Number of trainable values before the head."""
        return self.plan().parameter_count()

    def backbone_products(self, image_size: tuple[int, int]) -> int:
        """Multiply-adds of one image's way to the last feature map."""
        return self.plan().products(image_size)

    def flops(self, num_classes: int = 1000, *, image_size: tuple[int, int] | None = None) -> int:
        """Operations of one image's forward pass.

        Two for each multiply-add of a convolution or matrix product.

        Norms, activations, sums and the standardisation of weights are left out.
        """
        return 2 * (self.backbone_products(image_size or self.image_size) + self.width * num_classes)

    def tiny(self) -> Self:
        """Two stages of an eighth of the width."""
        small = replace(self, stages=(2, 1), width_factor=0.125, norm_groups=4)
        reduction = small.plan().reduction
        return replace(small, image_size=(2 * reduction, reduction + reduction // 2))

    def summary(self) -> str:
        """Units, width and grid."""
        rows, columns = self.grid()
        units = "-".join(str(count) for count in self.stages)
        return (
            f"{units} {self.unit} units, width {self.width}, {self.norm} norm, {rows}x{columns} cells at "
            f"{self.image_size[0]} px"
        )


Row = dict[str, Any]

_BIT: Row = {"order": "pre", "norm": "group", "standardise": True}
_BASIC: Row = {"unit": "basic"}
_SMALL: Row = {"root": "small", "image_size": (32, 32)}

# Table 1 of arXiv 1512.03385; R200 as in arXiv 1603.05027.
STAGES: dict[int, tuple[int, ...]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}

PLAIN: dict[str, Row] = {
    f"resnet{depth}": {"stages": STAGES[depth], **(_BASIC if depth < 50 else {})}
    for depth in (18, 34, 50, 101, 152)
}
BIT: dict[str, Row] = {
    f"bit_r{depth}x{factor}": {**_BIT, "stages": STAGES[depth], "width_factor": float(factor)}
    for depth, factor in (
        (50, 1),
        (50, 2),
        (50, 3),
        (101, 1),
        (101, 3),
        (152, 1),
        (152, 2),
        (152, 4),
        (200, 3),
    )
}
_COMPACT: dict[str, Row] = {
    "resnet20_small": {**_SMALL, **_BASIC, "stages": (3, 3, 3), "width_factor": 0.25},
    "resnet56_small": {**_SMALL, **_BASIC, "stages": (9, 9, 9), "width_factor": 0.25},
    "resnet18_small": {**_SMALL, **_BASIC, "stages": STAGES[18]},
    "resnet50_small": {**_SMALL, "stages": STAGES[50]},
    "bit_r26x1_small": {**_SMALL, **_BIT, "stages": (2, 2, 2, 2)},
    "bit_r50x1_small": {**_SMALL, **_BIT, "stages": STAGES[50]},
}

MODELS: dict[str, Row] = PLAIN | BIT | _COMPACT
