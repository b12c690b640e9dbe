"""The moving average against its recursion by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tesela.core.errors import ConfigError
from tesela.training.optim.ema import Ema, EmaConfig


def set_weights(model: nn.Module, step: int) -> None:
    """Other weights and buffers for every step."""
    generator = torch.Generator().manual_seed(step)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.randn(tensor.shape, generator=generator)


def test_average_follows_the_recursion_with_its_warm_up() -> None:
    """Reference: a = d a + (1 - d) w with d = min(decay, (1 + n) / (10 + n)), in float64.

    The first update copies. Buffers too.
    """
    model = nn.BatchNorm1d(3)
    ema = Ema(model, EmaConfig(decay=0.4))
    expected: dict[str, torch.Tensor] = {}
    for step in range(1, 9):
        set_weights(model, step)
        ema.update(model, step=step)
        decay = min(0.4, step / (9 + step))
        for name, value in model.state_dict().items():
            old = expected.get(name)
            expected[name] = (
                value.double().clone() if old is None else decay * old + (1 - decay) * value.double()
            )
    for name in ("weight", "bias", "running_mean", "running_var"):
        torch.testing.assert_close(
            ema.model.state_dict()[name].double(), expected[name], rtol=1e-5, atol=1e-6
        )


def test_state_goes_on_where_it_was() -> None:
    """Reference: the same updates without saving and loading in between, bit for bit."""
    model = nn.Linear(3, 2)
    whole, cut = Ema(model, EmaConfig(decay=0.9, every=2)), Ema(model, EmaConfig(decay=0.9, every=2))
    for step in range(1, 8):
        set_weights(model, step)
        whole.update(model, step=step)
        cut.update(model, step=step)
        if step == 4:
            fresh = Ema(nn.Linear(3, 2), EmaConfig(decay=0.9, every=2))
            fresh.load(cut.state())
            cut = fresh
    assert all(
        torch.equal(left, right)
        for left, right in zip(whole.model.parameters(), cut.model.parameters(), strict=True)
    )


def test_the_trained_model_is_left_alone() -> None:
    """The average is a copy."""
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    ema = Ema(model, EmaConfig(decay=0.9))
    ema.update(model, step=1)
    ema.update(model, step=2)
    assert torch.equal(model.weight, before)


def test_senseless_values_are_refused() -> None:
    """A decay of one never moves."""
    with pytest.raises(ConfigError, match=r"ema\.decay"):
        EmaConfig(decay=1.0)
