"""Norms of feature maps against their formulas, and how they start."""

from __future__ import annotations

import pytest
import torch

from tesela.layers.initialise import initialise
from tesela.layers.norm import make_norm


def test_values() -> None:
    """In training both norms are (x - mean) / sqrt(variance + eps) over their own axes."""
    images = torch.randn(4, 6, 3, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1
    batch, group = make_norm("batch", 6, eps=0.1), make_norm("group", 6, groups=2, eps=0.1)
    variance, mean = torch.var_mean(images, dim=(0, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(batch.train()(images), (images - mean) / (variance + 0.1).sqrt())
    grouped = images.unflatten(1, (2, 3))
    variance, mean = torch.var_mean(grouped, dim=(2, 3, 4), correction=0, keepdim=True)
    torch.testing.assert_close(group(images), ((grouped - mean) / (variance + 0.1).sqrt()).flatten(1, 2))


@pytest.mark.parametrize("kind", ["batch", "group"])
@pytest.mark.parametrize("zero", [True, False])
def test_the_start(kind: str, zero: bool) -> None:
    norm = make_norm(kind, 8, groups=4, zero=zero)
    with torch.no_grad():
        for tensor in norm.state_dict().values():
            tensor.fill_(7)
    initialise(norm)
    state = norm.state_dict()
    assert torch.equal(state["weight"], torch.zeros(8) if zero else torch.ones(8)) and not state["bias"].any()
    if kind == "batch":
        assert (
            not state["running_mean"].any()
            and torch.equal(state["running_var"], torch.ones(8))
            and state["num_batches_tracked"] == 0
        )
