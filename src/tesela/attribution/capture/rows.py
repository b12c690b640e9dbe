"""Rows of attention, recomputed from queries and keys a few at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from tesela.attribution.capture.scratch import Scratch
from tesela.attribution.methods.rollout import AttentionRows, accurate
from tesela.layers.trace import AttentionRecord


def attention_rows(
    record: AttentionRecord, *, precise: bool = False, scratch: Scratch | None = None
) -> AttentionRows:
    """softmax(q kT * scale + bias) of one layer, rows at a time.

    In float64 if ``precise``, else at least float32.

    With ``scratch`` rows are good until the next ones are asked for, from this layer or from another with the
    same memory.
    """
    kind = accurate(record.q.device) if precise else torch.promote_types(record.q.dtype, torch.float32)
    q, heads, columns = record.q.detach(), record.q.shape[:2], record.k.shape[2]
    keys = record.k.detach().to(kind).flatten(0, 1).transpose(-2, -1)

    def rows(begin: int, end: int) -> Tensor:
        queries = q[:, :, begin:end].to(kind).flatten(0, 1)
        memory, shape = scratch or Scratch(), (len(queries), queries.shape[1], columns)
        logits = memory.take("logits", shape, like=queries)
        torch.baddbmm(logits, queries, keys, beta=0.0, alpha=record.scale, out=logits)
        softmax = memory.take("softmax", (*heads, *shape[1:]), like=queries)
        logits = logits.view_as(softmax)
        if record.bias is None:
            return torch.softmax(logits, -1, out=softmax)
        part = record.bias.detach()
        part = part if part.shape[-2] == 1 else part[..., begin:end, :]
        logits = logits.masked_fill_(~part, -torch.inf) if part.dtype == torch.bool else logits.add_(part)
        empty = logits.amax(-1, keepdim=True) == -torch.inf
        return torch.softmax(logits, -1, out=softmax).masked_fill_(empty, 0.0)

    return rows
