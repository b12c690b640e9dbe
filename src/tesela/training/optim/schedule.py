"""The learning rate over a run, as a factor between 0 and 1 of ``optim.lr``.

Shapes: cosine and linear to a floor, step (article B: x0.8 every 12 epochs), rsqrt (Zhai et al. 2022, arXiv
2106.04560) and constant; each after a linear warm-up. Odd: the factor is a function of *progress*, the share
of the run that is done, because a run with a time budget may refit its number of steps on the way; progress
stays continuous then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tesela.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """How the learning rate moves."""

    name: Literal["cosine", "linear", "step", "rsqrt", "constant"] = "cosine"
    """Shape after the warm-up."""
    warmup: float = 0.05
    """Share of the run over which the rate rises from zero; a value of 1 or more counts epochs."""
    floor: float = 0.0
    """Smallest factor that cosine and linear end at."""
    step_factor: float = 0.8
    """With step: what the rate is multiplied by."""
    step_epochs: float = 12
    """With step: after how many epochs each time."""
    timescale: float = 0.1
    """With rsqrt: the share of the run after which the rate has fallen to 1/sqrt(2)."""
    cooldown: float = 0.1
    """With rsqrt: the share of the run at its end over which the rate falls to zero."""

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise ConfigError(
                f"schedule.warmup cannot be {self.warmup}",
                hint="give a share such as 0.05, or a number of epochs",
            )
        if not 0 <= self.floor <= 1:
            raise ConfigError(
                f"schedule.floor must lie in 0..1, not {self.floor}",
                hint="0.01 ends at a hundredth of the rate",
            )
        if (
            self.step_factor <= 0
            or self.step_epochs <= 0
            or self.timescale <= 0
            or not 0 <= self.cooldown < 1
        ):
            raise ConfigError(
                "schedule: step_factor, step_epochs and timescale must be above 0, cooldown in 0..1",
                hint="mend the value",
            )


def lr_factor(
    config: ScheduleConfig, *, progress: float, advance: float, epoch: float, epochs: float
) -> float:
    """The factor for one step.

    Args:
        config: the schedule.
        progress: share of the run that is done before the step.
        advance: share of the run that the step itself makes; the warm-up counts it, so that the first step
            moves.
        epoch: epochs done before the step.
        epochs: epochs of the whole run.
    """
    warmup = config.warmup if config.warmup < 1 else min(config.warmup / max(epochs, 1e-9), 0.9)
    rise = min(1.0, (progress + advance) / warmup) if warmup > 0 else 1.0
    after = max(0.0, progress - warmup) / max(1.0 - warmup, 1e-9)
    return rise * _shape(config, progress=progress, after=after, epoch=epoch)


def _shape(config: ScheduleConfig, *, progress: float, after: float, epoch: float) -> float:
    if config.name == "cosine":
        return config.floor + (1 - config.floor) * 0.5 * (1 + math.cos(math.pi * min(after, 1.0)))
    if config.name == "linear":
        return config.floor + (1 - config.floor) * (1 - min(after, 1.0))
    if config.name == "step":
        return float(config.step_factor ** math.floor(epoch / config.step_epochs))
    if config.name == "rsqrt":
        fall = min(1.0, (1.0 - progress) / config.cooldown) if config.cooldown > 0 else 1.0
        return fall / math.sqrt(1 + after / config.timescale)
    return 1.0
