"""Classifiers that merge alike tokens from block to block, for speed; inference alone."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from tesela.core.errors import UsageError
from tesela.layers.attention.attention import Attention, attend
from tesela.layers.block import Block
from tesela.layers.merging import merge_alike
from tesela.models.classifier import Classifier
from tesela.models.encoder.network import Encoder


class MergedClassifier(nn.Module):
    """Images (B, C, H, W) to logits (B, K), with fewer tokens from block to block.

    Args:
        model: a classifier with full attention and pre-norm, that reads first tokens or the patches' mean;
            its weights are shared.
        count: tokens that disappear in each block but the last; with 0 it is the model itself.

    Raises:
        UsageError: tokens of that model cannot be merged.
    """

    def __init__(self, model: nn.Module, count: int) -> None:
        super().__init__()
        reason = unmergeable(model)
        if reason:
            raise UsageError(f"tokens of this model cannot be merged: {reason}", hint="take smaller images")
        self.model, self.count = cast(Classifier, model), count

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K)."""
        if self.count < 1:
            logits: Tensor = self.model(images)
            return logits
        model, backbone = self.model, cast(Any, self.model.backbone)
        readout, prefix = model.readout(), model.prefix_tokens
        tokens = backbone.embedded(images)
        sizes = torch.ones(tokens.shape[:2], device=tokens.device, dtype=torch.float32)
        last = len(backbone.blocks) - 1
        for index, block in enumerate(backbone.blocks):
            first = readout.tokens if index == last else 0
            mixed, keys = size_weighted(block.attention, block.norm1(tokens), sizes, first=first or None)
            tokens = tokens[:, : first or None] + block.scale1(mixed)
            if index < last:
                tokens, sizes = merge_alike(tokens, sizes, keys, count=self.count, prefix=prefix)
            tokens = tokens + block.scale2(block.mlp(block.norm2(tokens)))
        tokens = backbone.norm(tokens)
        if readout.averages:  # of the patches, not of the tokens
            shares = (sizes[:, prefix:] / sizes[:, prefix:].sum(1, keepdim=True)).to(tokens.dtype)
            pooled = (shares[:, None] @ tokens[:, prefix:])[:, 0]
        else:
            pooled = model.pool(tokens, prefix)
        pooled = pooled if model.pooled_norm is None else model.pooled_norm(pooled)
        found: Tensor = model.head(pooled)
        return found


def size_weighted(
    attention: Attention, tokens: Tensor, sizes: Tensor, *, first: int | None = None
) -> tuple[Tensor, Tensor]:
    """Attention (B, N, D) that counts each token as often as its size (B, N); and the mean key (B, N, d).

    Of the ``first`` tokens only, to all, if given.
    """
    q, k, v = attention.project(tokens) if first is None else attention.project_first(tokens, first)
    bias = sizes.log()[:, None, None].to(q.dtype)  # (B, 1, 1, N)
    result = attend(q, k, v, bias=bias, scale=attention.scale, kernel=attention.kernel)
    return attention.joined(result), k.mean(1)


def unmergeable(model: nn.Module) -> str:
    """Why tokens of a model cannot be merged; empty where they can."""
    if not isinstance(model, Classifier):
        return "its outputs need the whole grid of patches"
    backbone = model.backbone
    if not isinstance(backbone, Encoder):
        return f"a {type(backbone).__name__} has no tokens of one grid"
    config = backbone.config
    if any(type(block) is not Block or type(block.attention) is not Attention for block in backbone.blocks):
        return "its attention depends on where tokens stand"
    if config.norm != "pre" or config.position_at != "input":
        return "its blocks normalise or place tokens otherwise than a plain ViT's"
    if model.readout().how not in ("first", "mean"):
        return f"its head reads tokens by {model.readout().how}"
    return ""
