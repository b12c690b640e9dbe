"""What a run reached, as ``result.json`` and as the answer of ``train``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """What a run reached.

    Attributes:
        run: the run folder.
        accuracy: on the test split (on val where there is no test split).
        top5: share of images whose class is among the five most probable.
        parameters: number of weights.
        steps: updates made.
        epochs: passes over the training images.
        seconds: wall time of all sittings.
        images_per_second: training images per second of training steps.
        model: name of the model.
        precision: number format that was used.
        split: what accuracy was measured on.
        unreadable: images for training and validation that could not be read and were left out.
        trainable: number of weights that were trained, adapters included.
    """

    run: str
    accuracy: float | None
    top5: float | None
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

    @property
    def path(self) -> Path:
        """The run folder."""
        return Path(self.run)

    def mapping(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)
