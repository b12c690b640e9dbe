"""Classification scores against scikit-learn, torchmetrics, SciPy and loops written out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from tesela.metrics.classification import (
    ClassificationScores,
    confusion_matrix,
    most_confused,
    per_class,
    true_ranks,
    wilson_interval,
)


def classification_scores(
    probabilities: np.ndarray, targets: np.ndarray, labels: list[str], *, batch: int = 64
) -> dict[str, Any]:
    """Scores counted batch by batch."""
    scores = ClassificationScores(labels)
    for start in range(0, len(targets), batch):
        scores.update(probabilities[start : start + batch], targets[start : start + batch])
    return scores.result()


def top_k_accuracy(probabilities: np.ndarray, targets: np.ndarray, *, k: int) -> float:
    return float((true_ranks(probabilities, targets) < k).mean())


LABELS = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu"]


def random_case(seed: int, *, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with some truth in them, and targets."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, len(LABELS), count)
    logits = generator.normal(0, 1, (count, len(LABELS)))
    logits[np.arange(count), targets] += 1.0
    return softmax(logits, axis=1), targets


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_scikit_learn(seed: int) -> None:
    """Reference: scikit-learn's accuracy, balanced accuracy, confusion matrix, precision/recall/F1, top-k."""
    from sklearn import metrics

    probabilities, targets = random_case(seed)
    predicted = probabilities.argmax(1)
    scores = classification_scores(probabilities, targets, LABELS)
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(targets, predicted), abs=1e-15)
    assert scores["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(targets, predicted))
    assert scores["macro_f1"] == pytest.approx(metrics.f1_score(targets, predicted, average="macro"))
    assert scores["confusion"] == metrics.confusion_matrix(targets, predicted).tolist()
    reference = metrics.precision_recall_fscore_support(targets, predicted)
    for name, values in zip(("precision", "recall", "f1", "support"), reference, strict=True):
        assert [row[name] for row in scores["per_class"]] == pytest.approx(list(values))
    for k in (1, 2, 5):
        assert top_k_accuracy(probabilities, targets, k=k) == pytest.approx(
            metrics.top_k_accuracy_score(targets, probabilities, k=k)
        )
    assert scores["top5"] == top_k_accuracy(probabilities, targets, k=5)


def test_scores_equal_torchmetrics() -> None:
    """Reference: torchmetrics' multi-class functional metrics."""
    import torch
    from torchmetrics.functional.classification import (
        multiclass_accuracy,
        multiclass_confusion_matrix,
        multiclass_f1_score,
    )

    probabilities, targets = random_case(11)
    scores = classification_scores(probabilities, targets, LABELS)
    tensors = torch.from_numpy(probabilities), torch.from_numpy(targets)
    classes = len(LABELS)
    assert scores["accuracy"] == pytest.approx(
        float(multiclass_accuracy(*tensors, num_classes=classes, average="micro"))
    )
    assert scores["top5"] == pytest.approx(
        float(multiclass_accuracy(*tensors, num_classes=classes, average="micro", top_k=5))
    )
    assert [row["f1"] for row in scores["per_class"]] == pytest.approx(
        multiclass_f1_score(*tensors, num_classes=classes, average="none").tolist()
    )
    assert scores["confusion"] == multiclass_confusion_matrix(*tensors, num_classes=classes).tolist()


def test_ties_rank_by_class_number() -> None:
    """Reference: three equal probabilities counted by hand: class 0 is first, class 2 third."""
    probabilities = np.full((3, 3), 1 / 3)
    assert [top_k_accuracy(probabilities, np.arange(3), k=k) for k in (1, 2, 3)] == pytest.approx(
        [1 / 3, 2 / 3, 1.0]
    )


def test_undefined_scores_are_none() -> None:
    """Reference: a confusion matrix by hand.

    "bee" is never predicted, "cat" has no images, "dog" has neither.
    """
    confusion = np.array([[3, 0, 1, 0], [2, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    ant, bee, cat, dog = per_class(confusion, LABELS[:4])
    assert ant == {"label": "ant", "precision": 3 / 5, "recall": 3 / 4, "f1": 6 / 9, "support": 4}
    assert (bee["precision"], bee["recall"], bee["f1"]) == (None, 0.0, 0.0)
    assert (cat["precision"], cat["recall"], cat["f1"]) == (0.0, None, 0.0)
    assert (dog["precision"], dog["recall"], dog["f1"]) == (None, None, None)


def test_averages_leave_out_classes_without_images() -> None:
    """Reference: by hand: recalls 1 and 1/2 of the two classes present."""
    probabilities = np.eye(7)[[0, 1, 0]]
    scores = classification_scores(probabilities, np.array([0, 1, 1]), LABELS)
    assert scores["balanced_accuracy"] == pytest.approx(0.75)
    assert scores["macro_f1"] == pytest.approx(2 / 3)


def test_most_confused_by_hand() -> None:
    """Reference: a matrix with three kinds of mistakes; equal counts keep the order of the classes."""
    confusion = np.array([[5, 1, 0], [4, 6, 0], [1, 0, 2]])
    assert most_confused(confusion, ["a", "b", "c"], most=2) == [
        {"true": "b", "predicted": "a", "count": 4, "share": 0.4},
        {"true": "a", "predicted": "b", "count": 1, "share": pytest.approx(1 / 6)},
    ]
    assert len(most_confused(confusion, ["a", "b", "c"])) == 3


def test_confusion_matrix_counts_pairs() -> None:
    """Reference: a loop over the pairs."""
    generator = np.random.default_rng(0)
    targets, predicted = generator.integers(0, 5, (2, 300))
    expected = [[0] * 6 for _ in range(6)]
    for true, guess in zip(targets, predicted, strict=True):
        expected[true][guess] += 1
    assert confusion_matrix(targets, predicted, classes=6).tolist() == expected


@pytest.mark.parametrize(("right", "total"), [(0, 10), (10, 10), (355, 360), (1, 2)])
def test_interval_equals_scipy(right: int, total: int) -> None:
    """Reference: scipy.stats.binomtest(...).proportion_ci(method="wilson")."""
    from scipy.stats import binomtest

    reference = binomtest(right, total).proportion_ci(method="wilson")
    assert wilson_interval(right, total) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_scores_are_plain_json() -> None:
    """Reference: the JSON module takes them and gives the same back."""
    scores = classification_scores(*random_case(2), LABELS)
    assert json.loads(json.dumps(scores)) == scores


def test_batches_order_and_ranks_change_no_bit() -> None:
    """Reference: all images at once; then other batches, in reverse, and halves that are merged."""
    probabilities, targets = random_case(4, count=500)
    whole = classification_scores(probabilities, targets, LABELS, batch=500)
    assert classification_scores(probabilities, targets, LABELS, batch=7) == whole
    assert classification_scores(probabilities[::-1], targets[::-1], LABELS, batch=33) == whole
    halves = ClassificationScores(LABELS), ClassificationScores(LABELS)
    for half, rows in zip(halves, (slice(0, 123), slice(123, 500)), strict=True):
        half.update(probabilities[rows], targets[rows])
    halves[1].merge(halves[0])
    assert halves[1].result() == whole
