"""Step budget of a run, and the progress of a step in it.

With ``--epochs`` the number is known. With ``--minutes`` it is estimated from measured times and refitted on
the way where the machine turns out faster or slower. Each refit is a row (step, total) that is written down
before it takes effect, so that a resumed run repeats it. Progress, which drives the learning rate, stays
continuous: after a refit the rest of the way is shared among the steps that are left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """Rows (step, total): from ``step`` on, the run has ``total`` steps."""

    rows: tuple[tuple[int, int], ...]

    def at(self, step: int) -> Budget:
        """The budget as it was known when ``step`` steps were done: later refits left out."""
        return Budget(tuple(row for row in self.rows if row[0] <= step))

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.rows[-1][1]

    def progress(self, step: int) -> float:
        """Share of the run that is done after ``step`` steps."""
        done, at = 0.0, 0
        total = self.rows[0][1]
        for start, new_total in self.rows[1:]:
            if start > step:
                break
            done += (1.0 - done) * (start - at) / max(total - at, 1)
            at, total = start, new_total
        return min(1.0, done + (1.0 - done) * (step - at) / max(total - at, 1))

    def refitted(self, step: int, total: int) -> Budget:
        """The budget with a new total from ``step`` on."""
        return Budget((*(row for row in self.rows if row[0] < step), (step, max(total, step))))


def steps_per_epoch(batches: int, accumulate: int) -> int:
    """Steps of a pass over the training images, the last one over what is left."""
    return max(1, math.ceil(batches / accumulate))


def steps_in(
    seconds: float, *, step_seconds: float, epoch_seconds: float, steps_per_epoch: int, least: int = 1
) -> int:
    """Steps that fit into ``seconds``, with ``epoch_seconds`` per epoch for validation and saving."""
    each = step_seconds + epoch_seconds / steps_per_epoch
    return max(least, int((seconds - epoch_seconds) / max(each, 1e-9)))


def refit(
    budget: Budget, *, step: int, seconds_left: float, seconds_per_step: float, tolerance: float = 0.015
) -> Budget:
    """The budget fitted to the time that is left, or ``budget`` itself where it is near enough."""
    fitting = step + max(0, int(seconds_left / max(seconds_per_step, 1e-9)))
    if abs(fitting - budget.total) <= tolerance * budget.total:
        return budget
    return budget.refitted(step, max(fitting, step))
