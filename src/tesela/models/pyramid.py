"""Base of configurations of networks with several scales, without torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tesela.layers.grid import Grid
from tesela.models.config import ModelConfig


def block_groups(names: Iterable[str], depths: Sequence[int]) -> list[list[str]]:
    """Names of parameters by the block they belong to, from input to output.

    Args:
        names: ``stages.S.blocks.I....``; others of a stage go with its first block, all others with the last.
        depths: blocks of each stage.
    """
    groups: list[list[str]] = [[] for _ in range(sum(depths))]
    for name in names:
        parts = name.split(".")
        if parts[0] != "stages":
            groups[-1].append(name)
            continue
        index = int(parts[3]) if parts[2] == "blocks" else 0
        groups[sum(depths[: int(parts[1])]) + index].append(name)
    return groups


@dataclass(frozen=True, kw_only=True, slots=True)
class PyramidConfig(ModelConfig):
    """Scales from fine to coarse; the coarsest one's cells are the tokens."""

    widths: tuple[int, ...] = ()
    """Channels of each scale, from fine to coarse."""

    @abstractmethod
    def grids(self, image_size: tuple[int, int] | None = None) -> list[Grid]:
        """Rows and columns of each scale.

        Raises:
            ConfigError: the image is too small.
        """

    def grid(self, image_size: tuple[int, int] | None = None) -> Grid:
        """Rows and columns of the coarsest scale."""
        return self.grids(image_size)[-1]

    @property
    def width(self) -> int:
        """Channels of the coarsest scale."""
        return self.widths[-1]

    @property
    def pooled_width(self) -> int:
        """Width of the head's input."""
        return self.width

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Channels of each feature map, from fine to coarse."""
        return self.widths

    def stage_grids(self, image_size: tuple[int, int]) -> list[Grid]:
        """Rows and columns of each feature map."""
        return self.grids(image_size)

    @property
    def prefix(self) -> int:
        """Tokens before the patches: none."""
        return 0

    def parameter_count(self, num_classes: int) -> int:
        """Number of trainable values of a classifier, in closed form."""
        return self.backbone_parameters() + (self.width + 1) * num_classes

    def flops(self, num_classes: int = 1000, *, image_size: tuple[int, int] | None = None) -> int:
        """Operations of one image's forward pass through a classifier.

        Two for each multiply-add of a matrix product or convolution.
        """
        return 2 * (self.backbone_products(image_size or self.image_size) + self.width * num_classes)
