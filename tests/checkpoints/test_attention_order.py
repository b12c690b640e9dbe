"""Rotary channels of other programs in our order: the logits are those of their own rotation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tesela.checkpoints.attention_order import AttentionOrder, rotary_order
from tesela.checkpoints.rules import to_foreign, to_own
from tesela.core.errors import WeightsError
from tesela.layers.position.rotary import Rotation, turn
from tesela.layers.token_layout import TokenLayout

GRID, WIDTH = (3, 4), 16


def turned(tokens: Tensor, kind: str) -> Tensor:
    """(n, d) turned as timm (neighbours) or DINOv3 (halves) do it, pair by pair as complex numbers."""
    pairs, base = WIDTH // 4, 100.0
    style, _, columns = kind.partition("_")
    result = tokens.clone()
    for patch in range(len(tokens)):
        places = divmod(patch, GRID[1])
        places = places[::-1] if columns else places
        for number in range(WIDTH // 2):
            axis, step = divmod(number, pairs)
            first, second = (
                (2 * number, 2 * number + 1) if style == "interleaved" else (number, number + WIDTH // 2)
            )
            angle = torch.tensor(places[axis] * base ** (-step / pairs))
            x, y = tokens[patch, first], tokens[patch, second]
            result[patch, first] = x * angle.cos() - y * angle.sin()
            result[patch, second] = y * angle.cos() + x * angle.sin()
    return result


@pytest.mark.parametrize("kind", ["interleaved", "interleaved_xy", "half", "half_xy"])
def test_logits_are_those_of_the_other_rotation(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(12, WIDTH, generator=generator) for _ in range(2))
    index = rotary_order(WIDTH, kind)
    layout, rotation = TokenLayout(GRID, 0), Rotation(base=100.0)
    ours = [turn(one[None, None, :, index], layout, rotation)[0, 0] for one in (q, k)]
    torch.testing.assert_close(ours[0] @ ours[1].T, turned(q, kind) @ turned(k, kind).T, rtol=1e-4, atol=1e-5)
    assert sorted(index.tolist()) == list(range(WIDTH))


@pytest.mark.parametrize("fused", [True, False])
def test_projections_come_back_to_the_bit(fused: bool) -> None:
    """Queries and keys in another order, keys without a bias; values as they are."""
    order = AttentionOrder(heads=2, rotary="interleaved_xy", keys=False)
    names = ["qkv.weight"] if fused else ["q.weight", "k.weight", "v.weight"]
    rules = order.rules("own", names, ["q.bias", "v.bias"])
    whole = torch.randn(3 * 2 * 8, 5)
    foreign = dict(zip(names, whole.chunk(len(names)), strict=True))
    foreign |= {"q.bias": torch.randn(16), "v.bias": torch.randn(16)}
    own = to_own(foreign, rules, source="test")
    assert torch.equal(own["own.weight"][32:], whole[32:]) and not torch.equal(own["own.weight"], whole)
    assert not own["own.bias"][16:32].any() and torch.equal(own["own.bias"][32:], foreign["v.bias"])
    back = to_foreign(own, rules, target="test")
    assert back.keys() == foreign.keys() and all(torch.equal(back[name], foreign[name]) for name in foreign)
    own["own.bias"][16] = 0.1
    with pytest.raises(WeightsError, match="keys of the model have a bias"):
        to_foreign(own, rules, target="test")
