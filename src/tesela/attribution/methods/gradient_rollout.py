"""Gradient rollout: rollout of attention weighted by the gradient of one class.

A layer's weights are the mean over heads of relu(A * dy/dA).

No eager attention is needed for dy/dA: with out = A v and G = dy/dout, it is exactly G vT. The weights go
through the same walk as attention does. Rows are normalised there, so the factor of a row does not matter:
each row of G is divided by its largest entry first, which keeps tiny gradients from vanishing in float32 and
makes the map independent of the logit's scale. A row without any positive weight keeps its mass at its own
token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from tesela.attribution.capture.rows import attention_rows
from tesela.attribution.capture.scratch import Scratch
from tesela.attribution.methods.pyramid import Reduction, descend
from tesela.attribution.methods.rollout import AttentionRows, step
from tesela.attribution.request import LogitsAndMaps, Request, as_map
from tesela.layers.trace import AttentionRecord


def gradient_rollout(request: Request) -> LogitsAndMaps:
    """What spoke for each class, by attention."""
    found, options, scratch = request.capture, request.options, Scratch()
    shares = []
    for index, gradients in enumerate(layer_gradients(request)):

        def walk(
            vectors: Tensor,
            record: AttentionRecord,
            reduction: Reduction | None,
            known: dict[str, Tensor] = gradients,
        ) -> Tensor:
            rows = weighted_rows(record, known[record.name], precise=options.delicate, scratch=scratch)
            return step(
                vectors,
                rows,
                prefix=found.prefix,
                options=options,
                block=found.block(record),
                reduction=reduction,
            )

        starts = [
            start if start is None or start.shape[1] == 1 else start[:, index : index + 1]
            for start in request.starts()
        ]
        shares.append(descend(found.stages, starts, walk))
    return as_map(request, torch.cat(shares, dim=1))


def layer_gradients(request: Request) -> Iterator[dict[str, Tensor]]:
    """For each class, dy/dout of each layer by its name."""
    names = [layer.name for layer in request.capture.layers]
    scores = request.scores()
    for gradients in class_gradients(scores, [layer.out for layer in request.capture.layers]):
        yield dict(zip(names, gradients, strict=True))


def class_gradients(scores: Tensor, inputs: list[Tensor]) -> Iterator[list[Tensor]]:
    """For each column of ``scores`` (B, T): its gradients by ``inputs``.

    Images do not influence one another, so the batch's scores are differentiated together; the graph is kept
    between classes and freed after the last.
    """
    with torch.enable_grad():
        wanted = scores.sum(0)
    for index in range(len(wanted)):
        last = index == len(wanted) - 1
        yield list(
            torch.autograd.grad(
                wanted[index], inputs, retain_graph=not last, allow_unused=True, materialize_grads=True
            )
        )


def weighted_rows(
    record: AttentionRecord, gradient: Tensor, *, precise: bool = False, scratch: Scratch | None = None
) -> AttentionRows:
    """relu(A * dy/dA) of one layer up to a factor per row, given G = dy/dout."""
    attention = attention_rows(record, precise=precise, scratch=scratch)
    slopes = attention_gradient(record, gradient / _largest(gradient))

    def rows(begin: int, end: int) -> Tensor:
        weights = attention(begin, end)
        return weights.mul_(slopes(begin, end).to(weights.dtype)).clamp_(min=0.0)

    return rows


def attention_gradient(record: AttentionRecord, gradient: Tensor) -> Callable[[int, int], Tensor]:
    """dy/dA = G vT of one layer, rows at a time: (B, heads, rows, N)."""
    kind = torch.promote_types(gradient.dtype, torch.float32)
    values = record.v.detach().to(kind).transpose(-2, -1)
    return lambda begin, end: gradient[:, :, begin:end].to(kind) @ values


def _largest(gradient: Tensor) -> Tensor:
    """The largest size in each query's row over all heads, (B, 1, N, 1); 1 where all are zero."""
    size = gradient.abs().amax(dim=(1, 3), keepdim=True)
    return size.masked_fill(size == 0, 1.0)
