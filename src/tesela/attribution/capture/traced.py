"""Capture of models of this package, which fill a trace and state their readout."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from tesela.attribution.capture.arranged import grid_of, watched
from tesela.attribution.capture.call import call
from tesela.attribution.capture.pooled import Pooled
from tesela.attribution.capture.record import Capture
from tesela.attribution.capture.windowed import windowed
from tesela.attribution.methods.pyramid import Stage
from tesela.layers.pool import Readout
from tesela.layers.trace import Trace
from tesela.models.classifier import Classifier
from tesela.models.model import Model

POOL = "pool."


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
        places: Tensor | None = None,
    ) -> None:
        """Write q and k down; the places of v and out hold nothing of use."""
        q, k = (tensor.clone(memory_format=torch.contiguous_format) for tensor in (q, k))
        super().attention(q, k, k, q, scale=scale, bias=bias, places=places)


def capture_traced(model: nn.Module, images: Tensor, gradient: bool) -> Capture | None:
    """A pass with a trace; None if its layers have several grids."""
    kept = re.compile(
        r"norm|pool(\.weights)?|(stages\.\d+\.)?block\d+(\.norm1)?" if gradient else r"pool\.weights"
    )
    trace = (Trace if gradient else QueryKeyTrace)(keep=lambda name: kept.fullmatch(name) is not None)
    with torch.set_grad_enabled(gradient):
        images = images.detach().clone().requires_grad_(gradient)
        logits = call(model, images, trace=trace)
    names = sorted(trace.attentions, key=natural_order)
    lengths = {trace.attentions[name].q.shape[2] for name in names if not name.startswith(POOL)}
    inside = any(trace.attentions[name].places is not None for name in names)
    if len(lengths) > 1 and not inside:
        return None
    ask: Callable[[], Readout] = getattr(model, "readout", lambda: Readout("mean"))
    readout, prefix = ask(), int(getattr(model, "prefix_tokens", 0))
    found = Capture(
        images=images,
        logits=logits,
        layers=tuple(trace.attentions[name] for name in names if not name.startswith(POOL)),
        grid=grid_of(model, (images.shape[2], images.shape[3])),
        prefix=prefix,
        pool=next((trace.attentions[name] for name in names if name.startswith(POOL)), None),
        weights=trace.tensors.get("pool.weights"),
        special=readout.tokens,
        entering=_entering(names, trace.tensors, pre=getattr(model, "pre_norm", True)),
        pooled=_pooled(trace.tensors, prefix) if readout.averages else None,
    )
    if inside and isinstance(model, Model):
        return windowed(found, model, model.config.stage_grids((images.shape[2], images.shape[3])))
    if readout.how == "class_mean":
        half = torch.full((found.tokens,), 0.5 / (found.tokens - found.prefix), dtype=torch.float64)
        half[: found.prefix] = 0.0
        half[0] = 0.5
        found = replace(found, read=half)
    return checked(found)


def _pooled(tensors: dict[str, Tensor], prefix: int) -> Pooled | None:
    """The mean that the head reads; None where the graph was not kept."""
    if not {"pool", "norm"} <= tensors.keys():
        return None
    weights = tensors.get("pool.weights")
    tokens, result = tensors["norm"][:, prefix:], tensors["pool"]
    return Pooled(tokens=tokens, result=result, weights=None if weights is None else weights[:, 0])


def capture_short(model: nn.Module, images: Tensor) -> Capture | None:
    """A pass without a trace of a model whose head reads only the first tokens.

    None if the model is another, or computes attention otherwise.
    """
    if not isinstance(model, Classifier) or model.readout().how != "first" or model.kernel != "fused":
        return None
    if model.backbone.needs_grid:
        return None
    special = model.readout().tokens
    images, logits, seen = watched(model, images, False, "")
    layers = tuple(seen.records)
    found = Capture(
        images=images,
        logits=logits,
        layers=layers,
        grid=grid_of(model, (images.shape[2], images.shape[3])),
        prefix=model.prefix_tokens,
        pool=None,
        weights=None,
        special=special,
    )
    return checked(found, rows=special)


def _entering(names: list[str], tensors: dict[str, Tensor], *, pre: bool) -> dict[str, Tensor]:
    """The tokens that entered each block's attention, after its norm if that comes before."""
    blocks = [name.rpartition(".")[0] for name in names]
    before = [f"{block}.norm1" for block in blocks] if pre else ["", *blocks]
    return {name: tensors[step] for name, step in zip(names, before, strict=False) if step in tensors}


def checked(found: Capture, *, rows: int | None = None) -> Capture:
    """With its one stage, or without layers and with the reason.

    The last layer may have that many rows only.
    """
    for layer in found.layers:
        wanted = rows if rows is not None and layer is found.layers[-1] else found.tokens
        if layer.q.shape[2] != wanted or layer.k.shape[2] != found.tokens:
            reason = (
                f"attention {layer.name!r} is {layer.q.shape[2]} x {layer.k.shape[2]}, the grid says "
                f"{found.tokens} tokens"
            )
            return replace(found, layers=(), trouble=reason)
    if not found.layers:
        return found
    return replace(
        found,
        stages=(Stage(grid=found.grid, layers=tuple((layer, None) for layer in found.layers), merging=None),),
    )


def natural_order(name: str) -> list[tuple[int, str]]:
    """A sort key under which block2 comes before block10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
