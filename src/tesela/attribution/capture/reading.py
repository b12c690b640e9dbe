"""Readout of a third-party model: shares of the tokens in its head, found by gradients.

The logits are differentiated by the last layer's output.

A token that the head does not read has a gradient of exactly zero. One or two tokens before the patches:
class and distillation token, equal shares. All patches and nothing else: their mean. Patches and some prefix
tokens: either both pooled apart and put side by side, as DINOv2's classifier does, half each; or one mean
over all of them, where no token weighs more than another. An attention that pools is recognised by its own
gradient, and its own row is what is read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tesela.layers.trace import AttentionRecord


def pools(pool: AttentionRecord, logits: Tensor) -> bool:
    """Whether the logits depend on the pool's result."""
    return bool(_gradient(logits, pool.out).any())


def reading(last: AttentionRecord, logits: Tensor, *, prefix: int) -> Tensor | None:
    """(N,), the share of each token in what the head reads.

    None where the logits depend on none, as with a head of zeros.

    Args:
        last: the last layer, whose output is in the graph of the logits.
        logits: (B, K).
        prefix: tokens before the patches.
    """
    size = _gradient(logits, last.out).abs().amax(dim=(0, 1, 3)).double()
    read = size > 0
    if not read.any():
        return None
    shares = torch.zeros_like(size)
    head, patches = read[:prefix], read[prefix:]
    if not patches.any():
        shares[:prefix][head] = 1.0 / int(head.sum())
    elif not head.any():
        shares[prefix:][patches] = 1.0 / int(patches.sum())
    elif size[:prefix][head].median() > int(patches.sum()) ** 0.5 * size[prefix:][patches].median():
        shares[:prefix][head] = 0.5 / int(head.sum())
        shares[prefix:][patches] = 0.5 / int(patches.sum())
    else:
        shares[read] = 1.0 / int(read.sum())
    return shares


def _gradient(logits: Tensor, inner: Tensor) -> Tensor:
    """Of a sum of all logits in which none cancel, by ``inner``; zero where it has no part in them."""
    weights = (
        torch.arange(1, logits[0].numel() + 1, device=logits.device, dtype=logits.dtype)
        .cos()
        .view(logits.shape[1:])
    )
    with torch.enable_grad():
        total = (logits * weights).sum()
    if not total.requires_grad:
        return torch.zeros_like(inner)
    (found,) = torch.autograd.grad(
        total, [inner], retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return found
