"""Attention within windows against full attention with a mask, written out in float64, and against
transformers' Swin layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.layers.test_windows import sees
from torch import Tensor
from transformers import SwinConfig
from transformers.models.swin.modeling_swin import SwinLayer

from tesela.layers.attention.attention import set_attention_kernel
from tesela.layers.attention.grid_attention import GridAttention
from tesela.layers.attention.kernels import KERNELS
from tesela.layers.attention.window_plan import WindowPlan
from tesela.layers.block import Block
from tesela.layers.grid import Grid
from tesela.layers.initialise import initialise
from tesela.layers.mlp import Mlp
from tesela.layers.position.rotary import Rotation
from tesela.layers.token_layout import TokenLayout
from tesela.layers.trace import Trace

SHAPES = {
    "rows": WindowPlan("rows"),
    "columns": WindowPlan("columns"),
    "windows": WindowPlan("windows", 3),
    "shifted windows": WindowPlan("windows", 3, shifted=True),
    "even shifted windows": WindowPlan("windows", 4, shifted=True),
}


def make(windows: WindowPlan, grid: Grid, **options: Any) -> GridAttention:
    attention = GridAttention(8, 2, windows=windows, grid=grid, **options)
    initialise(attention, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return attention.eval()


def masked(attention: GridAttention, tokens: Tensor, grid: Grid, prefix: int) -> Tensor:
    """Full attention in float64; who sees whom is asked pair by pair."""
    inner = tokens.double() @ attention.qkv.weight.double().T + attention.qkv.bias.double()
    q, k, v = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in inner.chunk(3, dim=2))
    logits = q @ k.mT / 2
    count = grid[0] * grid[1]
    for one in range(count):
        for other in range(count):
            if not sees(attention.windows, grid, one, other):
                logits[:, :, prefix + one, prefix + other] = -torch.inf
            elif attention.relative is not None:
                for axis, table in ((0, attention.relative.rows), (1, attention.relative.columns)):
                    if table is not None:
                        offset = divmod(other, grid[1])[axis] - divmod(one, grid[1])[axis]
                        known = table[:, offset + table.shape[1] // 2].double()
                        logits[:, :, prefix + one, prefix + other] += (q[:, :, prefix + one] * known).sum(
                            -1
                        ) / 2
    mixed = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
    result: Tensor = mixed @ attention.out.weight.double().T + attention.out.bias.double()
    return result


@pytest.mark.parametrize("relative", [False, True], ids=["content", "relative"])
@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("grid", [(4, 6), (5, 7), (2, 9)])
@pytest.mark.parametrize("name", SHAPES)
def test_equals_full_attention_with_a_mask(name: str, grid: Grid, prefix: int, relative: bool) -> None:
    """Every kernel, padded grids, with prefix tokens that see all and are seen by all."""
    attention = make(SHAPES[name], grid, relative=relative)
    tokens = torch.randn(2, prefix + grid[0] * grid[1], 8)
    expected = masked(attention, tokens, grid, prefix)
    for kernel in KERNELS:
        set_attention_kernel(attention, kernel)
        torch.testing.assert_close(
            attention(tokens, layout=TokenLayout(grid, prefix)).double(), expected, rtol=1e-4, atol=1e-5
        )
    trace = Trace()
    attention(tokens, layout=TokenLayout(grid, prefix), trace=trace.inside("x"))
    dense = trace.attentions["x"].dense()
    torch.testing.assert_close(dense.sum(-1), torch.ones(dense.shape[:3]))
    torch.testing.assert_close(
        dense @ trace.attentions["x"].v, trace.attentions["x"].out, rtol=1e-4, atol=1e-5
    )
    hidden = [
        (one, other)
        for one in range(grid[0] * grid[1])
        for other in range(grid[0] * grid[1])
        if not sees(attention.windows, grid, one, other)
    ]
    assert all(dense[:, :, prefix + one, prefix + other].eq(0).all() for one, other in hidden)
    if prefix:
        torch.testing.assert_close(
            attention(tokens, first=1, layout=TokenLayout(grid, prefix)).double(),
            expected[:, :1],
            rtol=1e-4,
            atol=1e-5,
        )


@pytest.mark.parametrize("name", SHAPES)
def test_gradients_equal_those_of_the_mask(name: str) -> None:
    attention, tokens = make(SHAPES[name], (5, 7), relative=True), torch.randn(2, 36, 8)
    push = torch.randn(2, 36, 8)
    parameters = list(attention.parameters())
    found = torch.autograd.grad((attention(tokens, layout=TokenLayout((5, 7), 1)) * push).sum(), parameters)
    expected = torch.autograd.grad((masked(attention, tokens, (5, 7), 1) * push).sum(), parameters)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_axial_attention_with_rotary_positions_turns_before_it_cuts() -> None:
    """With one row, attention along rows is full attention: the same result from two ways of computing."""
    full, rows = (make(windows, (1, 6), rotary=Rotation()) for windows in (WindowPlan(), WindowPlan("rows")))
    rows.load_state_dict(full.state_dict())
    tokens = torch.randn(2, 7, 8)
    torch.testing.assert_close(
        rows(tokens, layout=TokenLayout((1, 6), 1)),
        full(tokens, layout=TokenLayout((1, 6), 1)),
        rtol=1e-4,
        atol=1e-5,
    )
    with torch.no_grad():
        still = GridAttention(8, 2, windows=WindowPlan(), grid=(1, 6)).eval()
        still.load_state_dict(full.state_dict())
        assert (
            still(tokens, layout=TokenLayout((1, 6), 1)) - full(tokens, layout=TokenLayout((1, 6), 1))
        ).abs().max() > 1e-3


@pytest.mark.parametrize("shift", [0, 2])
def test_a_block_equals_the_layer_of_swin(shift: int) -> None:
    """Reference: transformers' SwinLayer with its bias table at zero, 8 x 12 patches in windows of 4,
    shifted or not."""
    config = SwinConfig(window_size=4, mlp_ratio=2.0, layer_norm_eps=1e-5)
    config._attn_implementation = "eager"
    theirs = SwinLayer(config, 8, (8, 12), 2, shift_size=shift).eval()
    attention = make(WindowPlan("windows", 4, shifted=bool(shift)), (8, 12))
    ours = Block(attention, Mlp(8, 16), width=8, norm_eps=1e-5).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.normal_(std=0.0 if "bias_table" in name else 0.5)
    state = theirs.state_dict()
    qkv = {
        kind: torch.cat([state[f"attention.{part}_proj.{kind}"] for part in "qkv"])
        for kind in ("weight", "bias")
    }
    renamed = {f"attention.qkv.{kind}": value for kind, value in qkv.items()}
    parts = {"attention.out": "attention.o_proj", "mlp.expand": "mlp.fc1", "mlp.contract": "mlp.fc2"}
    parts |= {"norm1": "layernorm_before", "norm2": "layernorm_after"}
    renamed |= {
        f"{own}.{kind}": state[f"{other}.{kind}"]
        for own, other in parts.items()
        for kind in ("weight", "bias")
    }
    ours.load_state_dict(renamed)
    tokens = torch.randn(2, 96, 8)
    torch.testing.assert_close(
        ours(tokens, layout=TokenLayout((8, 12), 0)), theirs(tokens, (8, 12))[0], rtol=1e-4, atol=1e-5
    )


def test_dropout_of_weights_works_within_cells() -> None:
    attention = GridAttention(
        8, 2, windows=WindowPlan("windows", 3, shifted=True), grid=(5, 7), attention_dropout=0.5
    )
    initialise(attention)
    tokens = torch.randn(2, 36, 8)
    plain = attention.eval()(tokens, layout=TokenLayout((5, 7), 1))
    assert torch.equal(plain, attention(tokens, layout=TokenLayout((5, 7), 1)))
    assert (attention.train()(tokens, layout=TokenLayout((5, 7), 1)) - plain).abs().max() > 1e-3
