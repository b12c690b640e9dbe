"""One forward pass of a model, with what is needed to explain it: queries and keys of each layer, and how its head reads.

The fused kernel stays on. Attention is recomputed from q and k for a few rows at a time, so no map of a whole layer ever
exists; without gradients only q and k are kept, copied out of the qkv tensor that would otherwise stay alive with v.
Layers are keyed and ordered by name, numbers counted as numbers, never by the order of calls.

``undisturbed`` puts the model in evaluation mode by its flags alone and gives flags, random state and gradients back as
they were, also when the model raises. Nothing is hooked.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tesela.core.errors import UsageError
from tesela.explain.rollout import Rows, accurate, fuse
from tesela.layers.trace import AttentionRecord, Trace

#: Elements of a block of attention rows with all heads and images: 4 MB in float32, about what a core's cache holds.
BLOCK = 1_048_576
POOL = "pool."


@dataclass(frozen=True, kw_only=True, slots=True)
class Capture:
    """What one forward pass left behind.

    Attributes:
        images: (B, C, H, W) as the model saw them; with gradients, the leaf of the graph.
        logits: (B, K).
        layers: the self-attentions from input to output; empty where the model has none.
        grid: rows and columns of patches; of pixels where the model does not say.
        prefix: tokens before the patches.
        pool: the attention with which the head reads the tokens, if it does.
        weights: (B, 1, n), the weights with which the head averages the patches, if it does.
        special: tokens that the head reads directly (class, distillation); 0 where it averages.
    """

    images: Tensor
    logits: Tensor
    layers: tuple[AttentionRecord, ...]
    grid: tuple[int, int]
    prefix: int
    pool: AttentionRecord | None
    weights: Tensor | None
    special: int

    @property
    def tokens(self) -> int:
        """N: prefix and patches."""
        return self.prefix + self.grid[0] * self.grid[1]

    def start(self, *, fusion: str = "mean", patch: tuple[int, int] | None = None) -> Tensor:
        """(B, 1, N): how the head reads the last layer's tokens, or the unit vector of the patch (row, column).

        Raises:
            UsageError: the patch is not on the grid.
        """
        vector = torch.zeros(len(self.logits), 1, self.tokens, dtype=accurate(self.logits.device), device=self.logits.device)
        if patch is not None:
            vector[..., self.prefix + self._index(patch)] = 1.0
        elif self.pool is not None:
            row = fuse(attention_rows(self.pool)(0, 1), fusion).to(vector.dtype)
            vector += row / row.sum(-1, keepdim=True)
        elif self.weights is not None:
            vector[..., self.prefix :] = self.weights.detach()
        elif self.special:
            vector[..., : self.special] = 1.0 / self.special
        else:
            vector[..., self.prefix :] = 1.0 / (self.tokens - self.prefix)
        return vector

    def _index(self, patch: tuple[int, int]) -> int:
        (row, column), (rows, columns) = patch, self.grid
        if not (0 <= row < rows and 0 <= column < columns):
            raise UsageError(f"there is no patch {row},{column} on a grid of {rows} x {columns}", hint="rows and columns count from 0")
        return row * columns + column

    def block(self) -> int:
        """Rows of attention to compute at once."""
        widest = max(layer.q.shape[0] * layer.q.shape[1] * layer.k.shape[2] for layer in self.layers)
        return max(1, BLOCK // widest)


class QueryKeyTrace(Trace):
    """Keeps q and k of each attention as copies, so that v and the rest of the qkv tensor can be freed."""

    def inside(self, scope: str) -> Trace:
        """The same book under a longer name."""
        inner = QueryKeyTrace(keep=self._keep, attention=self._keep_attention)
        inner.tensors, inner.attentions = self.tensors, self.attentions
        inner._scope = f"{self._scope}.{scope}".strip(".")
        return inner

    def attention(self, q: Tensor, k: Tensor, v: Tensor, out: Tensor, *, scale: float, bias: Tensor | None = None) -> None:  # noqa: ARG002
        """Write q and k down; the places of v and out hold nothing of use."""
        q, k = (tensor.clone(memory_format=torch.contiguous_format) for tensor in (q, k))
        super().attention(q, k, k, q, scale=scale, bias=bias)


def capture(model: nn.Module, images: Tensor, *, gradient: bool) -> Capture:
    """Run the model once; call it inside ``undisturbed``.

    Args:
        model: a classifier; traced where its ``forward`` takes a trace.
        images: (B, C, H, W) on the model's device.
        gradient: keep the graph, so that logits can be differentiated by attention and images.
    """
    traced = "trace" in inspect.signature(model.forward).parameters
    trace = (Trace if gradient else QueryKeyTrace)(keep=lambda name: name == "pool.weights")
    with torch.set_grad_enabled(gradient):
        images = images.detach().clone().requires_grad_(gradient)
        logits = model(images, trace=trace) if traced else model(images)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise UsageError("only classifiers, whose output is (B, K), can be explained", hint="give a model trained with the task classify")
    names = sorted(trace.attentions, key=_natural)
    config = getattr(model, "config", None)
    found = Capture(
        images=images,
        logits=logits,
        layers=tuple(trace.attentions[name] for name in names if not name.startswith(POOL)),
        grid=_grid(model, (images.shape[2], images.shape[3])),
        prefix=int(getattr(config, "prefix", 0)),
        pool=next((trace.attentions[name] for name in names if name.startswith(POOL)), None),
        weights=trace.tensors.get("pool.weights"),
        special=int(config.special_tokens) if getattr(config, "pool", None) == "class" else 0,  # type: ignore[union-attr]
    )
    for layer in found.layers:
        if layer.q.shape[2] != found.tokens or layer.k.shape[2] != found.tokens:
            raise UsageError(
                f"attention {layer.name!r} is {layer.q.shape[2]} x {layer.k.shape[2]}, the grid says {found.tokens} tokens",
                hint="rollout needs every layer to mix the same tokens; use gradient_input",
            )
    return found


def attention_rows(record: AttentionRecord, *, precise: bool = False) -> Rows:
    """softmax(q kT * scale + bias) of one layer, rows at a time; in float64 if ``precise``, else at least float32."""
    kind = accurate(record.q.device) if precise else torch.promote_types(record.q.dtype, torch.float32)
    q = record.q.detach()
    keys = record.k.detach().to(kind).transpose(-2, -1)

    def rows(begin: int, end: int) -> Tensor:
        logits = (q[:, :, begin:end].to(kind) * record.scale) @ keys
        if record.bias is None:
            return logits.softmax(-1)
        part = record.bias.detach()
        part = part if part.shape[-2] == 1 else part[..., begin:end, :]
        logits = logits.masked_fill(~part, -torch.inf) if part.dtype == torch.bool else logits + part
        return logits.softmax(-1).masked_fill(logits.amax(-1, keepdim=True) == -torch.inf, 0.0)

    return rows


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, no inference mode; outside, flags, random state and gradients as before, whatever happens."""
    flags = [(module, module.training) for module in model.modules()]
    held = [(parameter, parameter.grad, parameter.requires_grad) for parameter in model.parameters()]
    devices = sorted({parameter.device.index or 0 for parameter, *_ in held if parameter.device.type == "cuda"})
    with torch.inference_mode(False), torch.random.fork_rng(devices=devices):
        try:
            for module, _ in flags:
                module.training = False
            yield
        finally:
            for module, training in flags:
                module.training = training
            for parameter, gradient, required in held:
                parameter.grad = gradient
                if parameter.requires_grad != required:
                    parameter.requires_grad_(required)


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key under which block2 comes before block10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _grid(model: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """The model's grid for images of that size; the pixels themselves where it does not say."""
    ask = getattr(model, "grid", None)
    if not callable(ask):
        return size
    rows, columns = ask(size)
    return int(rows), int(columns)
