"""Body of a residual network (He et al. 2016, arXiv 1512.03385 and 1603.05027).

Root, stages of units, feature map.

``post``: every convolution is followed by norm and ReLU, the last ReLU by the sum; a shortcut that changes
shape has a convolution and a norm. ``pre``: norm and ReLU come before every convolution, the shortcut's
convolution takes what the first norm left, the sum is bare, and a norm with ReLU ends the body. A
bottleneck's stride is in its 3x3 convolution.

Odd: modules are named as the plan counts them, ``stages.2.0.conv2``; ``norm1`` belongs to ``conv1``, after it
or before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from tesela.layers.block import DropPath
from tesela.layers.convolution.residual_plan import ConvolutionPlan, ResidualPlan, Unit
from tesela.layers.convolution.standardised import Conv2d, MaxPool2d, Standardise
from tesela.layers.norm import EPS, make_norm
from tesela.layers.trace import OFF, Trace


@dataclass(frozen=True, kw_only=True, slots=True)
class ResidualStyle:
    """Settings that all units of a network share.

    Attributes:
        norm: ``batch`` or ``group``.
        groups: of a group norm.
        norm_eps: epsilon of the norms.
        standardise: of the convolutions' weights, ``none``, ``root`` or ``sum``.
        standardise_eps: epsilon of that.
        same: pad as XLA does.
    """

    norm: str = "batch"
    groups: int = 32
    norm_eps: float = EPS
    standardise: Standardise = "none"
    standardise_eps: float = 0.0
    same: bool = False

    def convolution(self, plan: ConvolutionPlan) -> Conv2d:
        """A convolution of this style."""
        return Conv2d(
            plan.before,
            plan.after,
            plan.kernel,
            plan.stride,
            same=self.same,
            standardise=self.standardise,
            eps=self.standardise_eps,
        )

    def make_norm(self, width: int, *, zero: bool = False) -> nn.Module:
        """A norm of this style; with scale zero at the start where ``zero``."""
        return make_norm(self.norm, width, groups=self.groups, zero=zero, eps=self.norm_eps)


class ResidualUnit(nn.Module):
    """(B, C, H, W) to (B, C', H', W'): a branch of convolutions, added to what came in.

    Args:
        plan: its convolutions.
        style: its norms and paddings.
        order: ``post`` or ``pre``.
        drop_path: rate of stochastic depth of the branch.
    """

    def __init__(self, plan: Unit, style: ResidualStyle, *, order: str, drop_path: float = 0.0) -> None:
        super().__init__()
        self.count = len(plan.branch)
        self.pre = order == "pre"
        for index, part in enumerate(plan.branch, 1):
            last = index == self.count and not self.pre
            self.add_module(f"conv{index}", style.convolution(part))
            self.add_module(
                f"norm{index}", style.make_norm(part.before if self.pre else part.after, zero=last)
            )
        self.projection = style.convolution(plan.projection) if plan.projection else None
        self.projection_norm = (
            style.make_norm(plan.projection.after) if plan.projection and not self.pre else None
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, images: Tensor) -> Tensor:
        """The sum of shortcut and branch."""
        return self._pre(images) if self.pre else self._post(images)

    def _post(self, images: Tensor) -> Tensor:
        branch = images
        for index in range(1, self.count + 1):
            branch = self.get_submodule(f"norm{index}")(self.get_submodule(f"conv{index}")(branch))
            branch = F.relu(branch) if index < self.count else branch
        shortcut = images
        if self.projection is not None and self.projection_norm is not None:
            shortcut = self.projection_norm(self.projection(images))
        result: Tensor = F.relu(shortcut + self.drop_path(branch))
        return result

    def _pre(self, images: Tensor) -> Tensor:
        shortcut, branch = images, images
        for index in range(1, self.count + 1):
            branch = F.relu(self.get_submodule(f"norm{index}")(branch))
            if index == 1 and self.projection is not None:
                shortcut = self.projection(branch)
            branch = self.get_submodule(f"conv{index}")(branch)
        result: Tensor = shortcut + self.drop_path(branch)
        return result


class Root(nn.Module):
    """First convolution, with norm and ReLU in ``post`` order, and pooling in the large form.

    Args:
        plan: the network's.
        style: the network's.
    """

    def __init__(self, plan: ResidualPlan, style: ResidualStyle) -> None:
        super().__init__()
        self.conv = style.convolution(plan.root_convolution())
        self.norm = style.make_norm(plan.base) if plan.order == "post" else None
        self.pool = MaxPool2d(3, 2, same=style.same) if plan.root == "large" else nn.Identity()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to (B, base, H', W'), before and after the pooling."""
        result: Tensor = self.conv(images)
        result = result if self.norm is None else F.relu(self.norm(result))
        return result, self.pool(result)


class ResidualBody(nn.Module):
    """(B, C, H, W) to feature maps, from the root's before its pooling to the last one (B, D, H', W').

    Args:
        plan: units and widths.
        style: norms, weights and paddings.
        drop_path: rate of stochastic depth of the last unit; earlier units less, linearly from 0.
    """

    def __init__(self, plan: ResidualPlan, style: ResidualStyle, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.root = Root(plan, style)
        last, done = max(1, sum(plan.stages) - 1), 0
        self.stages = nn.ModuleList()
        for units in plan.units():
            rates = [drop_path * index / last for index in range(done, done + len(units))]
            self.stages.append(
                nn.ModuleList(
                    ResidualUnit(unit, style, order=plan.order, drop_path=rate)
                    for unit, rate in zip(units, rates, strict=True)
                )
            )
            done += len(units)
        self.norm = style.make_norm(plan.width) if plan.order == "pre" else None

    def forward(self, images: Tensor, *, trace: Trace = OFF) -> tuple[Tensor, ...]:
        """One map of each size, the last of each; root and units are traced under their modules' names."""
        unpooled, result = self.root(images)
        maps = [unpooled, result] if result.shape != unpooled.shape else [result]
        trace("root", result)
        for number, stage in enumerate(self.stages):
            for index, unit in enumerate(stage.children()):
                result = trace(f"stages.{number}.{index}", unit(result))
            if result.shape[2:] == maps[-1].shape[2:]:
                maps.pop()
            maps.append(result)
        if self.norm is not None:
            maps[-1] = trace("norm", F.relu(self.norm(maps[-1])))
        return tuple(maps)
