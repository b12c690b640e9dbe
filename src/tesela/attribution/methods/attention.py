"""Class-independent maps from attention alone: rollout, and single layers or heads.

One layer is walked without the skip connection: where the head reads, in that layer and, if asked, in one
head. In a pyramid, the merging between stages is walked through as well; the layers that were not chosen
leave everything where it is.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from tesela.attribution.capture.rows import attention_rows
from tesela.attribution.capture.scratch import Scratch
from tesela.attribution.methods.pyramid import Reduction, descend
from tesela.attribution.methods.rollout import AttentionRows, step
from tesela.attribution.request import LogitsAndMaps, Request, as_map
from tesela.core.errors import UsageError
from tesela.layers.trace import AttentionRecord


def rollout(request: Request) -> LogitsAndMaps:
    """Attention rollout from where the head reads."""
    found, options, scratch = request.capture, request.options, Scratch()

    def walk(vectors: Tensor, record: AttentionRecord, reduction: Reduction | None) -> Tensor:
        rows, block = attention_rows(record, precise=options.delicate, scratch=scratch), found.block(record)
        normal = record.bias is None
        return step(
            vectors,
            rows,
            prefix=found.prefix,
            options=options,
            block=block,
            reduction=reduction,
            normal=normal,
        )

    return as_map(request, descend(found.stages, request.starts(), walk))


def rollout_literature(request: Request) -> LogitsAndMaps:
    """Attention rollout as published: the identity is added before rows are normalised."""
    return rollout(replace(request, options=replace(request.options, literature=True)))


def attention(request: Request) -> LogitsAndMaps:
    """The attention of one layer, all heads fused or one of them.

    Raises:
        UsageError: there is no such layer or head.
    """
    found, chosen, head = request.capture, request.layer(), request.settings.head
    if head is not None and not -chosen.q.shape[1] <= head < chosen.q.shape[1]:
        raise UsageError(
            f"there is no head {head} in layer {chosen.name!r}",
            hint=f"give 0 to {chosen.q.shape[1] - 1}, or leave it away",
        )
    options = replace(request.options, residual=1.0, literature=False)

    def walk(vectors: Tensor, record: AttentionRecord, reduction: Reduction | None) -> Tensor:
        if record is not chosen:
            return vectors
        rows = _one_head(attention_rows(record, precise=options.delicate), head)
        return step(
            vectors,
            rows,
            prefix=found.prefix,
            options=options,
            block=found.block(record),
            reduction=reduction,
        )

    return as_map(request, descend(found.stages, request.starts(), walk))


def _one_head(rows: AttentionRows, head: int | None) -> AttentionRows:
    if head is None:
        return rows
    return lambda begin, end: rows(begin, end)[:, [head]]
