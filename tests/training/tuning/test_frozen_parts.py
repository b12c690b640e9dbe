"""Frozen parts: what they cost, their statistics, unfreezing, and learning rates by layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.batches import batch_of
from tests.training.tuning.test_tuning import (
    Statistics,
    make_model,
)

from tesela.hardware.memory import activation_bytes, state_bytes
from tesela.layers.lora_config import LoraConfig
from tesela.tasks.classification.objective import CrossEntropy
from tesela.tasks.objective import Draw
from tesela.training.optim.optimizer import OptimConfig, build_optimizers, layer_factors
from tesela.training.tuning.tuning import Tuning, adapt


def test_the_schedule_of_unfreezing() -> None:
    """Reference: by hand; four groups, one more every two epochs."""
    model = make_model()
    tuning = Tuning(model, "all", unfreeze=2.0)
    counts = [
        len({name.split(".")[2] for name in tuning.active(epoch) if ".blocks." in name}) for epoch in range(8)
    ]
    assert counts == [0, 0, 1, 1, 2, 2, 2, 2]
    assert not any(name.startswith("backbone.patches") for name in tuning.active(5))
    assert tuning.active(6) == tuning.trainable == {name for name, _ in model.named_parameters()}


def test_frozen_parts_cost_no_memory_and_no_gradient() -> None:
    """Autograd keeps next to nothing of a frozen body, and no gradient or optimizer state is made for it."""
    images, targets = torch.randn(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64)
    needed, states = {}, {}
    for mode in ("all", "lora", "bias", "head"):
        model = make_model()
        if mode == "lora":
            adapt(model, LoraConfig(rank=2), seed=0)
        tuning = Tuning(model, mode)
        tuning.train(model)
        needed[mode], states[mode] = (
            activation_bytes(
                model,
                lambda trial: CrossEntropy().loss(trial, batch_of(images, targets), Draw(0, 0)),
                images=4,
            ),
            state_bytes(model, ema=False),
        )
        CrossEntropy().loss(model, batch_of(images, targets), Draw(0, 0)).value.backward()
        assert {
            name for name, parameter in model.named_parameters() if parameter.grad is not None
        } <= tuning.trainable
        optimizers = build_optimizers(model, OptimConfig())
        assert sum(
            p.numel() for part in optimizers.parts for g in part.param_groups for p in g["params"]
        ) == tuning.count(model)
    assert needed["head"] <= 4 * (16 + 3 + 3) + 16
    assert needed["head"] < needed["bias"] < needed["all"]
    assert states["head"] == 3 * 4 * 17 * 3
    assert states["lora"] < states["all"]


@pytest.mark.parametrize(("mode", "frozen"), [("head", True), ("bias", True), ("all", False)])
def test_statistics_of_a_frozen_norm_stay(mode: str, frozen: bool) -> None:
    """Running mean and count before and after a forward pass in training.

    With a frozen body two passes are equal.
    """
    model = Statistics()
    tuning = Tuning(model, mode)
    tuning.enter(model, 0)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    images = torch.randn(16, 1, 8, 8)
    first, second = model(images), model(images)
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers()) == frozen
    assert torch.equal(first, second) == (mode == "head")
    assert ("body.2.running_mean" in tuning.changing) == (mode != "head")


def test_measuring_activations_leaves_statistics_alone() -> None:
    """A fresh and a resumed process must begin with the same running mean."""
    model: Any = Statistics()
    images, targets = torch.randn(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64)
    activation_bytes(
        model, lambda trial: CrossEntropy().loss(trial, batch_of(images, targets), Draw(0, 0)), images=4
    )
    assert torch.equal(model.body[2].running_mean, torch.zeros(8))


def test_layers_take_their_share_of_the_rate() -> None:
    """Reference: the rule of arXiv 2106.08254: 0.75 once for each group above.

    Two blocks, so stem 0.75^3 and head 1.
    """
    model = make_model()
    factors = layer_factors(model, 0.75)
    assert (factors["backbone.patches.weight"], factors["backbone.blocks.0.norm1.bias"]) == (0.75**3, 0.75**2)
    assert (
        factors["backbone.blocks.1.attention.qkv.weight"],
        factors["backbone.norm.weight"],
        factors["head.linear.weight"],
    ) == (0.75, 1.0, 1.0)
    for name in ("adamw", "sgd", "muon"):
        optimizers = build_optimizers(model, OptimConfig(name=name, lr=0.1, layer_decay=0.75))
        assert optimizers.set_lr(0.5) == pytest.approx(0.05)
        rates = {id(p): g["lr"] for part in optimizers.parts for g in part.param_groups for p in g["params"]}
        for parameter_name, parameter in model.named_parameters():
            assert rates[id(parameter)] == pytest.approx(0.05 * factors[parameter_name])
        decays = {
            id(p): g["weight_decay"]
            for part in optimizers.parts
            for g in part.param_groups
            for p in g["params"]
        }
        assert decays[id(model.backbone.blocks[0].norm1.bias)] == 0
        assert decays[id(model.backbone.blocks[0].attention.qkv.weight)] == 0.05
