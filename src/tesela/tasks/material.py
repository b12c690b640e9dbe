"""Material of a report: everything that a run folder holds for it. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """Contents of a run folder, for its report.

    Attributes:
        path: the run folder.
        config: config.yaml.
        choices: choices.json.
        rows: metrics.jsonl.
        seconds: training time.
        scores: evaluation.json.
        arrays: predictions.npz.
        few_shot: few_shot.json.
        explanations: PNG files to show for the ``shown`` images, in their order.
    """

    path: Path
    config: dict[str, Any]
    choices: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    scores: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    few_shot: dict[str, Any] = field(default_factory=dict)
    explanations: list[bytes] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl of one kind."""
        return [row for row in self.rows if row.get("kind") == kind]
