"""Position, running sums and best score of a run, as plain Python values.

Odd: sums are kept as Python floats and added in the order of the steps, so that they come out equal however a
run was cut up.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Sums:
    """Loss and logged values, weighted by images."""

    images: float = 0
    values: dict[str, float] = field(default_factory=dict)

    def add(self, images: float, values: dict[str, float]) -> None:
        """Take in the means of one batch."""
        self.images += images
        for name, value in values.items():
            self.values[name] = self.values.get(name, 0.0) + value * images

    def means(self) -> dict[str, float]:
        """The means over all that was added."""
        return {name: value / max(self.images, 1) for name, value in self.values.items()}

    def clear(self) -> None:
        """Begin again."""
        self.images = 0
        self.values = {}


@dataclass(slots=True)
class Progress:
    """Position of a run.

    Attributes:
        step: updates done.
        validated: step of the last validation, -1 before the first.
        window: sums since the last logged row.
        epoch: sums since the epoch began.
        best: best validation score so far.
        best_step: step of the weights that are kept for it, 0 for none.
        stale: epochs since then.
        stopped: whether early stopping or the time budget ended the run before its last step.
    """

    step: int = 0
    validated: int = -1
    window: Sums = field(default_factory=Sums)
    epoch: Sums = field(default_factory=Sums)
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    stopped: bool = False

    def state(self) -> dict[str, Any]:
        """As a mapping, for a checkpoint."""
        return asdict(self)

    @classmethod
    def load(cls, state: dict[str, Any]) -> Progress:
        """Undo ``state``."""
        return cls(**{**state, "window": Sums(**state["window"]), "epoch": Sums(**state["epoch"])})
