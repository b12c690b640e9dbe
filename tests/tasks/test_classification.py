"""Cross-entropy against its definition, written out in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tesela.data.batch import Batch
from tesela.tasks.catalog import find_task
from tesela.tasks.classification.objective import CrossEntropy
from tesela.tasks.classification.scorer import ClassificationScorer
from tesela.tasks.classification.task import Classification
from tesela.tasks.objective import Draw


class Fixed(nn.Module):
    """Gives the logits it was made with, row by row."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor) -> Tensor:
        """The rows that the images name."""
        return self.logits[images.long()]


def by_hand(logits: Tensor, probabilities: Tensor, smoothing: float) -> float:
    """Mean of -sum q log p with q smoothed towards uniform."""
    q = (1 - smoothing) * probabilities + smoothing / probabilities.shape[1]
    p = logits.double().exp() / logits.double().exp().sum(1, keepdim=True)
    return float(-(q.double() * p.log()).sum(1).mean())


def batch_of(images: Tensor, targets: Tensor) -> Batch:
    return Batch(images=images, targets=targets, indices=images)


LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 3, 1, 1, 2, 0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_with_class_numbers_and_with_probabilities(smoothing: float) -> None:
    """Reference: the definition; one-hot probabilities give what class numbers give."""
    objective, model = CrossEntropy(label_smoothing=smoothing), Fixed(LOGITS)
    one_hot = torch.eye(4)[LABELS]
    soft = 0.7 * one_hot + 0.3 * one_hot.flip(0)
    for targets, probabilities in ((LABELS, one_hot), (one_hot, one_hot), (soft, soft)):
        loss = objective.loss(model, batch_of(torch.arange(6), targets), Draw(0, 0))
        assert float(loss.value.detach()) == pytest.approx(
            by_hand(LOGITS, probabilities, smoothing), rel=1e-5
        )
    right = sum(int(row.argmax()) == int(label) for row, label in zip(LOGITS, LABELS, strict=True))
    found = objective.loss(model, batch_of(torch.arange(6), LABELS), Draw(0, 0))
    assert float(found.logs["accuracy"]) == pytest.approx(right / 6)


def test_validation_is_over_all_images_whatever_the_batches_and_without_smoothing() -> None:
    """Reference: the definition over all rows at once; soft targets count as their most probable class."""
    whole = ClassificationScorer(list("abcd"), top=5)
    whole.update(batch_of(torch.arange(6), torch.eye(4)[LABELS]), LOGITS)
    parts = ClassificationScorer(list("abcd"), top=5), ClassificationScorer(list("abcd"), top=5)
    parts[0].update(batch_of(torch.arange(4), LABELS[:4]), LOGITS[:4])
    parts[1].update(batch_of(torch.arange(4, 6), LABELS[4:]), LOGITS[4:])
    parts[0].merge(parts[1])
    for scorer in (whole, parts[0]):
        found = scorer.validation()
        assert found["loss"] == pytest.approx(by_hand(LOGITS, torch.eye(4)[LABELS], 0.0), rel=1e-5)
        assert found["accuracy"] == pytest.approx(float((LOGITS.argmax(1) == LABELS).double().mean()))
    assert whole.result() == parts[0].result()


def test_the_table_of_tasks_knows_it() -> None:
    """Training looks tasks up by name."""
    assert isinstance(find_task("classify"), Classification)
