"""Settings of the classification objective, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tesela.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassificationConfig:
    """What can be set about learning one label per image."""

    balance: Literal["auto", "sqrt", "inverse", "none"] = "auto"
    """Weight each class by the inverse of its number of training images, or of its square root; auto takes
    the root where the largest class has over twice the images of the smallest."""
    label_smoothing: float = 0.0
    """Share of each target that is spread over all classes."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(
                f"label_smoothing must lie in 0..1, not {self.label_smoothing}", hint="0.1 is usual"
            )
