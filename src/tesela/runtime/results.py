"""What a prediction is: the most probable labels of one image, or why there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tesela.core.errors import ImageError

#: The one code that is added to ``tesela.imaging.decode.CODES``: the model resizes nothing and the image has another size.
WRONG_SIZE = "wrong_size"


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One label with its probability.

    Attributes:
        label: the class's name.
        index: its place among the model's labels.
        probability: softmax of the logits, between 0 and 1.
    """

    label: str
    index: int
    probability: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why an image has no scores; ``code`` is one of ``tesela.imaging.decode.CODES`` or WRONG_SIZE."""

    code: str
    message: str
    hint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """The result for one image: scores from the most probable down, or a failure.

    Attributes:
        source: the image's path or name.
        scores: at most ``top`` scores; empty where the image could not be read.
        failure: why there are no scores, else None.
    """

    source: str
    scores: tuple[Score, ...] = ()
    failure: Failure | None = None

    @property
    def best(self) -> Score | None:
        """The most probable label, None for an unreadable image."""
        return self.scores[0] if self.scores else None

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON: image, label, index, probability, top and error."""
        best = self.best
        return {
            "image": self.source,
            "label": best.label if best else None,
            "index": best.index if best else None,
            "probability": best.probability if best else None,
            "top": [
                {"label": score.label, "index": score.index, "probability": score.probability}
                for score in self.scores
            ],
            "error": {"code": self.failure.code, "message": self.failure.message, "hint": self.failure.hint}
            if self.failure
            else None,
        }


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities (B, K) in float64, which costs nothing here and keeps the sum at 1."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    scaled: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return scaled


def ranked(probabilities: NDArray[np.float64], labels: Sequence[str], *, top: int) -> tuple[Score, ...]:
    """The ``top`` most probable labels of one image (K,); equal ones by index, lower first."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    return tuple(
        Score(label=labels[index], index=int(index), probability=float(probabilities[index]))
        for index in order
    )


def failure_of(error: ImageError) -> Failure:
    """The failure that an image error amounts to."""
    return Failure(code=error.code, message=error.message, hint=error.hint)
