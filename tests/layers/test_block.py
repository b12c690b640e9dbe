"""Blocks against torch.nn.TransformerEncoderLayer with the same weights.

Stochastic depth against its definition.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import Dinov2Config
from transformers.models.dinov2.modeling_dinov2 import Dinov2SwiGLUFFN

from tesela.layers.attention.attention import Attention
from tesela.layers.block import Block, DropPath
from tesela.layers.initialise import initialise
from tesela.layers.mlp import ACTIVATIONS, Mlp, SwiGlu

PARTS = {
    "self_attn.in_proj_weight": "attention.qkv.weight",
    "self_attn.in_proj_bias": "attention.qkv.bias",
    "self_attn.out_proj.weight": "attention.out.weight",
    "self_attn.out_proj.bias": "attention.out.bias",
    "linear1.weight": "mlp.expand.weight",
    "linear1.bias": "mlp.expand.bias",
    "linear2.weight": "mlp.contract.weight",
    "linear2.bias": "mlp.contract.bias",
    **{f"norm{index}.{kind}": f"norm{index}.{kind}" for index in (1, 2) for kind in ("weight", "bias")},
}


def make(norm: str, activation: str) -> Block:
    block = Block(Attention(16, 4), Mlp(16, 40, activation=activation), width=16, norm=norm, norm_eps=1e-3)
    initialise(block)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return block.eval()


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_equals_the_encoder_layer_of_torch(norm: str, activation: str) -> None:
    ours = make(norm, activation)
    theirs = nn.TransformerEncoderLayer(
        16,
        4,
        40,
        dropout=0.0,
        activation=activation,
        layer_norm_eps=1e-3,
        batch_first=True,
        norm_first=norm == "pre",
    )
    state = ours.state_dict()
    theirs.load_state_dict({name: state[own] for name, own in PARTS.items()})
    tokens = torch.randn(3, 9, 16)
    torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=1e-5, atol=1e-5)


def test_activations_against_their_formulas() -> None:
    values = torch.linspace(-4, 4, 33, dtype=torch.float64)
    tanh = 0.5 * values * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (values + 0.044715 * values**3)))
    torch.testing.assert_close(ACTIVATIONS["gelu"](values), values * 0.5 * (1 + torch.erf(values / 2**0.5)))
    torch.testing.assert_close(ACTIVATIONS["gelu_tanh"](values), tanh)
    torch.testing.assert_close(ACTIVATIONS["relu"](values), values.clamp_min(0))


def test_mlp_drops_after_each_dense_layer() -> None:
    """With all weights one and biases zero, an output is 4 times the number of kept hidden units, or zero."""
    mlp = Mlp(1, 8, activation="relu", dropout=0.5)
    with torch.no_grad():
        for name, parameter in mlp.named_parameters():
            parameter.fill_(float("weight" in name))
    torch.manual_seed(0)
    out = mlp.train()(torch.ones(4000, 1, 1)).flatten()
    kept = out[out > 0] / 4
    assert (out == 0).float().mean().item() == pytest.approx(0.5 + 0.5 * 0.5**8, abs=0.03)
    assert {2.0, 3.0, 4.0, 5.0, 6.0} <= set(kept.unique().tolist()) <= set(
        range(1, 9)
    ) and kept.mean().item() == pytest.approx(4, abs=0.1)


def test_gated_mlp_equals_that_of_dinov2() -> None:
    """Reference: transformers; both halves come from one layer, the gate first."""
    theirs = Dinov2SwiGLUFFN(Dinov2Config(hidden_size=12, mlp_ratio=4))
    hidden = theirs.down_proj.in_features
    ours = SwiGlu(12, hidden)
    initialise(ours, torch.Generator().manual_seed(0))
    for kind in ("weight", "bias"):
        gate, value = getattr(ours.expand, kind).chunk(2)
        theirs.load_state_dict({f"gate_proj.{kind}": gate, f"up_proj.{kind}": value}, strict=False)
    theirs.down_proj.load_state_dict(ours.contract.state_dict())
    tokens = torch.randn(2, 5, 12)
    torch.testing.assert_close(ours(tokens), theirs(tokens))
    bound = (6 / (12 + hidden)) ** 0.5
    assert 0.9 * bound < ours.expand.weight.abs().max() <= bound


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_layer_scale_multiplies_each_branch(norm: str) -> None:
    """Factors in the weights of the branches' last layers instead: the same result."""
    plain = make(norm, "gelu")
    scaled: Any = Block(Attention(16, 4), Mlp(16, 40), width=16, norm=norm, norm_eps=1e-3, layer_scale=0.1)
    initialise(scaled)
    factors = [scaled.scale1.gamma, scaled.scale2.gamma]
    assert all(torch.equal(gamma, torch.full((16,), 0.1)) for gamma in factors)
    scaled.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        for gamma, last in zip(factors, (plain.attention.out, plain.mlp.contract), strict=True):
            gamma.normal_()
            last.weight.mul_(gamma[:, None]), last.bias.mul_(gamma)
    tokens = torch.randn(3, 9, 16)
    torch.testing.assert_close(scaled.eval()(tokens), plain(tokens), rtol=1e-5, atol=1e-5)


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.25)
    branch = torch.ones(4000, 3, 2)
    out = drop.train()(branch)
    assert torch.equal(out, out[:, :1, :1].expand_as(out))
    assert sorted(out.unique().tolist()) == pytest.approx([0.0, 1 / 0.75])
    assert out.mean().item() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(drop.eval()(branch), branch)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_block_whose_branches_are_dropped(norm: str) -> None:
    """Rate almost one: pre-norm leaves the tokens as they are, post-norm normalises them twice."""
    block = make(norm, "gelu")
    block.drop_path = DropPath(1 - 1e-9)
    tokens = torch.randn(4, 5, 16)
    expected = tokens if norm == "pre" else block.norm2(block.norm1(tokens))
    torch.testing.assert_close(block.train()(tokens), expected)
