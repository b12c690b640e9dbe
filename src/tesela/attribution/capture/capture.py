"""One forward pass of a model, with what is needed to explain it: queries and keys of each layer, and how its head reads.

The fused kernel stays on. Attention is recomputed from q and k for a few rows at a time, so no map of a whole layer ever
exists; without gradients only q and k are kept, copied out of the qkv tensor that would otherwise stay alive with v.
Own models fill a trace; of foreign ones torch's functions are watched (``tesela.attribution.capture.foreign``). Layers are keyed and ordered by
name or by the model's structure, never by the order of calls.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tesela.attribution.capture.call import call, undisturbed, unwrapped
from tesela.attribution.capture.foreign import Interception, recording_fused
from tesela.attribution.capture.geometry import flat_grid, is_pool, pyramid_stages
from tesela.attribution.capture.reading import pools, reading
from tesela.attribution.capture.scratch import Scratch
from tesela.attribution.methods.decoder import decoder_shares
from tesela.attribution.methods.pooled import Pooled
from tesela.attribution.methods.pyramid import Stage, upsampled_back
from tesela.attribution.methods.rollout import AttentionRows, accurate, fuse
from tesela.core.errors import UsageError
from tesela.layers.trace import AttentionRecord, Trace
from tesela.models.encoder.config import EncoderConfig

__all__ = ["Capture", "QueryKeyTrace", "attention_rows", "capture", "undisturbed", "unwrapped"]

#: Elements of a block of attention rows with all heads and images: 4 MB in float32, about what a core's cache holds.
BLOCK = 1_048_576
POOL = "pool."


@dataclass(frozen=True, kw_only=True, slots=True)
class Capture:
    """What one forward pass left behind.

    Attributes:
        images: (B, C, H, W) as the model saw them; with gradients, the leaf of the graph.
        logits: (B, K), or (B, K, h, w) of a segmenter.
        layers: the self-attentions from input to output; empty where the model has none that can be walked.
        grid: rows and columns of patches; of pixels where the model does not say.
        prefix: tokens before the patches.
        pool: the attention with which the head reads the tokens, if it does.
        weights: (B, 1, n), the weights with which the head averages the patches, if it does.
        special: tokens that the head reads directly (class, distillation); 0 where it averages.
        read: (N,), the share of each token in what the head reads, where none of the three says it.
        stages: the layers by their grids, from the image up; one but in pyramids.
        shares: of each stage in what a segmenter's decoder reads.
        entering: (B, N, D) normalised tokens that entered each layer, by its name; only with gradients.
        pooled: the mean of tokens that the head reads, if it does; only with gradients.
        trouble: why there are no layers although the model has attention.
    """

    images: Tensor
    logits: Tensor
    layers: tuple[AttentionRecord, ...]
    grid: tuple[int, int]
    prefix: int
    pool: AttentionRecord | None
    weights: Tensor | None
    special: int
    read: Tensor | None = None
    stages: tuple[Stage, ...] = ()
    shares: tuple[float, ...] = ()
    entering: dict[str, Tensor] = field(default_factory=dict)
    pooled: Pooled | None = None
    trouble: str = ""

    @property
    def tokens(self) -> int:
        """N of the last layer: prefix and patches."""
        rows, columns = self.stages[-1].grid if self.stages else self.grid
        return self.prefix + rows * columns

    def start(self, *, fusion: str = "mean", patch: tuple[int, int] | None = None) -> Tensor:
        """(B, 1, N): how the head reads the last layer's tokens, or the unit vector of the patch (row, column).

        Raises:
            UsageError: the patch is not on the grid.
        """
        vector = torch.zeros(
            len(self.logits), 1, self.tokens, dtype=accurate(self.logits.device), device=self.logits.device
        )
        if patch is not None:
            vector[..., self.prefix + self._index(patch)] = 1.0
        elif self.pool is not None:
            keys = self.pool.k.shape[2]
            row = (
                fuse(attention_rows(self.pool)(0, self.pool.q.shape[2]), fusion)
                .mean(1, keepdim=True)
                .to(vector.dtype)
            )
            vector[..., self.tokens - keys :] += row / row.sum(-1, keepdim=True)
        elif self.weights is not None:
            vector[..., self.prefix :] = self.weights.detach()
        elif self.read is not None:
            vector += self.read.to(vector)
        elif self.special:
            vector[..., : self.special] = 1.0 / self.special
        else:
            vector[..., self.prefix :] = 1.0 / (self.tokens - self.prefix)
        return vector

    def starts(
        self, *, fusion: str = "mean", patch: tuple[int, int] | None = None, pixels: Tensor | None = None
    ) -> list[Tensor | None]:
        """For each stage, what is read of its last layer's tokens; all together have sum 1.

        Args:
            fusion: of a pool's heads.
            patch: start at this patch of the last layer instead.
            pixels: (B, T, h, w), for a segmenter, the weights of the pixels that are pulled back through its decoder.
        """
        if pixels is None or patch is not None:
            below: list[Tensor | None] = [None] * (len(self.stages) - 1)
            return [*below, self.start(fusion=fusion, patch=patch)]
        kind = accurate(self.logits.device)
        if len(self.stages) == 1:
            area = F.adaptive_avg_pool2d(pixels.to(kind), self.grid).flatten(2)
            return [F.pad(area / area.sum(-1, keepdim=True), (self.prefix, 0))]
        return [
            upsampled_back(pixels.to(kind), stage.grid) * share
            for stage, share in zip(self.stages, self.shares, strict=True)
        ]

    def _index(self, patch: tuple[int, int]) -> int:
        (row, column), (rows, columns) = patch, self.stages[-1].grid if self.stages else self.grid
        if not (0 <= row < rows and 0 <= column < columns):
            raise UsageError(
                f"there is no patch {row},{column} on a grid of {rows} x {columns}",
                hint="rows and columns count from 0",
            )
        return row * columns + column

    def block(self, layer: AttentionRecord | None = None) -> int:
        """Rows of attention to compute at once, in one layer or in any."""
        chosen = self.layers if layer is None else (layer,)
        widest = max(one.q.shape[0] * one.q.shape[1] * one.k.shape[2] for one in chosen)
        return max(1, BLOCK // widest)


class QueryKeyTrace(Trace):
    """Keeps q and k of each attention as copies, so that v and the rest of the qkv tensor can be freed."""

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,  # noqa: ARG002
        out: Tensor,  # noqa: ARG002
        *,
        scale: float,
        bias: Tensor | None = None,
    ) -> None:
        """Write q and k down; the places of v and out hold nothing of use."""
        q, k = (tensor.clone(memory_format=torch.contiguous_format) for tensor in (q, k))
        super().attention(q, k, k, q, scale=scale, bias=bias)


def capture(model: nn.Module, images: Tensor, *, gradient: bool, whole: bool = True) -> Capture:
    """Run the model once; call it inside ``undisturbed``.

    Args:
        model: a classifier or a segmenter, unwrapped; traced where its ``forward`` takes a trace.
        images: (B, C, H, W) on the model's device.
        gradient: keep the graph, so that logits can be differentiated by attention and images.
        whole: the last layer has all its rows. Without, our own models with a class token compute and keep only those that the head
            reads there, as in an ordinary pass, which is a tenth faster.

    Raises:
        UsageError: its output is neither (B, K) nor (B, K, h, w).
    """
    if "trace" not in inspect.signature(model.forward).parameters:
        return _foreign(model, images, gradient)
    config = getattr(model, "config", None)
    if (
        whole
        or gradient
        or not isinstance(config, EncoderConfig)
        or config.pool != "class"
        or config.placed
        or model.kernel != "fused"
    ):
        return _own(model, images, gradient)
    return _short(model, images, config)


# ---- own models -----------------------------------------------------------------------------------------------------


def _own(model: nn.Module, images: Tensor, gradient: bool) -> Capture:
    kept = re.compile(r"norm|pool(\.weights)?|block\d+(\.norm1)?" if gradient else r"pool\.weights")
    trace = (Trace if gradient else QueryKeyTrace)(keep=lambda name: kept.fullmatch(name) is not None)
    with torch.set_grad_enabled(gradient):
        images = images.detach().clone().requires_grad_(gradient)
        logits = call(model, images, trace=trace)
    names = sorted(trace.attentions, key=_natural)
    config = getattr(model, "config", None)
    reads = getattr(config, "pool", None)
    found = Capture(
        images=images,
        logits=logits,
        layers=tuple(trace.attentions[name] for name in names if not name.startswith(POOL)),
        grid=_grid(model, (images.shape[2], images.shape[3])),
        prefix=int(getattr(config, "prefix", 0)),
        pool=next((trace.attentions[name] for name in names if name.startswith(POOL)), None),
        weights=trace.tensors.get("pool.weights"),
        special=int(config.special_tokens) if reads == "class" else 0,  # type: ignore[union-attr]
        entering=_entering(names, trace.tensors, pre=getattr(config, "norm", "pre") == "pre"),
        pooled=_pooled(trace.tensors, int(getattr(config, "prefix", 0)))
        if reads in ("mean", "class_mean", "sequence")
        else None,
    )
    if reads == "class_mean":
        half = torch.full((found.tokens,), 0.5 / (found.tokens - found.prefix), dtype=torch.float64)
        half[: found.prefix] = 0.0
        half[0] = 0.5
        found = replace(found, read=half)
    return _checked(found)


def _pooled(tensors: dict[str, Tensor], prefix: int) -> Pooled | None:
    """The mean that the head reads; None where the graph was not kept."""
    if "pool" not in tensors:
        return None
    weights = tensors.get("pool.weights")
    tokens, result = tensors["norm"][:, prefix:], tensors["pool"]
    return Pooled(tokens=tokens, result=result, weights=None if weights is None else weights[:, 0])


def _short(model: nn.Module, images: Tensor, config: EncoderConfig) -> Capture:
    """An own model with a class token without a trace, which would make it compute what nobody reads."""
    images, logits, seen = _watched(model, images, False, "")
    layers = tuple(seen.records)
    found = Capture(
        images=images,
        logits=logits,
        layers=layers,
        grid=_grid(model, (images.shape[2], images.shape[3])),
        prefix=config.prefix,
        pool=None,
        weights=None,
        special=config.special_tokens,
    )
    return _checked(found, rows=config.special_tokens)


def _entering(names: list[str], tensors: dict[str, Tensor], *, pre: bool) -> dict[str, Tensor]:
    """The tokens that entered each block's attention, after its norm if that comes before."""
    blocks = [name.rpartition(".")[0] for name in names]
    before = [f"{block}.norm1" for block in blocks] if pre else ["", *blocks]
    return {name: tensors[step] for name, step in zip(names, before, strict=False) if step in tensors}


def _checked(found: Capture, *, rows: int | None = None) -> Capture:
    """With its one stage, or without layers and with the reason; the last layer may have that many rows only."""
    for layer in found.layers:
        wanted = rows if rows is not None and layer is found.layers[-1] else found.tokens
        if layer.q.shape[2] != wanted or layer.k.shape[2] != found.tokens:
            reason = f"attention {layer.name!r} is {layer.q.shape[2]} x {layer.k.shape[2]}, the grid says {found.tokens} tokens"
            return replace(found, layers=(), trouble=reason)
    if not found.layers:
        return found
    return replace(
        found,
        stages=(Stage(grid=found.grid, layers=tuple((layer, None) for layer in found.layers), merging=None),),
    )


# ---- foreign models -------------------------------------------------------------------------------------------------


def _foreign(model: nn.Module, images: Tensor, gradient: bool) -> Capture:
    images, logits, seen = _watched(model, images, gradient, None)
    records = seen.records
    if records and not gradient:
        layers = records[:-1] if is_pool(records[-1], records) else records
        if layers[-1].name != seen.tail:  # the guess which layer is the last was wrong: now it is known
            images, logits, seen = _watched(model, images, gradient, layers[-1].name)
            records = seen.records
    size = (images.shape[2], images.shape[3])
    nothing: Any = {"layers": (), "prefix": 0, "pool": None, "weights": None, "special": 0}
    plain = Capture(images=images, logits=logits, grid=_grid(model, size), entering=seen.entering, **nothing)
    if not records:
        return plain
    try:
        return _arranged(model, plain, records, seen)
    except UsageError as error:
        return replace(plain, trouble=error.message)


def _watched(
    model: nn.Module, images: Tensor, gradient: bool, tail: str | None
) -> tuple[Tensor, Tensor, Interception]:
    seen = Interception(model, gradient=gradient, tail=tail)
    with recording_fused(model), torch.set_grad_enabled(gradient), seen:
        images = images.detach().clone().requires_grad_(gradient)
        logits = call(model, images)
    return images, logits, seen


def _arranged(
    model: nn.Module, plain: Capture, records: list[AttentionRecord], seen: Interception
) -> Capture:
    """The capture with its layers in stages, and how the head reads them."""
    images, logits = plain.images, plain.logits
    pool = records[-1] if is_pool(records[-1], records) else None
    layers = tuple(records[:-1] if pool is not None else records)
    if any(len(one.q) != len(images) for one in layers):
        raise UsageError(
            "attention runs within windows whose places are not known", hint="use a method without attention"
        )
    size = (images.shape[2], images.shape[3])
    lengths = {length for one in layers for length in (one.q.shape[2], one.k.shape[2])}
    if len(lengths) == 1:
        grid, prefix = flat_grid(model, lengths.pop(), size, seen.convolutions)
        stages: tuple[Stage, ...] = (
            Stage(grid=grid, layers=tuple((layer, None) for layer in layers), merging=None),
        )
    else:
        stages, prefix = pyramid_stages(layers, size, seen.convolutions), 0
        grid = stages[0].grid
    pooled = seen.pooled if seen.pooled is not None and _fits(seen.pooled, stages, prefix) else None
    found = replace(plain, layers=layers, grid=grid, prefix=prefix, stages=stages, pooled=pooled)
    if logits.ndim == 4:
        return replace(found, shares=decoder_shares(model, len(stages)))
    if pool is not None and pools(pool, logits):
        return replace(found, pool=pool, pooled=None)
    read = reading(layers[-1], logits, prefix=prefix)
    return replace(found, read=read, special=0 if read is not None else min(1, prefix))


def _fits(pooled: Pooled, stages: tuple[Stage, ...], prefix: int) -> bool:
    """Whether what was averaged are the patches of the last stage, with or without the prefix."""
    return pooled.tokens.shape[1] in (stages[-1].tokens, stages[-1].tokens + prefix)


# ---- both -----------------------------------------------------------------------------------------------------------


def attention_rows(
    record: AttentionRecord, *, precise: bool = False, scratch: Scratch | None = None
) -> AttentionRows:
    """softmax(q kT * scale + bias) of one layer, rows at a time; in float64 if ``precise``, else at least float32.

    With ``scratch`` rows are good until the next ones are asked for, from this layer or from another with the same memory.
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


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key under which block2 comes before block10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _grid(model: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """The model's grid for images of that size; the pixels themselves where it does not say."""
    ask: Callable[[Any], Any] | None = getattr(model, "grid", None)
    if not callable(ask):
        return size
    rows, columns = ask(size)
    return int(rows), int(columns)
