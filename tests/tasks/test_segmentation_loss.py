"""Losses of masks against their formulas, and windows over large images."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tesela.core.errors import ConfigError
from tesela.data.batch import Batch
from tesela.imaging.mask import IGNORE
from tesela.tasks.objective import Draw
from tesela.tasks.segmentation.config import SegmentationConfig
from tesela.tasks.segmentation.objective import MaskLoss, weights_of
from tesela.tasks.segmentation.windows import sliding_logits, window_starts


class Fixed(nn.Module):
    """Gives the same logits for everything."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor) -> Tensor:
        del images
        return self.logits


def loss_of(config: SegmentationConfig, weights: list[float] | None = None) -> tuple[float, Tensor, Tensor]:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5, 7)
    targets = torch.randint(0, 3, (2, 5, 7), dtype=torch.uint8)
    targets[0, 0] = IGNORE
    batch = Batch(torch.zeros(2, 3, 5, 7), targets, torch.arange(2))
    model = Fixed(logits)
    loss = MaskLoss(config, weights).loss(model, batch, Draw(0, 0))
    loss.value.backward()
    assert model.logits.grad is not None
    assert (model.logits.grad[0, :, 0] == 0).all(), "ignored pixels have a gradient"
    return float(loss.value.detach()), logits, targets.long()


def pixels(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities and classes of the pixels that count."""
    seen = targets != IGNORE
    return logits.log_softmax(1).movedim(1, 3)[seen], targets[seen]


def test_cross_entropy_is_the_mean_over_the_pixels_that_count() -> None:
    value, logits, targets = loss_of(SegmentationConfig())
    logs, wanted = pixels(logits, targets)
    assert value == pytest.approx(-float(logs.gather(1, wanted[:, None]).mean()))


def test_class_weights_make_a_weighted_mean() -> None:
    weights = [0.5, 2.0, 0.25]
    value, logits, targets = loss_of(SegmentationConfig(), weights)
    logs, wanted = pixels(logits, targets)
    each = torch.tensor(weights)[wanted]
    assert value == pytest.approx(-float((logs.gather(1, wanted[:, None])[:, 0] * each).sum() / each.sum()))


def test_focal_loss() -> None:
    value, logits, targets = loss_of(SegmentationConfig(cross_entropy=0, focal=1, focal_gamma=3))
    logs, wanted = pixels(logits, targets)
    log = logs.gather(1, wanted[:, None])[:, 0]
    assert value == pytest.approx(-float(((1 - log.exp()) ** 3 * log).mean()), rel=1e-5)


def test_dice_loss_and_sums() -> None:
    value, logits, targets = loss_of(SegmentationConfig(cross_entropy=0, dice=1))
    logs, wanted = pixels(logits, targets)
    one = F.one_hot(wanted, 3).float()
    dice = 2 * (logs.exp() * one).sum(0) / (logs.exp() + one).sum(0)
    assert value == pytest.approx(1 - float(dice.mean()), rel=1e-5)
    both, _, _ = loss_of(SegmentationConfig(cross_entropy=0.5, dice=2))
    assert both == pytest.approx(0.5 * loss_of(SegmentationConfig())[0] + 2 * value, rel=1e-5)


def test_a_batch_of_ignored_pixels_has_no_loss() -> None:
    batch = Batch(torch.zeros(1, 3, 4, 4), torch.full((1, 4, 4), IGNORE, dtype=torch.uint8), torch.arange(1))
    for config in (SegmentationConfig(), SegmentationConfig(dice=1, focal=1)):
        model = Fixed(torch.randn(1, 3, 4, 4))
        value = MaskLoss(config).loss(model, batch, Draw(0, 0)).value
        value.backward()
        assert float(value.detach()) == 0 and model.logits.grad is not None
        assert not model.logits.grad.any()


def test_weights_from_the_pixels_of_training() -> None:
    """Reference: the formulas of the papers; a class without pixels weighs 1 before scaling."""
    assert weights_of([1, 2, 3], "none") is None
    shares = np.array([100, 300, 600]) / 1000
    median = np.median(shares) / shares
    assert weights_of([100, 300, 600], "median") == pytest.approx((median / median.mean()).tolist())
    root = median**0.5
    assert weights_of([100, 300, 600], "sqrt") == pytest.approx((root / root.mean()).tolist())
    log = 1 / np.log(1.02 + shares)
    assert weights_of([100, 300, 600], "log") == pytest.approx((log / log.mean()).tolist())
    with pytest.raises(ConfigError, match="all losses have weight 0"):
        SegmentationConfig(cross_entropy=0)


# ---- windows


@pytest.mark.parametrize("size", [(20, 30), (8, 8), (5, 40), (33, 8)])
def test_windows_cover_everything_and_average(size: tuple[int, int]) -> None:
    """A pixelwise network gives through windows what it gives for the whole image; overlaps are averaged."""
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 1, 1)

    def compute(views: NDArray[np.float32]) -> NDArray[np.float32]:
        assert views.shape[1:] == (3, 8, 8)
        return F.conv2d(torch.from_numpy(views), weight).numpy()

    image = torch.randn(3, *size)
    found = sliding_logits(compute, image.numpy(), view=(8, 8), flip=True)
    np.testing.assert_allclose(found, F.conv2d(image[None], weight)[0].numpy(), rtol=1e-5, atol=1e-6)
    for length in range(1, 60):
        starts = window_starts(length, 8)
        assert starts[0] == 0 and (length <= 8 or starts[-1] == length - 8)
        assert all(after - before <= 4 for before, after in itertools.pairwise(starts))
