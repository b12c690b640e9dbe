"""What a trace keeps, under which names, and what it costs when it is off."""

from __future__ import annotations

import torch

from tesela.layers.trace import OFF, AttentionRecord, Trace

ONE = torch.ones(1, 1, 2, 2)


def test_names_are_scoped_and_shared() -> None:
    trace = Trace()
    inner = trace.inside("block00").inside("attention")
    assert inner("", ONE) is ONE and trace.inside("block00")("mlp", ONE) is ONE
    inner.attention(ONE, ONE, ONE, ONE, scale=0.5)
    assert list(trace.tensors) == ["block00.attention", "block00.mlp"]
    assert (
        trace.attentions["block00.attention"].name == "block00.attention"
        and trace.attentions["block00.attention"].scale == 0.5
    )


def test_only_what_is_wanted_is_kept() -> None:
    trace = Trace(keep=lambda name: name.endswith("mlp"), attention=False)
    trace("norm", ONE), trace.inside("block01")("mlp", ONE)
    trace.inside("attention").attention(ONE, ONE, ONE, ONE, scale=1.0)
    assert list(trace.tensors) == ["block01.mlp"] and not trace.attentions


def test_off_keeps_nothing() -> None:
    assert OFF.inside("anything") is OFF and OFF("name", ONE) is ONE
    OFF.attention(ONE, ONE, ONE, ONE, scale=1.0)
    assert not OFF.tensors and not OFF.attentions


def test_the_dense_matrix_is_the_softmax_with_its_bias() -> None:
    """Against a loop over queries, for a bias of numbers, of -inf and of truth values."""
    q, k = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 5, 4)
    allowed = torch.tensor([[True, True, False, True, False], [True] * 5, [False, False, False, False, True]])
    for bias in (None, torch.randn(2, 3, 5), torch.zeros(3, 5).masked_fill(~allowed, -torch.inf), allowed):
        found = AttentionRecord(name="x", q=q, k=k, v=k, out=q, scale=0.3, bias=bias).dense()
        for head in range(2):
            for query in range(3):
                weights = torch.exp(0.3 * (k[0, head] @ q[0, head, query]))
                if bias is not None:
                    row = bias.expand(2, 3, 5)[head, query]
                    weights = weights * (row.float() if row.dtype == torch.bool else row.exp())
                torch.testing.assert_close(found[0, head, query], weights / weights.sum())
