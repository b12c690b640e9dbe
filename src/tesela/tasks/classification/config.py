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
    teacher: str | None = None
    """Classifier to learn from beside the labels, which knows the data's classes by name: a run, a bundle, a
    Hugging Face folder, a timm or JAX file, or hub:NAME."""
    distillation: Literal["soft", "hard"] = "soft"
    """What the teacher teaches: its probabilities, or the class that it names."""
    teacher_share: float | None = None
    """Share of the teacher in the loss; 0.9 of soft and 0.5 of hard targets by default."""
    distill_temperature: float = 2.0
    """With soft targets: what the logits of both are divided by."""
    teacher_cache: Literal["auto", "none"] = "auto"
    """Keep what the teacher says; auto does where images are at most flipped, up to 2 GiB."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(
                f"label_smoothing must lie in 0..1, not {self.label_smoothing}", hint="0.1 is usual"
            )
        if self.teacher_share is not None and not 0 <= self.teacher_share <= 1:
            raise ConfigError(
                f"teacher_share must lie in 0..1, not {self.teacher_share}", hint="0.9 is usual"
            )
        if not self.distill_temperature > 0:
            raise ConfigError(
                f"distill_temperature must be above 0, not {self.distill_temperature}", hint="2 is usual"
            )

    @property
    def distill_share(self) -> float:
        """Share of the teacher in the loss."""
        usual = 0.9 if self.distillation == "soft" else 0.5
        return usual if self.teacher_share is None else self.teacher_share
