"""Choices measured on this machine, written before the first step and kept on resume.

Precision and attention kernel are measured, the batch size follows from memory and data, the number of steps
of a time budget from the measured time of a step. A resumed run must not measure again: another choice would
be another run.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tesela.core.config import build, to_mapping
from tesela.core.errors import ConfigError, WeightsError
from tesela.core.files import read_json, write_json

#: Attention kernels by the names that earlier versions wrote.
RENAMED_KERNELS = {"lean": "cpu_bf16"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """What was chosen, and the measurements behind it."""

    model: str
    """Name of the model."""
    device: str
    """Type of device."""
    threads: int
    """Threads for computing."""
    precision: str
    """Number format."""
    attention: str
    """Attention kernel."""
    batch_size: int
    """Images per batch."""
    steps_per_epoch: int
    """Steps that make up a pass over the training images."""
    budget: list[Any] = field(default_factory=list)
    """Rows [step, total]; see ``train/budget.py``."""
    step_seconds: float = 0.0
    """Measured time of one step."""
    measured: list[Any] = field(default_factory=list)
    """Rows with precision, attention and seconds of every candidate."""
    activation_bytes: int = 0
    """Memory that one image takes for the backward pass."""
    features: str = ""
    """Where the features of a frozen body are kept: ram, disk, or empty where they are not."""
    feature_seconds: float = 0.0
    """Measured time of the frozen body for one batch, where its features are kept; else 0."""
    forward_seconds: float = 0.0
    """Measured time of one batch in evaluation; 0 in runs of earlier versions."""
    planned_seconds: float = 0.0
    """Estimated time of the whole run, as the plan said it."""
    data: str = ""
    """Digest of the data when the run began; empty in runs of earlier versions."""
    images: dict[str, int] = field(default_factory=dict)
    """Images of each split then."""
    image: dict[str, Any] = field(default_factory=dict)
    """The image spec; empty in runs of earlier versions."""

    def save(self, path: Path) -> None:
        """Write them down, atomically."""
        write_json(path, to_mapping(self))

    def with_budget(self, rows: tuple[tuple[int, int], ...]) -> Choices:
        """The same with another number of steps."""
        return dataclasses.replace(self, budget=[list(row) for row in rows])

    @classmethod
    def read(cls, path: Path) -> Choices | None:
        """The choices in a file, or None if the run did not come that far.

        Raises:
            WeightsError: the file is damaged.
        """
        if not path.exists():
            return None
        try:
            tree = read_json(path)
            return build(
                cls, {**tree, "attention": RENAMED_KERNELS.get(tree["attention"], tree["attention"])}
            )
        except (ValueError, KeyError, TypeError, ConfigError) as error:
            raise WeightsError(
                f"{path} is damaged: {error}", hint="start the training again with another --out"
            ) from error
