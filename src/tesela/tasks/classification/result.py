"""Result of a classifier: the most probable labels of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tesela.tasks.result import Result
from tesela.tasks.score import Score


@dataclass(frozen=True, kw_only=True)
class Prediction(Result):
    """The most probable labels of one image.

    Attributes:
        scores: at most ``top`` scores, the most probable first; empty where the image could not be read.
    """

    schema: ClassVar[dict[str, Any]] = {
        "label": "string",
        "index": "int64",
        "probability": "float64",
        "top": [{"label": "string", "index": "int64", "probability": "float64"}],
    }

    scores: tuple[Score, ...] = ()

    @property
    def best(self) -> Score | None:
        """The most probable label, None for an unreadable image."""
        return self.scores[0] if self.scores else None

    def answer(self) -> dict[str, Any]:
        """The best label with its index and probability, then all scores."""
        best = self.best
        return {
            "label": best.label if best else None,
            "index": best.index if best else None,
            "probability": best.probability if best else None,
            "top": [
                {"label": score.label, "index": score.index, "probability": score.probability}
                for score in self.scores
            ],
        }

    def cells(self) -> dict[str, str]:
        """Label, index and probability for each rank."""
        return {
            f"{name}_{rank}" if rank > 1 else name: text
            for rank, score in enumerate(self.scores, 1)
            for name, text in (
                ("label", score.label),
                ("index", str(score.index)),
                ("probability", repr(score.probability)),
            )
        }

    def text(self) -> str:
        """Labels with their probabilities."""
        return "  ".join(f"{score.label} {score.probability:.1%}" for score in self.scores)
