"""Attention against torch.nn.MultiheadAttention with the same weights.

Wide heads and kernels against loops in float64.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tesela.core.errors import UnknownNameError
from tesela.layers.attention.attention import Attention, attend, set_attention_kernel
from tesela.layers.attention.kernels import KERNELS
from tesela.layers.initialise import initialise

kernels = pytest.mark.parametrize("kernel", KERNELS)


def make(width: int, heads: int, **options: Any) -> Attention:
    attention = Attention(width, heads, **options)
    initialise(attention, torch.Generator().manual_seed(0))
    for bias in (attention.qkv.bias, attention.out.bias):
        if bias is not None:
            nn.init.normal_(bias, generator=torch.Generator().manual_seed(1))
    return attention.eval()


def loop(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
    """One query at a time, in float64."""
    out = torch.zeros(*q.shape[:3], v.shape[3], dtype=torch.float64)
    for batch, head, query in torch.cartesian_prod(*(torch.arange(side) for side in q.shape[:3])).tolist():
        logits = (k[batch, head].double() * q[batch, head, query].double()).sum(-1) * scale
        if bias is not None:
            logits = logits + bias.expand(*q.shape[:3], k.shape[2])[batch, head, query].double()
        weights = torch.exp(logits - logits.max())
        out[batch, head, query] = (weights[:, None] / weights.sum() * v[batch, head].double()).sum(0)
    return out


@kernels
@pytest.mark.parametrize("biased", [False, True])
def test_kernels_equal_a_loop(kernel: str, biased: bool) -> None:
    q, k, v = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 4)
    bias = torch.randn(3, 5, 7) if biased else None
    for scale in (None, 0.3):
        expected = loop(q, k, v, 0.5 if scale is None else scale, bias)
        torch.testing.assert_close(
            attend(q, k, v, bias=bias, scale=scale, kernel=kernel).double(), expected, rtol=1e-5, atol=1e-6
        )


@kernels
def test_kernels_take_views_and_give_the_same_gradients(kernel: str) -> None:
    """Against the loop's autograd, with q, k and v as strided views of one tensor."""
    base = torch.randn(2, 5, 3, 2, 4, requires_grad=True)
    q, k, v = (part.transpose(1, 2) for part in base.unbind(2))
    weight = torch.randn(2, 2, 5, 4)
    (found,) = torch.autograd.grad((attend(q, k, v, kernel=kernel) * weight).sum(), base)
    logits = (q @ k.mT) / 2
    (expected,) = torch.autograd.grad(
        ((logits.exp() / logits.exp().sum(-1, keepdim=True)) @ v * weight).sum(), base
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@kernels
def test_dropout_of_weights_keeps_the_mean(kernel: str) -> None:
    """With v constant in the channel, the output is the sum of the kept weights over 1 - p.

    Its mean is 1, its values are not.
    """
    torch.manual_seed(0)
    q, k, v = torch.randn(8, 4, 64, 8), torch.randn(8, 4, 64, 8), torch.ones(8, 4, 64, 8)
    out = attend(q, k, v, dropout=0.5, kernel=kernel)
    assert out.mean().item() == pytest.approx(1.0, abs=0.02)
    assert out.std().item() > 0.05


@kernels
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_equals_multihead_attention_of_torch(kernel: str, qkv_bias: bool) -> None:
    ours = make(24, 4, qkv_bias=qkv_bias)
    set_attention_kernel(ours, kernel)
    theirs = nn.MultiheadAttention(24, 4, batch_first=True, bias=True).eval()
    bias = ours.qkv.bias if qkv_bias else torch.zeros(72)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": bias,
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    tokens = torch.randn(3, 11, 24)
    torch.testing.assert_close(
        ours(tokens), theirs(tokens, tokens, tokens, need_weights=False)[0], rtol=1e-5, atol=1e-5
    )


def test_a_wide_head_keeps_the_full_width() -> None:
    """Each head is an attention of the full width with its own matrices.

    The output is the sum of each head's map.
    """
    wide, tokens = make(6, 3, wide=True), torch.randn(2, 5, 6)
    q, k, v = (
        tokens @ part.T + bias
        for part, bias in zip(wide.qkv.weight.chunk(3), wide.qkv.bias.chunk(3), strict=True)
    )
    total = wide.out.bias.expand(2, 5, 6).double()
    for head in range(3):
        columns = slice(6 * head, 6 * head + 6)
        one = [part[:, None, :, columns] for part in (q, k, v)]
        mixed = loop(one[0], one[1], one[2], 6**-0.5)[:, 0]
        total = total + mixed @ wide.out.weight[:, columns].T.double()
    torch.testing.assert_close(wide(tokens).double(), total, rtol=1e-5, atol=1e-5)
    assert sum(parameter.numel() for parameter in wide.parameters()) == 3 * (18 * 6 + 18) + 18 * 6 + 6


def test_tokens_attend_to_tokens_not_channels() -> None:
    """Tokens in another order give the outputs in that order.

    Article C's view order mixes tokens with channels and does not.
    """
    attention = make(8, 2)
    tokens = torch.randn(1, 6, 8)
    order = torch.randperm(6)
    torch.testing.assert_close(attention(tokens[:, order]), attention(tokens)[:, order], rtol=1e-5, atol=1e-5)


def test_dropout_is_off_in_evaluation_and_follows_the_output() -> None:
    attention = Attention(16, 2, dropout=0.5, attention_dropout=0.5)
    initialise(attention)
    tokens = torch.randn(64, 9, 16)
    assert torch.equal(attention.eval()(tokens), attention(tokens))
    zeros = (attention.train()(tokens) == 0).float().mean().item()
    assert zeros == pytest.approx(0.5, abs=0.05)


@kernels
def test_attention_dropout_is_used_in_training_only(kernel: str) -> None:
    attention = Attention(16, 2, attention_dropout=0.5)
    initialise(attention)
    set_attention_kernel(attention, kernel)
    tokens = torch.randn(4, 9, 16)
    plain = attention.eval()(tokens)
    assert torch.equal(attention(tokens), plain)
    assert (attention.train()(tokens) - plain).abs().max() > 1e-3


def test_an_unknown_kernel() -> None:
    with pytest.raises(UnknownNameError, match="fuse"):
        set_attention_kernel(make(8, 2), "fuse")
