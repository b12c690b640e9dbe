"""Arithmetic of a residual network: units, widths, grids, parameters; without torch.

The configurations count with it and the layers (``tesela.layers.convolution.residual``) are built from it, so
the two cannot differ.

Odd: all windows are padded so that a stride of two halves a side and rounds up, on both sides alike or as XLA
does it; the grid is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tesela.core.errors import ConfigError
from tesela.layers.grid import Grid

#: Channels of the first stage, before the width factor.
BASE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvolutionPlan:
    """One convolution without bias.

    Attributes:
        before: channels that enter.
        after: channels that leave.
        kernel: side of the window.
        stride: of the window.
    """

    before: int
    after: int
    kernel: int = 1
    stride: int = 1

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.before * self.after * self.kernel**2


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """Convolutions of a residual unit: those of its branch, and the shortcut's if shapes differ."""

    branch: tuple[ConvolutionPlan, ...]
    projection: ConvolutionPlan | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ResidualPlan:
    """The body of a residual network, from the image to the last feature map.

    Attributes:
        channels: of the images.
        stages: units of each stage; may be empty, which leaves the root.
        width_factor: multiplies all widths.
        unit: ``bottleneck`` (1x1, 3x3, 1x1 at four times the width) or ``basic`` (two 3x3).
        order: ``post`` (convolution, norm, ReLU) or ``pre`` (norm, ReLU, convolution, and a norm at the end).
        root: ``large`` (7x7 with stride 2, then 3x3 max-pooling with stride 2) or ``small`` (3x3, no
            pooling).
    """

    channels: int
    stages: tuple[int, ...]
    width_factor: float = 1.0
    unit: Literal["bottleneck", "basic"] = "bottleneck"
    order: Literal["post", "pre"] = "post"
    root: Literal["large", "small"] = "large"

    @property
    def base(self) -> int:
        """Channels of the root and of the first stage's inner convolutions."""
        return int(BASE * self.width_factor)

    @property
    def width(self) -> int:
        """Channels of the last feature map."""
        return (self.base << len(self.stages) - 1) * self.expansion if self.stages else self.base

    @property
    def expansion(self) -> int:
        """Channels that leave a unit, as a multiple of those inside."""
        return 4 if self.unit == "bottleneck" else 1

    @property
    def reduction(self) -> int:
        """How many pixels a side of the last feature map's cell has."""
        return (4 if self.root == "large" else 1) << max(0, len(self.stages) - 1)

    def root_convolution(self) -> ConvolutionPlan:
        """The first convolution."""
        large = self.root == "large"
        return ConvolutionPlan(
            before=self.channels, after=self.base, kernel=7 if large else 3, stride=2 if large else 1
        )

    def units(self) -> Iterator[list[Unit]]:
        """The units of each stage; the first of every stage but the first halves the grid."""
        before = self.base
        for index, count in enumerate(self.stages):
            inner = self.base << index
            after, units = inner * self.expansion, []
            for position in range(count):
                stride = 2 if index and not position else 1
                units.append(self._unit(before, inner, after, stride))
                before = after
            yield units

    def _unit(self, before: int, inner: int, after: int, stride: int) -> Unit:
        shortcut = (
            ConvolutionPlan(before=before, after=after, stride=stride)
            if before != after or stride > 1
            else None
        )
        if self.unit == "basic":
            first = ConvolutionPlan(before=before, after=inner, kernel=3, stride=stride)
            return Unit(
                branch=(first, ConvolutionPlan(before=inner, after=after, kernel=3)), projection=shortcut
            )
        middle = ConvolutionPlan(before=inner, after=inner, kernel=3, stride=stride)
        ends = ConvolutionPlan(before=before, after=inner), ConvolutionPlan(before=inner, after=after)
        return Unit(branch=(ends[0], middle, ends[1]), projection=shortcut)

    def grid(self, size: tuple[int, int]) -> Grid:
        """Rows and columns of the last feature map of an image of (height, width)."""
        return halved(size, self.reduction.bit_length() - 1)

    def parameter_count(self) -> int:
        """Weights of all convolutions, and scale and shift of all norms."""
        root = self.root_convolution()
        # the norm of the root, or the last one
        total = root.weights + (2 * root.after if self.order == "post" else 2 * self.width)
        for unit in (unit for stage in self.units() for unit in stage):
            convolutions = [*unit.branch, *([unit.projection] if unit.projection else [])]
            total += sum(convolution.weights for convolution in convolutions)
            normed = (
                [convolution.after for convolution in convolutions]
                if self.order == "post"
                else [part.before for part in unit.branch]
            )
            total += 2 * sum(normed)
        return total

    def products(self, size: tuple[int, int]) -> int:
        """Multiply-adds of all convolutions for an image of (height, width)."""
        root = self.root_convolution()
        here = halved(size, 1) if root.stride == 2 else size
        total = _cells(here) * root.weights
        here = halved(here, 1) if self.root == "large" else here
        for unit in (unit for stage in self.units() for unit in stage):
            for convolution in unit.branch:
                here = halved(here, convolution.stride - 1)
                total += _cells(here) * convolution.weights
            total += _cells(here) * unit.projection.weights if unit.projection else 0
        return total

    def check(self, *, norm: str, groups: int) -> None:
        """Refuse what cannot be built.

        Args:
            norm: ``batch`` or ``group``.
            groups: of a group norm.

        Raises:
            ConfigError: a stage without units, or widths that the groups do not divide.
        """
        if any(count < 1 for count in self.stages):
            raise ConfigError(
                f"stages {self.stages} has a stage without units",
                hint="leave the stage out: its units are its only part",
            )
        if self.base < 1:
            raise ConfigError(
                f"width_factor {self.width_factor} leaves no channel", hint=f"give at least {1 / BASE}"
            )
        if groups < 1 or (norm == "group" and self.base % groups):
            most = max(2, min(groups, self.base) + 1)
            fits = max(count for count in range(1, most) if self.base % count == 0)
            raise ConfigError(
                f"{groups} groups do not divide {self.base} channels (width_factor {self.width_factor})",
                hint=f"give norm_groups={fits}"
                f" or a width_factor that is a multiple of {max(groups, 1) / BASE:g}",
            )


def halved(size: tuple[int, int], times: int) -> Grid:
    """(height, width) after so many windows of stride two, each rounding up."""
    rows, columns = (-(-side // 2**times) for side in size)
    return rows, columns


def _cells(grid: Grid) -> int:
    return grid[0] * grid[1]
