"""Where a NaN comes from is told by the first tensor that holds one."""

from __future__ import annotations

import torch
from tests.batches import batch_of
from torch import nn

from tesela.training.divergence import diverged, first_culprit

NAN = float("nan")


class Overflow(nn.Module):
    """Puts out infinity although its input and weights are fine."""

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Infinity."""
        return value / 0.0


def network() -> nn.Sequential:
    """Two linear layers."""
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))


def test_the_first_culprit_is_named() -> None:
    """Reference: the place where the test put it."""
    images, targets = torch.ones(2, 3), torch.tensor([0, 1])
    broken = network()
    nn.init.constant_(list(broken.parameters())[2], NAN)
    assert first_culprit(network(), batch_of(images * NAN, targets)) == "the input images"
    assert first_culprit(network(), batch_of(images, torch.tensor([[NAN, 1.0]] * 2))) == "the targets"
    assert first_culprit(broken, batch_of(images, targets)) == "the parameter 1.weight"
    assert (
        first_culprit(nn.Sequential(nn.Linear(3, 3), Overflow(), nn.Linear(3, 2)), batch_of(images, targets))
        == "the output of layer 1"
    )
    assert first_culprit(network(), batch_of(images, targets)) == "the loss itself"


def test_the_message_has_step_rate_and_what_is_kept() -> None:
    """cause and cure in two lines."""
    error = diverged(NAN, step=7, epoch=1, lr=0.5, culprit="the logits", saved=5)
    assert error.message.startswith("the loss became nan at step 7 (epoch 1, learning rate 0.5)")
    assert error.message.endswith("the checkpoint of step 5 is kept")
    assert "--optim.lr" in error.hint
    assert error.exit_code == 1
