"""What every classifier offers, whatever its family; one contract suite checks all registered models against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Generator, Tensor, nn

from tesela.layers.grid import Grid
from tesela.layers.trace import OFF, Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What a network knows of images before its head.

    Attributes:
        tokens: (B, prefix + n, D), after the last norm; the cells of the feature map where the network is convolutional.
        pooled: (B, D'), the head's input; D' is the configuration's ``pooled_width``.
        grid: rows and columns of the n patch tokens.
        prefix: number of tokens before the patches.
    """

    tokens: Tensor
    pooled: Tensor
    grid: Grid
    prefix: int


@runtime_checkable
class Classifier(Protocol):
    """Images (B, C, H, W), float32 and normalised, to logits (B, K)."""

    config: Any
    num_classes: int
    head: nn.Module
    info: Any

    def initialise(self, generator: Generator | None = None) -> None:
        """Draw all weights anew."""
        ...

    def forward(self, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        """Logits (B, K)."""
        ...

    def features(self, images: Tensor, *, trace: Trace = OFF) -> Features:
        """Tokens and pooled vector."""
        ...

    def set_image_size(self, image_size: tuple[int, int]) -> None:
        """Make another (height, width) the model's own."""
        ...

    def reset_head(self, num_classes: int) -> None:
        """Replace the head by a linear one of ``num_classes``, all zero, and keep the body."""
        ...

    def no_decay(self) -> set[str]:
        """Names of parameters that weight decay must leave alone."""
        ...

    def layer_groups(self) -> list[list[str]]:
        """All parameter names once, in groups from input to output."""
        ...

    def grid(self, image_size: tuple[int, int]) -> Grid:
        """Rows and columns of tokens of an image of (height, width)."""
        ...
