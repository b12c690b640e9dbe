"""Presence: gradient of the score with respect to a mask on the keys of all layers.

To first order, the fall of the score when the model attends to one patch a little less, in all layers at
once.

Give each patch j a presence m_j that multiplies its weight before attention is normalised: ``A_ij(m) = m_j
A_ij / sum_k m_k A_ik``. All are 1, and m_j = 0 takes the patch out of every attention. With out = A v and G =
dy/dout the derivative at m = 1 needs no eager attention:

    dy/dm_j = sum over layers, heads and queries i of  A_ij G_i (v_j - out_i)  =  v_j (AT G)_j - (AT c)_j
    with  c_i = G_i out_i

Where the head reads a mean of the patches or attends to them, presence counts there too, by the same formula
with one query.

Unlike weights of attention times gradient, it compares a patch with what would be attended to in its place:
what all patches carry alike cancels, and so does one of several patches that say the same. Values keep their
sign; negative ones speak against the class. They add up to nothing in particular: without any patch there is
no attention to normalise. It is the gradient by a mask on the keys, of which Michel et al. 2019 (arXiv
1905.10650, section 4.1) use that by a mask on heads.

Odd: of a segmenter, a pixel's own patch also speaks through the skip connections, which no attention sees;
that part is not counted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tesela.attribution.capture.pooled import Pooled
from tesela.attribution.capture.rows import attention_rows
from tesela.attribution.capture.scratch import Scratch
from tesela.attribution.methods.gradient_rollout import class_gradients
from tesela.attribution.methods.pyramid import Reduction, descend
from tesela.attribution.methods.rollout import accurate, blocks
from tesela.attribution.request import LogitsAndMaps, Request
from tesela.layers.trace import AttentionRecord


def presence(request: Request) -> LogitsAndMaps:
    """Evidence for and against each class, by the attention that each patch gets.

    Nothing is said of prefix tokens.
    """
    found, scratch = request.capture, Scratch()
    records = [*found.layers, *([found.pool] if found.pool is not None else [])]
    outputs = [record.out for record in records] + ([found.pooled.result] if found.pooled is not None else [])
    results = []
    for gradients in class_gradients(request.scores(), outputs):
        known = dict(zip((record.name for record in records), gradients, strict=False))

        def walk(
            vectors: Tensor,
            record: AttentionRecord,
            reduction: Reduction | None,
            known: dict[str, Tensor] = known,
        ) -> Tensor:
            falls = of_layer(record, known[record.name], found.block(record), scratch)
            return vectors + (falls if reduction is None else reduction.spread(falls))

        start = torch.zeros(
            len(found.logits),
            1,
            found.tokens,
            dtype=accurate(found.logits.device),
            device=found.logits.device,
        )
        if found.pool is not None:
            falls = of_layer(found.pool, known[found.pool.name], found.block(found.pool), scratch)
            start[..., found.tokens - falls.shape[-1] :] += falls
        if found.pooled is not None:
            falls = of_mean(found.pooled, gradients[-1])
            start[..., found.tokens - falls.shape[-1] :] += falls
        results.append(descend(found.stages, [*[None] * (len(found.stages) - 1), start], walk))
    tokens = torch.cat(results, dim=1)[..., found.prefix :].reshape(*request.shape, *found.grid).float()
    return tokens, tokens.new_zeros(request.shape)


def of_layer(record: AttentionRecord, gradient: Tensor, block: int, scratch: Scratch) -> Tensor:
    """(B, 1, M), dy/dm of one layer's keys, given G = dy/dout (B, H, N, d)."""
    kind = torch.promote_types(gradient.dtype, torch.float32)
    rows = attention_rows(record, scratch=scratch)
    gradient, values = gradient.to(kind), record.v.detach().to(kind)
    level = (gradient * record.out.detach().to(kind)).sum(-1, keepdim=True)
    spoken = torch.cat([gradient, level], dim=-1)
    gathered = spoken.new_zeros(*record.k.shape[:3], spoken.shape[-1])
    for begin, end in blocks(gradient.abs().amax((1, 3))[:, None], block):
        gathered += rows(begin, end).to(kind).transpose(-2, -1) @ spoken[:, :, begin:end]
    falls = (gathered[..., :-1] * values).sum(-1) - gathered[..., -1]
    return falls.sum(1, keepdim=True).to(accurate(falls.device))


def of_mean(pooled: Pooled, gradient: Tensor) -> Tensor:
    """(B, 1, n), dy/dm of a mean over n tokens, given dy by its result."""
    tokens = pooled.tokens.detach()
    slope = gradient[:, -tokens.shape[-1] :].to(tokens.dtype)
    weights = 1.0 / tokens.shape[1] if pooled.weights is None else pooled.weights.detach()
    own = torch.einsum("bnd,bd->bn", tokens, slope)
    mean = (own * weights).sum(-1, keepdim=True)
    return (weights * (own - mean)).unsqueeze(1).to(accurate(tokens.device))
