"""What autograd keeps, counted by hand."""

from __future__ import annotations

import torch
from torch import nn

from tesela.hardware.memory import kept_bytes


def test_kept_bytes_are_activations_once_each_without_weights() -> None:
    """The input and the ReLU's result, which serves two backward passes.

    The second weight is kept too, but is the model's.
    """
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    images = torch.randn(5, 8)
    assert kept_bytes(lambda: model(images), model) == 4 * 5 * (8 + 4)
