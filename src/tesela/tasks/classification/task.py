"""Classification: one label per image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tesela.core.errors import DataError
from tesela.data.targets import LabelTargets
from tesela.metrics.probability import softmax
from tesela.tasks.classification.array_scorer import ArrayClassificationScorer
from tesela.tasks.classification.result import Prediction
from tesela.tasks.score import ranked
from tesela.tasks.task import ArrayScorer, Rows, Scorer, Task

if TYPE_CHECKING:
    from rich.console import RenderableType
    from torch import Tensor

    from tesela.data.batch import Batch
    from tesela.data.source import Source
    from tesela.data.targets import Targets
    from tesela.models.bundle import BundleInfo
    from tesela.page.section import Section
    from tesela.tasks.classification.config import ClassificationConfig
    from tesela.tasks.material import Material
    from tesela.tasks.objective import Objective

TOP = 5
MISTAKES = 24


class Classification(Task):
    """One label per image, by cross-entropy with hard or soft targets."""

    name = "classify"
    score = "accuracy"
    headline = ("accuracy", "top5", "majority")
    noun = "image classifier"
    pipeline_tag = "image-classification"
    curves = MappingProxyType({"accuracy": "Accuracy"})
    card_scores = MappingProxyType(
        {
            "accuracy": "accuracy",
            "majority": "accuracy of always naming the most frequent class",
            "top5": "top-5 accuracy",
            "ece": "expected calibration error",
            "nll": "negative log-likelihood",
        }
    )
    calibrates = lists_mistakes = True
    score_options = decode_options = frozenset({"top"})

    def suits(self, source: Source) -> bool:
        """Whether each image has one of several labels."""
        return len(source.labels) > 0 and source.masks is None

    def targets(self, source: Source) -> LabelTargets:
        """The stored labels.

        Raises:
            DataError: the source has masks in their place.
        """
        if source.masks is not None:
            raise DataError(
                f"{source.name} holds images and masks, which are for segmentation",
                hint="name that task, or none; classification needs a folder of class folders",
            )
        return LabelTargets(source.labels)

    def objective(self, config: ClassificationConfig, targets: Targets) -> Objective:
        """Cross-entropy, weighted where classes are unequal; with a teacher also what it says."""
        from tesela.tasks.classification.objective import CrossEntropy, class_weights

        counts = getattr(targets, "counts", None)
        weights = None if counts is None else class_weights(counts, config.balance)
        labels = CrossEntropy(label_smoothing=config.label_smoothing, weights=weights, counts=counts or ())
        if config.teacher is None:
            return labels
        from tesela.tasks.distillation.objective import Distillation
        from tesela.tasks.distillation.teacher import Teacher

        teacher = Teacher(config.teacher, targets.labels)
        return Distillation(config, labels, teacher, classes=len(targets.labels))

    def scorer(self, labels: Sequence[str], *, top: int = TOP) -> Scorer:
        """Accuracy, top-k, per-class scores, confusion and calibration."""
        from tesela.tasks.classification.scorer import ClassificationScorer

        return ClassificationScorer(labels, top=top)

    def array_scorer(self, info: BundleInfo, *, top: int = TOP) -> ArrayScorer:  # type: ignore[override]
        """The same scores, but for the loss."""
        return ArrayClassificationScorer(info.labels, top=top)

    def decode(  # type: ignore[override]  # takes what decode_options names
        self,
        outputs: NDArray[np.floating[Any]],
        info: BundleInfo,
        *,
        sizes: Sequence[tuple[int, int]] | None = None,
        top: int = TOP,
    ) -> Sequence[Prediction]:
        """The ``top`` most probable labels of each image, from logits (B, K)."""
        del sizes
        return [Prediction(scores=ranked(row, info.labels, top=top)) for row in softmax(outputs)]

    def probabilities(self, outputs: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Softmax of the logits."""
        return softmax(outputs)

    def unreadable(self) -> Prediction:
        """No scores."""
        return Prediction()

    def rows(self, batch: Batch, outputs: Tensor) -> Rows:
        """Probabilities (B, K) and true classes (B,)."""
        probabilities = outputs.double().softmax(1).float().cpu().numpy()
        return {"probabilities": probabilities, "targets": batch.targets.cpu().numpy().astype(np.int64)}

    def mistakes(self, rows: Rows, labels: Sequence[str]) -> Iterable[tuple[int, dict[str, Any]]]:
        """Label and prediction of each wrong one, with both probabilities."""
        for place in surest_mistakes(rows["probabilities"], rows["targets"], most=len(rows["targets"])):
            shares, true = rows["probabilities"][place], int(rows["targets"][place])
            predicted = int(shares.argmax())
            yield (
                int(place),
                {
                    "label": labels[true],
                    "predicted": labels[predicted],
                    "probability": f"{shares[predicted]:.4f}",
                    "probability_of_label": f"{shares[true]:.4f}",
                },
            )

    def pictures(self, rows: Rows, sample: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """The wrong predictions that the model was surest of."""
        del sample
        return {"mistakes": surest_mistakes(rows["probabilities"], rows["targets"])}

    def shown(self, rows: Rows, sample: NDArray[np.int64], *, most: int) -> NDArray[np.int64]:
        """Images of as many classes as there are."""
        return of_each_class(sample, rows["targets"], most=most)

    def lead(self, scores: Mapping[str, Any]) -> str:
        """How many images are labelled right."""
        from tesela.tasks.classification import sections  # charts and templates, which no prediction needs

        return sections.lead(scores)

    def tiles(self, scores: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
        """Accuracy, calibration, log loss, size."""
        from tesela.tasks.classification import sections

        return sections.score_tiles(scores)

    def sections(self, material: Material) -> list[Section]:
        """Classes, sample predictions, mistakes, explanations, calibration."""
        from tesela.tasks.classification import sections

        return sections.sections(material)

    def summary(self, scores: Mapping[str, Any], split: str) -> str:
        """Accuracy beside that of always naming the most frequent class."""
        line = super().summary(scores, split)
        majority = scores.get("majority")
        return f"{line} (most frequent class alone {majority:.4f})" if line and majority is not None else line

    def tables(self, scores: Mapping[str, Any], **options: Any) -> list[RenderableType]:
        """The scores that matter, the classes it does worst and the pairs it confuses."""
        from tesela.tasks.classification.tables import score_tables

        return score_tables(scores, top=options.get("top", TOP))


def surest_mistakes(
    probabilities: NDArray[Any], targets: NDArray[np.int64], *, most: int = MISTAKES
) -> NDArray[np.int64]:
    """Places of wrong predictions, the most probable first."""
    wrong = np.flatnonzero(probabilities.argmax(1) != targets)
    order = np.argsort(-probabilities[wrong].max(1), kind="stable") if len(wrong) else wrong
    return wrong[order][:most].astype(np.int64)


def of_each_class(places: NDArray[np.int64], targets: NDArray[np.int64], *, most: int) -> NDArray[np.int64]:
    """Up to ``most`` of ``places``, the classes taking turns."""
    turn: dict[int, int] = {}
    ranked_places = []
    for order, place in enumerate(places):
        label = int(targets[place])
        turn[label] = turn.get(label, 0) + 1
        ranked_places.append((turn[label], order, int(place)))
    return np.array([place for _, _, place in sorted(ranked_places)[:most]], dtype=np.int64)
