"""Backbones: what turns images into tokens, whatever reads the tokens afterwards."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from torch import Tensor, nn

from tesela.layers.grid import Grid
from tesela.layers.pool import MeanPool
from tesela.layers.trace import OFF, Trace
from tesela.models.config import ModelConfig
from tesela.models.heads import Head

_C = TypeVar("_C", bound=ModelConfig)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Output of a backbone.

    Attributes:
        tokens: (B, prefix + n, D), after the last norm; positions of the last feature map where the backbone
            is convolutional.
        grid: rows and columns of the n patch tokens.
        prefix: number of tokens before the patches.
        stages: feature maps (B, D_i, H_i, W_i) from fine to coarse, of a pyramid; else those after the
            blocks that were asked for.
    """

    tokens: Tensor
    grid: Grid
    prefix: int
    stages: tuple[Tensor, ...] = ()


class Backbone(nn.Module, ABC, Generic[_C]):
    """Images (B, C, H, W), float32 and normalised, to ``Features``.

    A family of networks is a subclass. It also says which pool and head a classifier of that family has.

    Args:
        config: the network's configuration.
    """

    #: Whether the blocks normalise tokens before their branches.
    pre_norm = True
    #: Whether the attention must know where its tokens are on the grid.
    needs_grid = False
    #: Whether it is convolutional throughout, which is faster with the channels of a pixel side by side.
    channels_last = False
    #: Whether it always gives feature maps of several scales.
    pyramid = False
    #: Whether it cuts its grids into windows, whose number and padding depend on the image's size.
    cuts_windows = False

    def __init__(self, config: _C) -> None:
        super().__init__()
        self.config = config

    @property
    def prefix_tokens(self) -> int:
        """Tokens before the patches."""
        return self.config.prefix

    @abstractmethod
    def forward(
        self,
        images: Tensor,
        *,
        trace: Trace = OFF,
        first: int | None = None,
        taps: tuple[int, ...] = (),
    ) -> Features:
        """Tokens of images (B, C, H, W).

        Args:
            images: to look at.
            trace: records the intermediate tensors.
            first: how many of the first tokens are read afterwards; the others may be left out. None is all.
            taps: blocks whose patch tokens are wanted too, as ``stages``; a pyramid has its own.
        """

    @abstractmethod
    def layer_groups(self) -> list[list[str]]:
        """All parameter names once, in groups from input to output."""

    def merging_weights(self, stage: int) -> Tensor | None:  # noqa: ARG002
        """Weights (D, C, k, k) of a convolution of stride 2 that stands for the step to a pyramid's stage.

        None where there is none, or the convolution itself can be found.
        """
        return None

    def no_decay(self) -> set[str]:
        """Names of parameters without weight decay: biases and norms."""
        return {name for name, parameter in self.named_parameters() if parameter.ndim < 2}

    def make_pool(self) -> nn.Module:
        """The module that turns tokens (B, N, D) into the head's input (B, D').

        Called with tokens and prefix.
        """
        return MeanPool()

    def make_pooled_norm(self) -> nn.Module | None:
        """A norm of the head's input."""
        return None

    def make_head(self, num_classes: int) -> nn.Module:
        """The module that turns the pooled vector (B, D') into logits (B, K)."""
        return Head(self.config.pooled_width, num_classes)

    def grid(self, image_size: tuple[int, int]) -> Grid:
        """Rows and columns of patch tokens of an image of (height, width)."""
        return self.config.grid(image_size)

    def set_image_size(self, image_size: tuple[int, int]) -> None:
        """Make (height, width) the size that the backbone is made for.

        Raises:
            ConfigError: the image does not fit.
        """
        self.config = dataclasses.replace(self.config, image_size=image_size)
