"""Base of all network configurations, without torch.

Odd: the number of classes is no field. It belongs to the data, and a head can be exchanged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

from tesela.core.errors import ConfigError
from tesela.layers.grid import Grid


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig(ABC):
    """Images, and the closed forms that a family works out."""

    image_size: tuple[int, int] = (224, 224)
    """Height and width in pixels that the model is made for; other sizes work at run time."""
    channels: int = 3
    """Channels of the images."""

    def __post_init__(self) -> None:
        """Check what would fail later with a worse message."""
        if self.channels < 1:
            raise ConfigError(
                f"channels must be at least 1, not {self.channels}", hint="give a positive channels"
            )
        if min(self.image_size) < 1:
            raise ConfigError(
                f"image_size {self.image_size} is not positive", hint="give height and width in pixels"
            )

    @abstractmethod
    def grid(self, image_size: tuple[int, int] | None = None) -> Grid:
        """Rows and columns of patch tokens, of the config's own size or another.

        Raises:
            ConfigError: the image does not fit.
        """

    @property
    def token_width(self) -> int:
        """Width of a token (D), as it leaves the backbone."""
        return self.stage_widths[-1]

    @property
    @abstractmethod
    def pooled_width(self) -> int:
        """Width of a classification head's input."""

    @property
    @abstractmethod
    def prefix(self) -> int:
        """Tokens before the patches."""

    @property
    @abstractmethod
    def stage_widths(self) -> tuple[int, ...]:
        """Channels of each feature map, from fine to coarse; of one where the network has one resolution."""

    @abstractmethod
    def stage_grids(self, image_size: tuple[int, int]) -> list[Grid]:
        """Rows and columns of each feature map, in the order of ``stage_widths``."""

    @abstractmethod
    def backbone_parameters(self) -> int:
        """Number of trainable values before whatever reads the tokens."""

    @abstractmethod
    def backbone_products(self, image_size: tuple[int, int]) -> int:
        """Multiply-adds of one image's way to the tokens."""

    @abstractmethod
    def parameter_count(self, num_classes: int) -> int:
        """Number of trainable values of a classifier, in closed form."""

    @abstractmethod
    def flops(self, num_classes: int = 1000, *, image_size: tuple[int, int] | None = None) -> int:
        """Operations of one image's forward pass.

        Two for each multiply-add of a matrix product or convolution.
        """

    @abstractmethod
    def tiny(self) -> Self:
        """The same kind of network as small as it can be, for images that are not square: what tests run."""

    @abstractmethod
    def summary(self) -> str:
        """One line for lists of models."""
