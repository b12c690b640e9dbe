"""Relevance propagation through attention (Chefer et al. 2021, arXiv 2103.15679).

Equations 5 and 6 there.

From the last layer to the first, ``v <- v + v Abar`` with Abar = mean over heads of relu(A * dy/dA), not
normalised.

What the walk starts with is carried along unchanged by the identity in every step; that part is taken away at
the end, so that only what attention moved is left. The result is brought to sum 1, patches and prefix
together; without any positive weight it is zero.

Odd: unlike the gradient rollout, how far relevance spreads depends on the size of the gradient, so it is
computed in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tesela.attribution.capture.rows import attention_rows
from tesela.attribution.methods.gradient_rollout import attention_gradient, layer_gradients
from tesela.attribution.methods.pyramid import Reduction, descend
from tesela.attribution.methods.rollout import AttentionRows, accurate, blocks, through
from tesela.attribution.request import LogitsAndMaps, Request, as_map
from tesela.layers.trace import AttentionRecord


def relevance(request: Request) -> LogitsAndMaps:
    """What spoke for each class, by attention that adds up."""
    found = request.capture
    results = []
    for index, gradients in enumerate(layer_gradients(request)):

        def walk(
            vectors: Tensor,
            record: AttentionRecord,
            reduction: Reduction | None,
            known: dict[str, Tensor] = gradients,
        ) -> Tensor:
            return vectors + moved(
                vectors, positive_rows(record, known[record.name]), found.block(record), reduction
            )

        starts = [
            start if start is None or start.shape[1] == 1 else start[:, index : index + 1]
            for start in request.starts()
        ]
        still = descend(found.stages, starts, lambda vectors, *_: vectors)
        results.append(descend(found.stages, starts, walk) - still)
    total = torch.cat(results, dim=1)
    size = total.sum(-1, keepdim=True)
    return as_map(request, total / size.masked_fill(size <= 0, 1.0))


def positive_rows(record: AttentionRecord, gradient: Tensor) -> AttentionRows:
    """relu(A * dy/dA) of one layer, (B, heads, rows, N), given G = dy/dout; float64 if possible."""
    kind = accurate(gradient.device)
    attention, slopes = attention_rows(record, precise=True), attention_gradient(record, gradient.to(kind))
    return lambda begin, end: attention(begin, end).mul_(slopes(begin, end)).clamp_(min=0.0)


def moved(vectors: Tensor, rows: AttentionRows, block: int, reduction: Reduction | None) -> Tensor:
    """``v Abar`` (B, S, N) for one layer."""
    total: Tensor | None = None
    for begin, end in blocks(vectors, block):
        part = through(rows(begin, end), vectors[..., begin:end])
        total = part if total is None else total + part
    if total is None:
        return torch.zeros_like(vectors)
    return total if reduction is None else reduction.spread(total)
