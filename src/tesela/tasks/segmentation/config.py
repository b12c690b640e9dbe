"""Settings of the segmentation objective, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tesela.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentationConfig:
    """What can be set about learning a class for each pixel."""

    cross_entropy: float = 1.0
    """Weight of the pixels' cross-entropy."""
    dice: float = 0.0
    """Weight of the Dice loss, one minus the classes' mean soft Dice (arXiv 1606.04797)."""
    focal: float = 0.0
    """Weight of the focal loss (arXiv 1708.02002)."""
    focal_gamma: float = 2.0
    """Power with which the focal loss makes little of pixels that are right."""
    class_weights: Literal["none", "median", "sqrt", "log"] = "none"
    """Weights of the classes in cross-entropy and focal loss, from their pixels in training: median frequency
    (arXiv 1411.4734), its square root, or 1 / log(1.02 + share) (ENet, arXiv 1606.02147)."""
    pixel_smoothing: float = 0.0
    """Share of each pixel's target that is spread over all classes."""

    def __post_init__(self) -> None:
        for name in ("cross_entropy", "dice", "focal", "focal_gamma"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} cannot be {getattr(self, name)}", hint="give 0 or more")
        if self.cross_entropy + self.dice + self.focal == 0:
            raise ConfigError("all losses have weight 0", hint="give one of cross_entropy, dice and focal 1")
        if not 0 <= self.pixel_smoothing < 1:
            raise ConfigError(
                f"pixel_smoothing must lie in 0..1, not {self.pixel_smoothing}", hint="0.1 is usual"
            )
