"""Timing: estimates of what is left of a time budget, from measured steps."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tesela.hardware.memory import state_bytes
from tesela.training.choices import Choices
from tesela.training.prepare import Prepared

#: A forward pass is taken to cost this share of a training step.
FORWARD_SHARE = 0.35
REPORT_SECONDS = 5.0


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

        Without features, final evaluation and report.
        """
        config, count = self.prepared.config, self.prepared.count
        budget = 60.0 * (config.minutes or 0.0)
        evaluation = self._forward(choices, step_seconds, count("test") or count("val")) + self.opened
        report = REPORT_SECONDS if config.report else 0.0
        features = self.prepared.frozen.seconds(choices) if features_due else 0.0
        here = time.monotonic() - self.begin
        return max(0.0, budget - self.spent - here - evaluation - features - report - 0.01 * budget)

    def epoch_seconds(self, choices: Choices) -> float:
        """Estimated seconds for one validation and checkpoint."""
        prepared = self.prepared
        saving = 0.03 + state_bytes(prepared.model, ema=prepared.config.ema.decay > 0) / 2e8
        if choices.features:
            return choices.step_seconds * prepared.count("val") / choices.batch_size + saving
        return self._forward(choices, choices.step_seconds, prepared.count("val")) + saving

    def _forward(self, choices: Choices, step_seconds: float, images: int) -> float:
        """Seconds of the whole model's forward pass over so many images."""
        share = 1.0 if self.prepared.config.tune == "head" else FORWARD_SHARE
        batch = choices.feature_seconds or share * step_seconds / self.accumulate
        return batch * images / choices.batch_size
