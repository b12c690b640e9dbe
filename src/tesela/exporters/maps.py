"""Network with its explanations as further outputs: a map of the best class, and rollout.

The map is presence of a classifier (which ``tesela explain`` draws by default above 64 patches) and gradient
rollout of a segmenter, written without control flow, so that forward and backward pass can be traced into one
graph that explains without PyTorch. Both are (B, H, W) at the input's size, as ``Explanation.map`` has them.

Odd: attention stays spelled out here, so a graph with maps needs the memory of one layer's attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tesela.core.errors import WeightsError
from tesela.exporters.gradients import ProductResize
from tesela.layers.pool import Readout
from tesela.layers.position.resize import resize_matrices
from tesela.layers.trace import AttentionRecord, Trace
from tesela.models.classifier import Classifier
from tesela.models.embedder import plain_pool
from tesela.models.encoder.network import Encoder

if TYPE_CHECKING:
    from tesela.layers.grid import Grid
    from tesela.models.model import Model

MAP, ROLLOUT = "map", "rollout"
#: Share of the attention in a layer's mixing, as ``RolloutOptions`` has it.
MIXING = 0.5
POOL_LAYER = "pool."


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """One traced forward pass.

    Attributes:
        logits: (B, K) or (B, K, H, W).
        layers: attentions from input to output.
        pool: the attention of an attention pool, if there is one.
        tensors: traced steps: the last norm, the pool's weights and result.
        grid: rows and columns of patches.
        prefix: tokens before them.
        readout: how the head reads the last layer.
        features: (B, D'), as ``tesela.models.embedder.representation`` has them.
    """

    logits: Tensor
    layers: list[AttentionRecord]
    pool: AttentionRecord | None
    tensors: dict[str, Tensor]
    grid: Grid
    prefix: int
    readout: Readout
    features: Tensor

    @property
    def tokens(self) -> int:
        """N of every layer."""
        return self.prefix + self.grid[0] * self.grid[1]


class ExplainingModel(nn.Module):
    """Images (B, C, H, W) to logits, map (B, H, W) and rollout (B, H, W), and perhaps features (B, D').

    Args:
        model: a classifier or segmenter whose backbone is an encoder with attention on one grid; its kernels
            are ``matmul``.
        features: whether to give them.

    Raises:
        WeightsError: it is another.
    """

    differentiates = True

    def __init__(self, model: Model, *, features: bool = False) -> None:
        super().__init__()
        check_mappable(model)
        self.model, self.features = model.requires_grad_(True), features
        self.pool = plain_pool(model)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs."""
        with torch.enable_grad():
            found = self._traced(images)
            pixels = _won_pixels(found.logits)
            best = _best_class(found.logits)
            picked = found.logits * (best[:, :, None, None] * pixels if pixels is not None else best)
            outputs = [layer.out for layer in found.layers]
            if found.pool is not None:
                outputs.append(found.pool.out)
            if found.readout.averages and pixels is None:
                outputs.append(found.tensors["pool"])
            gradients = torch.autograd.grad(picked.sum(), outputs)
        start = _start(found, pixels)
        if pixels is None:
            evidence = _presence(found, list(gradients))
        else:
            weights = [_weighted(one, slope) for one, slope in zip(found.layers, gradients, strict=False)]
            evidence = _walk(weights, start, found)
        shares = _walk([attention_matrix(one).mean(1) for one in found.layers], start, found)
        size = (images.shape[2], images.shape[3])
        logits, maps = found.logits.detach(), (_at_pixels(one, found, size) for one in (evidence, shares))
        return (logits, *maps, *([found.features.detach()] if self.features else []))

    def _traced(self, images: Tensor) -> Pass:
        model: Any = self.model
        trace = Trace(keep=lambda name: name in ("norm", "pool", "pool.weights"))
        if isinstance(model, Classifier):  # as its forward pass, where no token is computed that nobody reads
            readout = model.readout()
            features = model.backbone(images, trace=trace, first=readout.tokens or None)
            pooled = model.pool(features.tokens, features.prefix, trace=trace.inside("pool"))
            pooled = pooled if model.pooled_norm is None else model.pooled_norm(pooled)
            logits = model.head(pooled)
        else:
            with ProductResize():
                readout, logits = Readout("mean"), model(images, trace=trace)
            pooled = self.pool(trace.tensors["norm"], model.prefix_tokens)
        names = sorted(trace.attentions)
        return Pass(
            logits=logits,
            layers=[trace.attentions[name] for name in names if not name.startswith(POOL_LAYER)],
            pool=next((trace.attentions[name] for name in names if name.startswith(POOL_LAYER)), None),
            tensors=trace.tensors,
            grid=model.grid((images.shape[2], images.shape[3])),
            prefix=model.prefix_tokens,
            readout=readout,
            features=pooled,
        )


def check_mappable(model: Model) -> None:
    """Refuse models whose default map cannot be written into a graph.

    Raises:
        WeightsError: it names the part.
    """
    other = "export without --with-map, and explain with PyTorch: tesela explain RUN IMAGE"
    if not isinstance(model.backbone, Encoder):
        kind = type(model.backbone).__name__
        raise WeightsError(
            f"maps of a {kind} cannot be exported: its feature maps have several grids or no attention; "
            "those of vit, deit, cct and hybrid models can",
            hint=other,
        )
    grid = model.grid(model.config.image_size)
    size = model.config.image_size
    if not isinstance(model, Classifier) and any(
        side % count for side, count in zip(size, grid, strict=True)
    ):
        raise WeightsError(
            f"maps of this segmenter cannot be exported: its grid of {grid[0]} x {grid[1]} tokens does not "
            "divide the image",
            hint=other,
        )


def attention_matrix(record: AttentionRecord) -> Tensor:
    """The whole matrix (B, H, rows, N) of a layer; rows that see nothing are zero."""
    logits = (record.q * record.scale) @ record.k.transpose(-2, -1)
    if record.bias is None:
        return logits.softmax(-1)
    logits = logits + record.bias
    empty = logits.amax(-1, keepdim=True) == -torch.inf
    return logits.softmax(-1).masked_fill(empty, 0.0)


def _best_class(logits: Tensor) -> Tensor:
    """(B, K), one at the predicted class: of a segmenter, the class with most pixels."""
    classes = torch.arange(logits.shape[1], device=logits.device)
    if logits.ndim == 2:
        best = logits.argmax(1)
    else:
        won = (logits.argmax(1, keepdim=True) == classes[None, :, None, None]).to(logits.dtype)
        best = won.sum((2, 3)).argmax(1)
    return (classes[None] == best[:, None]).to(logits.dtype)


def _won_pixels(logits: Tensor) -> Tensor | None:
    """(B, 1, H, W), the share of each pixel that a segmenter's class with most pixels wins; sum 1."""
    if logits.ndim == 2:
        return None
    classes = torch.arange(logits.shape[1], device=logits.device)
    hits = (logits.argmax(1, keepdim=True) == classes[None, :, None, None]).to(logits.dtype)
    won = (hits * _best_class(logits)[:, :, None, None]).sum(1, keepdim=True)
    return (won / won.sum((2, 3), keepdim=True)).detach()


def _start(found: Pass, pixels: Tensor | None) -> Tensor:
    """(B, 1, N), what the head reads of the last layer's tokens; sum 1."""
    images, patches = found.logits.shape[0], found.tokens - found.prefix
    like = found.layers[0].out
    if pixels is not None:
        rows, columns = found.grid
        step = pixels.shape[2] // rows, pixels.shape[3] // columns
        area = F.avg_pool2d(pixels, step).flatten(2)
        return F.pad(area / area.sum(-1, keepdim=True), (found.prefix, 0))
    if found.pool is not None:
        row = attention_matrix(found.pool).mean(1).mean(1, keepdim=True)
        return F.pad(row / row.sum(-1, keepdim=True), (found.tokens - row.shape[-1], 0))
    if "pool.weights" in found.tensors:
        return F.pad(found.tensors["pool.weights"], (found.prefix, 0))
    special, mean = like.new_zeros(images, 1, found.prefix), like.new_ones(images, 1, patches) / patches
    if found.readout.how == "class_mean":
        special[..., 0] = 0.5
        return torch.cat([special, mean * 0.5], dim=2)
    if found.readout.tokens:
        head = like.new_ones(images, 1, found.readout.tokens) / found.readout.tokens
        return F.pad(head, (0, found.tokens - found.readout.tokens))
    return torch.cat([special, mean], dim=2)


def _presence(found: Pass, gradients: list[Tensor]) -> Tensor:
    """(B, 1, N), see ``tesela.attribution.methods.presence``."""
    records = [*found.layers, *([found.pool] if found.pool is not None else [])]
    total = found.layers[0].out.new_zeros(found.logits.shape[0], 1, found.tokens)
    for record, slope in zip(records, gradients, strict=False):
        level = (slope * record.out).sum(-1, keepdim=True)
        gathered = attention_matrix(record).transpose(-2, -1) @ torch.cat([slope, level], dim=-1)
        falls = ((gathered[..., :-1] * record.v).sum(-1) - gathered[..., -1]).sum(1, keepdim=True)
        total = total + F.pad(falls, (found.tokens - falls.shape[-1], 0))
    if not found.readout.averages:
        return total
    tokens = found.tensors["norm"][:, found.prefix :]
    slope = gradients[-1][:, -tokens.shape[-1] :]
    weights = found.tensors.get("pool.weights")
    share = 1.0 / tokens.shape[1] if weights is None else weights[:, 0]
    own = (tokens @ slope[:, :, None]).squeeze(-1)
    mean = (own * share).sum(-1, keepdim=True)
    return total + F.pad(share * (own - mean), (found.prefix, 0))[:, None]


def _weighted(record: AttentionRecord, gradient: Tensor) -> Tensor:
    """(B, rows, N): mean over heads of relu(A * dy/dA) up to a factor per row, as gradient rollout has it."""
    size = gradient.abs().amax((1, 3), keepdim=True)
    scaled = gradient / torch.where(size == 0, torch.ones_like(size), size)
    return (attention_matrix(record) * (scaled @ record.v.transpose(-2, -1))).clamp(min=0.0).mean(1)


def _walk(mixing: list[Tensor], start: Tensor, found: Pass) -> Tensor:
    """(B, 1, N): the start vector carried from the last layer to the first, half of it by the skips."""
    shares = start
    for rows in reversed(mixing):
        missing = found.tokens - rows.shape[1]  # of the last layer some first rows only
        part = shares if rows is not mixing[-1] else shares[..., : rows.shape[1]]
        total = rows.sum(-1)[:, None]
        empty = total <= 0
        portion = torch.where(empty, torch.zeros_like(part), part / torch.where(empty, 1.0, total))
        stay = torch.where(empty, part, (1 - MIXING) * part)
        stay = stay if rows is not mixing[-1] else F.pad(stay, (0, missing))
        shares = stay + (MIXING * portion) @ rows
    return shares


def _at_pixels(shares: Tensor, found: Pass, size: tuple[int, int]) -> Tensor:
    """(B, 1, N) of tokens to (B, H, W), linear between the patches' centres."""
    tokens = torch.unflatten(shares[:, 0, found.prefix :], 1, found.grid)
    down, right = resize_matrices(found.grid, size, mode="bilinear", like=tokens)
    pixels: Tensor = down @ tokens @ right.transpose(0, 1)
    return pixels.detach()
