"""Classifiers: backbone, pool, linear head (paper, equation 4)."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor, nn

from tesela.core.registry import register
from tesela.layers.initialise import initialise
from tesela.layers.pool import Readout
from tesela.layers.trace import OFF, Trace
from tesela.models.backbone import Backbone
from tesela.models.model import Model


class Classifier(Model):
    """Images (B, C, H, W) to logits (B, K).

    Args:
        backbone: turns images into tokens.
        num_classes: K.
    """

    kind = "classifier"

    def __init__(self, backbone: Backbone[Any], *, num_classes: int) -> None:
        super().__init__(backbone, num_classes=num_classes)
        self.pool = backbone.make_pool()
        self.pooled_norm = backbone.make_pooled_norm()
        self.head = backbone.make_head(num_classes)

    def forward(self, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        """Logits (B, K) of images (B, C, H, W).

        Without a trace, the last block computes only the tokens that the pool reads: with a class token one
        instead of all.
        """
        logits: Tensor = self.head(self.pooled(images, trace=trace), trace=trace.inside("head"))
        return logits

    def pooled(self, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        """The head's input (B, D') of images (B, C, H, W); D' is the configuration's ``pooled_width``."""
        first = self.readout().tokens if trace is OFF else 0
        features = self.backbone(images, trace=trace, first=first or None)
        pooled: Tensor = self.pool(features.tokens, features.prefix, trace=trace.inside("pool"))
        return pooled if self.pooled_norm is None else trace("pooled_norm", self.pooled_norm(pooled))

    def readout(self) -> Readout:
        """How the head reads the backbone's tokens."""
        found: Readout = self.pool.readout  # type: ignore[assignment]
        return found

    def make_head(self, num_classes: int) -> nn.Module:
        """What the backbone gives a classifier."""
        return self.backbone.make_head(num_classes)

    def reset_head(self, num_classes: int) -> None:
        """Replace the head by one linear layer of ``num_classes``, all zero (paper, section 3.2)."""
        old, config = next(self.head.parameters()), self.backbone.config
        if hasattr(config, "head"):
            self.backbone.config = dataclasses.replace(config, head="linear", head_width=0)
        self.head = self.make_head(num_classes).to(device=old.device, dtype=old.dtype)
        initialise(self.head)
        self.num_classes = num_classes


register(
    "head", Classifier.kind, target=f"{__name__}:Classifier", summary="pool and head: one vector of logits"
)
