"""Start values against the distributions of the paper's JAX code: bounds, deviations, zeros."""

from __future__ import annotations

import math

import pytest
import torch

from tesela.models.factory import create_model

MODEL = create_model("vit_lite7_p4", num_classes=10, seed=0, width=192, head="mlp", registers=2)
STATE = MODEL.state_dict()


def test_dense_layers_are_xavier_uniform_each_projection_on_its_own() -> None:
    """Uniform in +-b has deviation b / sqrt(3); b = sqrt(6 / (in + out)) with the fans of one of q, k, v."""
    shapes = {
        "attention.qkv": (192, 192),
        "attention.out": (192, 192),
        "mlp.expand": (192, 384),
        "mlp.contract": (384, 192),
    }
    for name, (fan_in, fan_out) in shapes.items():
        weight, bound = STATE[f"backbone.blocks.3.{name}.weight"], math.sqrt(6 / (fan_in + fan_out))
        assert weight.abs().max().item() == pytest.approx(bound, rel=1e-2) and weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=2e-2)


def test_biases() -> None:
    for name in ("attention.qkv", "attention.out"):
        assert not STATE[f"backbone.blocks.0.{name}.bias"].any()
    for name in ("mlp.expand", "mlp.contract"):
        assert STATE[f"backbone.blocks.0.{name}.bias"].std().item() == pytest.approx(1e-6, rel=0.3)
    assert not STATE["backbone.patches.bias"].any()


@pytest.mark.parametrize(("name", "fan_in"), [("backbone.patches.weight", 48), ("head.hidden.weight", 192)])
def test_lecun_normal(name: str, fan_in: int) -> None:
    """Variance 1 / fan_in after the cut at two deviations of the uncut normal."""
    deviation = math.sqrt(1 / fan_in)
    assert STATE[name].std().item() == pytest.approx(deviation, rel=3e-2)
    assert STATE[name].abs().max().item() <= 2 * deviation / 0.8796 + 1e-6


def test_tokens_positions_norms_and_head() -> None:
    assert STATE["backbone.positions.table"].std().item() == pytest.approx(0.02, rel=5e-2)
    assert (
        not STATE["backbone.prefix.class_token"].any()
        and STATE["backbone.prefix.registers"].abs().max() < 1e-5
    )
    assert (
        torch.equal(STATE["backbone.norm.weight"], torch.ones(192)) and not STATE["backbone.norm.bias"].any()
    )
    assert not STATE["head.linear.weight"].any() and not STATE["head.linear.bias"].any()
