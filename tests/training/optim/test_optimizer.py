"""Optimizers against hand-written update rules, and weight decay where it belongs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tesela.core.errors import ConfigError
from tesela.training.optim.optimizer import OptimConfig, build_optimizers, no_decay_names


class Small(nn.Module):
    """A matrix, a bias, a norm and a table that asks to be left out of decay."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.body = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)
        self.positions = nn.Parameter(torch.zeros(3, 4))
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
            parameter.grad = torch.randn(parameter.shape, generator=generator)

    def no_decay(self) -> set[str]:
        """The table."""
        return {"positions"}

    def head_names(self) -> set[str]:
        """The last layer."""
        return {"head.weight", "head.bias"}


SPARED = {"body.bias", "norm.weight", "norm.bias", "head.bias", "positions"}


def test_biases_norms_and_named_tables_are_spared() -> None:
    """Reference: the list by hand."""
    assert no_decay_names(Small()) == SPARED


def test_adamw_follows_the_papers_rule() -> None:
    """Reference: algorithm 2 of arXiv 1711.05101, two steps by hand in float64."""
    model = Small()
    before = {
        name: (p.detach().double(), p.grad.double())
        for name, p in model.named_parameters()
        if p.grad is not None
    }
    optimizers = build_optimizers(
        model, OptimConfig(lr=0.01, weight_decay=0.1, beta1=0.8, beta2=0.95, eps=1e-6)
    )
    for factor in (1.0, 0.5):
        optimizers.set_lr(factor)
        for part in optimizers.parts:
            part.step()
    for name, parameter in model.named_parameters():
        value, grad = before[name]
        first = second = torch.zeros_like(value)
        for step, lr in ((1, 0.01), (2, 0.005)):
            value = value * (1 - lr * (0.0 if name in SPARED else 0.1))
            first, second = 0.8 * first + 0.2 * grad, 0.95 * second + 0.05 * grad**2
            value = value - lr * (first / (1 - 0.8**step)) / ((second / (1 - 0.95**step)).sqrt() + 1e-6)
        torch.testing.assert_close(parameter.detach().double(), value, rtol=1e-5, atol=1e-6, msg=name)


def test_sgd_follows_the_momentum_rule() -> None:
    """Reference: v = m v + g + wd w; w = w - lr v, two steps by hand."""
    model = Small()
    weight, grad = model.body.weight.detach().double(), model.body.weight.grad.double()  # type: ignore[union-attr]
    optimizers = build_optimizers(model, OptimConfig(name="sgd", lr=0.1, weight_decay=0.01, momentum=0.9))
    velocity = torch.zeros_like(weight)
    for _ in range(2):
        velocity = 0.9 * velocity + grad + 0.01 * weight
        weight = weight - 0.1 * velocity
        optimizers.parts[0].step()
    torch.testing.assert_close(model.body.weight.detach().double(), weight, rtol=1e-5, atol=1e-6)


def test_muon_takes_inner_matrices_only_and_its_update_is_nearly_orthogonal() -> None:
    """Reference: the step of a square matrix has singular values near lr * 0.2 * sqrt(n)
    (match_rms_adamw), the rest is AdamW's."""
    model = Small()
    before = model.body.weight.detach().clone()
    optimizers = build_optimizers(model, OptimConfig(name="muon", lr=0.01, weight_decay=0.0))
    counts = [sum(len(group["params"]) for group in part.param_groups) for part in optimizers.parts]
    assert counts == [1, 6]
    assert optimizers.parts[0].param_groups[0]["params"][0] is model.body.weight
    optimizers.parts[0].step()
    singular = torch.linalg.svdvals((before - model.body.weight.detach()) / (0.01 * 0.2 * 4**0.5))
    assert float(singular.min()) > 0.4
    assert float(singular.max()) < 1.4


def test_state_goes_on_where_it_was() -> None:
    """Reference: three steps in one go against two, a state saved and loaded, and one more."""
    whole, cut = Small(), Small()
    optimizers = build_optimizers(whole, OptimConfig(name="muon"))
    for _ in range(3):
        for part in optimizers.parts:
            part.step()
    first = build_optimizers(cut, OptimConfig(name="muon"))
    for _ in range(2):
        for part in first.parts:
            part.step()
    second = build_optimizers(cut, OptimConfig(name="muon"))
    second.load(first.state())
    for part in second.parts:
        part.step()
    for left, right in zip(whole.parameters(), cut.parameters(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("values", [{"lr": 0.0}, {"weight_decay": -1.0}, {"beta2": 1.0}, {"nesterov": True}])
def test_senseless_values_are_refused(values: dict[str, float]) -> None:
    """A value out of range names the field."""
    with pytest.raises(ConfigError, match=next(iter(values))):
        OptimConfig(**values)  # type: ignore[arg-type]
