"""Result of a run, as ``result.json`` and as the answer of ``train``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """Result of a run. Its task's scores can be read as attributes: ``result.accuracy``.

    Attributes:
        run: the run folder.
        task: name of the task.
        scores: the task's headline scores on the test split (on val without one), the selecting one first;
            None where there was nothing to score on.
        parameters: number of weights.
        steps: updates made.
        epochs: passes over the training images.
        seconds: wall time of all sessions of training.
        images_per_second: training images per second of training steps.
        model: name of the model.
        precision: number format that was used.
        split: what the scores were measured on.
        unreadable: images for training and validation that could not be read and were left out.
        trainable: number of weights that were trained, adapters included.
    """

    run: str
    task: str
    scores: dict[str, float | None] = field(default_factory=dict)
    parameters: int
    steps: int
    epochs: float
    seconds: float
    images_per_second: float
    model: str
    precision: str
    split: str | None
    unreadable: int
    trainable: int | None = None

    def __getattr__(self, name: str) -> float | None:
        """A score by its name."""
        scores: dict[str, float | None] = object.__getattribute__(self, "scores")
        if name in scores:
            return scores[name]
        raise AttributeError(f"a run of the task {self.task} has no score {name!r}, only {', '.join(scores)}")

    @property
    def path(self) -> Path:
        """The run folder."""
        return Path(self.run)

    def mapping(self) -> dict[str, Any]:
        """As plain values, the scores beside the rest."""
        plain = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "scores"}
        return {"run": self.run, "task": self.task, **self.scores, **plain}

    @classmethod
    def read(cls, mapping: Mapping[str, Any]) -> RunResult:
        """Undo ``mapping``."""
        known = {part.name for part in fields(cls)}
        scores = {name: value for name, value in mapping.items() if name not in known}
        return cls(
            **{"task": "", **{name: mapping[name] for name in mapping if name in known}}, scores=scores
        )
