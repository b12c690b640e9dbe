"""Pooling against loops and torch.nn.MultiheadAttention."""

from __future__ import annotations

import torch
from torch import nn

from tesela.layers.initialise import initialise
from tesela.layers.pool import AttentionPool, ClassMeanPool, ClassPool, MeanPool, SequencePool
from tesela.layers.prefix import PrefixTokens
from tesela.layers.trace import Trace

TOKENS = torch.randn(3, 9, 8, generator=torch.Generator().manual_seed(0))


def test_class_and_mean() -> None:
    assert torch.equal(ClassPool()(TOKENS, 3), TOKENS[:, 0])
    torch.testing.assert_close(ClassPool(2)(TOKENS, 3), (TOKENS[:, 0] + TOKENS[:, 1]) / 2)
    mean = torch.stack([TOKENS[:, index] for index in range(3, 9)]).sum(0) / 6
    torch.testing.assert_close(MeanPool()(TOKENS, 3), mean)
    torch.testing.assert_close(ClassMeanPool()(TOKENS, 3), torch.cat([TOKENS[:, 0], mean], dim=1))


def test_sequence_pool_is_a_weighted_mean_of_the_patches() -> None:
    pool, trace = SequencePool(8), Trace()
    initialise(pool)
    expected = torch.zeros(3, 8)
    for image in range(3):
        scores = torch.stack(
            [TOKENS[image, index] @ pool.score.weight[0] + pool.score.bias[0] for index in range(2, 9)]
        )
        shares = scores.exp() / scores.exp().sum()
        expected[image] = (shares[:, None] * TOKENS[image, 2:]).sum(0)
    torch.testing.assert_close(pool(TOKENS, 2, trace=trace.inside("pool")), expected)
    torch.testing.assert_close(trace.tensors["pool.weights"].sum(-1), torch.ones(3, 1))
    torch.testing.assert_close((trace.tensors["pool.weights"] @ TOKENS[:, 2:])[:, 0], expected)


def test_attention_pool_without_the_prefix() -> None:
    """The patches alone, and a trace of as many keys."""
    pool, whole, trace = (
        AttentionPool(8, 2, hidden=12, with_prefix=False),
        AttentionPool(8, 2, hidden=12),
        Trace(),
    )
    initialise(pool)
    whole.load_state_dict(pool.state_dict())
    found = pool(TOKENS, 3, trace=trace.inside("pool"))
    torch.testing.assert_close(found, whole(TOKENS[:, 3:], 0))
    assert not torch.allclose(found, whole(TOKENS, 3))
    assert trace.attentions["pool.attention"].k.shape[2] == 6


def test_attention_pool_equals_torch() -> None:
    pool = AttentionPool(8, 2, hidden=12)
    initialise(pool)
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat([pool.q.weight, pool.kv.weight]),
            "in_proj_bias": torch.cat([pool.q.bias, pool.kv.bias]),
            "out_proj.weight": pool.out.weight,
            "out_proj.bias": pool.out.bias,
        }
    )
    assert isinstance(pool.norm, nn.LayerNorm)
    pooled = theirs(pool.probe.expand(3, -1, -1), TOKENS, TOKENS)[0]
    expected = pooled + pool.mlp(
        nn.functional.layer_norm(pooled, (8,), pool.norm.weight, pool.norm.bias, 1e-6)
    )
    torch.testing.assert_close(pool(TOKENS, 1), expected[:, 0], rtol=1e-5, atol=1e-5)


def test_prefix_tokens_stand_in_order() -> None:
    prefix = PrefixTokens(8, class_tokens=1, distillation_token=True, registers=2)
    assert (
        prefix.class_token is not None
        and prefix.distillation_token is not None
        and prefix.registers is not None
    )
    with torch.no_grad():
        prefix.class_token.fill_(1), prefix.distillation_token.fill_(2)
        prefix.registers.copy_(torch.tensor([3.0, 4.0])[None, :, None].expand(1, 2, 8))
    tokens = prefix.with_registers(prefix.with_special(TOKENS))
    assert tokens[:, :4, 0].tolist() == [[1, 2, 3, 4]] * 3 and torch.equal(tokens[:, 4:], TOKENS)
    bare = PrefixTokens(8, class_tokens=0)
    assert torch.equal(bare.with_registers(bare.with_special(TOKENS)), TOKENS)
