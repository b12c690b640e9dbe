"""Embedders: backbone and pool, one vector per image; and the features of any model."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from tesela.layers.pool import MeanPool, Readout
from tesela.layers.trace import OFF, Trace
from tesela.models.backbone import Backbone
from tesela.models.classifier import Classifier
from tesela.models.model import Model


class Embedder(Model):
    """Images (B, C, H, W) to embeddings (B, D'); all its weights are the backbone's.

    Args:
        backbone: turns images into tokens.
        num_classes: 0, for an embedder knows none.
        pool: ``own``: what a classifier of the family reads, the mean of the patches where that has weights;
            ``mean``: the mean of the patches.
    """

    kind = "embedder"

    def __init__(
        self, backbone: Backbone[Any], *, num_classes: int = 0, pool: Literal["own", "mean"] = "own"
    ) -> None:
        super().__init__(backbone, num_classes=num_classes)
        self.read_with(pool)
        self.head = nn.Identity()

    def read_with(self, pool: Literal["own", "mean"]) -> None:
        """Choose how tokens become the embedding."""
        self.options = {"pool": pool}
        own = self.backbone.make_pool()
        plain = pool == "own" and not list(own.parameters())
        self.pool = own if plain else MeanPool()
        config = self.backbone.config
        self.width: int = config.pooled_width if plain else config.token_width

    def forward(self, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        """Embeddings (B, D') of images (B, C, H, W)."""
        first = self.readout().tokens if trace is OFF else 0
        features = self.backbone(images, trace=trace, first=first or None)
        pooled: Tensor = self.pool(features.tokens, features.prefix, trace=trace.inside("pool"))
        return trace("head", pooled)

    def readout(self) -> Readout:
        """How the embedding reads the backbone's tokens."""
        found: Readout = self.pool.readout  # type: ignore[assignment]
        return found

    def make_head(self, num_classes: int) -> nn.Module:  # noqa: ARG002
        """Nothing: there are no classes."""
        return nn.Identity()

    def reset_head(self, num_classes: int) -> None:
        """Leave all as it is: there are no classes."""


def representation(model: Model, images: Tensor) -> Tensor:
    """Features (B, D) of images (B, C, H, W), float32.

    What the head of a classifier reads; of any other model what a classifier's pool makes of its tokens,
    their mean where that pool has weights of its own.
    """
    if isinstance(model, Classifier):
        return model.pooled(images).float()
    features = model.features(images)
    found: Tensor = plain_pool(model)(features.tokens, features.prefix)
    return found.float()


def plain_pool(model: Model) -> nn.Module:
    """The pool of a classifier of the model's family, the mean of the patches where that has weights."""
    own = model.backbone.make_pool()
    return MeanPool() if list(own.parameters()) else own
