"""Token merging: alike patches become one between attention and MLP (arXiv 2210.09461).

Bipartite soft matching: every other patch looks for the patch of the rest whose key is most like its own, and
the pairs that are most alike are merged into their mean, weighted by how many patches each stands for. An
attention to a token of s patches counts s times, by log s beside its logit.

Odd: prefix tokens take no part, wherever they stand; the paper's code guards the first token alone.
"""

from __future__ import annotations

import torch
from torch import Tensor


def merge_alike(
    tokens: Tensor, sizes: Tensor, keys: Tensor, *, count: int, prefix: int
) -> tuple[Tensor, Tensor]:
    """Merge ``count`` patch tokens into others.

    Args:
        tokens: (B, N, D), the prefix first.
        sizes: (B, N), how many patches each token stands for.
        keys: (B, N, d), by whose cosine similarity tokens are matched.
        count: how many tokens disappear; at most half of the patches do.
        prefix: tokens that are never merged.

    Returns:
        tokens (B, N - count, D) and their sizes: prefix, the tokens that looked and stay, the others.
    """
    patches = tokens.shape[1] - prefix
    count = min(count, patches // 2)
    if count < 1:
        return tokens, sizes
    directions = torch.nn.functional.normalize(keys[:, prefix:].float(), dim=-1)
    similarity = directions[:, ::2] @ directions[:, 1::2].transpose(1, 2)  # (B, A, C)
    best, partner = similarity.max(dim=2)
    order = best.argsort(dim=1, descending=True, stable=True)
    gone, kept = order[:, :count], order[:, count:].sort(dim=1).values
    into = partner.gather(1, gone)
    weighted = torch.cat([tokens * sizes[..., None].to(tokens.dtype), sizes[..., None].to(tokens.dtype)], 2)
    lookers, others = weighted[:, prefix:][:, ::2], weighted[:, prefix:][:, 1::2]
    width = weighted.shape[2]
    moved = lookers.gather(1, gone[..., None].expand(-1, -1, width))
    others = others.scatter_add(1, into[..., None].expand(-1, -1, width), moved)
    staying = lookers.gather(1, kept[..., None].expand(-1, -1, width))
    whole = torch.cat([staying, others], dim=1)
    merged = whole[..., :-1] / whole[..., -1:]
    return torch.cat([tokens[:, :prefix], merged], 1), torch.cat([sizes[:, :prefix], whole[..., -1]], 1)
