"""Timing: estimates of what a run takes, every phase counted."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass

from tesela.hardware.memory import state_bytes
from tesela.training.choices import Choices
from tesela.training.prepare import Prepared

#: A forward pass is taken to cost this share of a training step.
FORWARD_SHARE = 0.35
REPORT_SECONDS = 5.0
SAVED_BYTES_PER_SECOND = 2e8


@dataclass(frozen=True, kw_only=True, slots=True)
class TimePlan:
    """Time of one run.

    Attributes:
        prepared: the run.
        begin: monotonic time at which this process began with it.
        spent: seconds that earlier processes took.
        opened: seconds that opening data and model took; evaluating the bundle opens both again.
        accumulate: batches per step.
    """

    prepared: Prepared
    begin: float
    spent: float
    opened: float
    accumulate: int

    def elapsed(self) -> float:
        """Seconds of all processes so far."""
        return self.spent + time.monotonic() - self.begin

    def left(self, choices: Choices, step_seconds: float, *, features_due: bool) -> float:
        """Seconds of the budget for steps and validations from now on.

        Without features, calibration, final evaluation and report.
        """
        budget = 60.0 * (self.prepared.config.minutes or 0.0)
        features = self.prepared.frozen.seconds(choices) if features_due else 0.0
        here = time.monotonic() - self.begin
        after = self.after_seconds(choices, step_seconds)
        return max(0.0, budget - self.spent - here - after - features - 0.01 * budget)

    def planned_seconds(self, choices: Choices) -> float:
        """Seconds of the whole run, with what has passed: the budget, or an estimate."""
        if self.prepared.config.minutes:
            return 60.0 * self.prepared.config.minutes
        steps = int(choices.budget[-1][1])
        epochs = math.ceil(steps / choices.steps_per_epoch)
        loop = steps * choices.step_seconds + epochs * self.epoch_seconds(choices)
        features = self.prepared.frozen.seconds(choices)
        return self.elapsed() + features + loop + self.after_seconds(choices, choices.step_seconds)

    def after_seconds(self, choices: Choices, step_seconds: float) -> float:
        """Estimated seconds from the last step to the end: calibration, evaluation, report."""
        config, count = self.prepared.config, self.prepared.count
        calibration = self._forward(choices, step_seconds, count("val")) if self._calibrates() else 0.0
        evaluation = self._forward(choices, step_seconds, count("test") or count("val")) + self.opened
        return calibration + evaluation + (REPORT_SECONDS if config.report else 0.0)

    def epoch_seconds(self, choices: Choices) -> float:
        """Estimated seconds for one validation and checkpoint."""
        prepared = self.prepared
        saved = state_bytes(prepared.model, ema=prepared.config.ema.decay > 0)
        saving = 0.03 + saved / SAVED_BYTES_PER_SECOND
        if choices.features:
            return choices.step_seconds * prepared.count("val") / choices.batch_size + saving
        return self._forward(choices, choices.step_seconds, prepared.count("val")) + saving

    def _calibrates(self) -> bool:
        return self.prepared.config.calibrate and self.prepared.task.calibrates

    def _forward(self, choices: Choices, step_seconds: float, images: int) -> float:
        """Seconds of the whole model's forward pass over so many images."""
        share = 1.0 if self.prepared.config.tune == "head" else FORWARD_SHARE
        usual = choices.feature_seconds or share * step_seconds / self.accumulate
        batch = choices.forward_seconds or usual
        return batch * images / choices.batch_size


def step_seconds(
    compute: float, reading: float, *, workers: int, threads: int, cores: int | None = None, shared: bool
) -> float:
    """Seconds of a step whose next batches are made beside it.

    Args:
        compute: seconds of the step alone.
        reading: seconds to make its batches, on one core.
        workers: that make them; 0 makes them in between.
        threads: that compute.
        cores: of the machine; by default those that this process may use.
        shared: whether computing takes the same cores (on a CPU).
    """
    if workers == 0:
        return compute + reading
    bound = max(compute, reading / workers)
    if not shared:
        return bound
    cores = cores or (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(bound, (compute * min(threads, cores) + reading) / cores)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
