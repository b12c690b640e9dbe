"""Network with its features, an embedding of an image, as a further output."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tesela.core.errors import UsageError
from tesela.exporters.samples import Samples
from tesela.models.classifier import Classifier
from tesela.models.embedder import Embedder, plain_pool
from tesela.models.model import Model
from tesela.runtime.backends.base import FEATURES, Backend


class FeaturesModel(nn.Module):
    """Images (B, C, H, W) to logits and features (B, D'), in one pass.

    Features are those of ``tesela.models.embedder.representation``.

    Args:
        model: a classifier or segmenter.

    Raises:
        UsageError: it is an embedder, whose only output is its features.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        if isinstance(model, Embedder):
            raise UsageError(
                "this model knows no classes: its only output is its features",
                hint="leave --with-features away",
            )
        self.model, self.pool = model, plain_pool(model)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Both outputs."""
        model: Any = self.model
        if isinstance(model, Classifier):
            pooled = model.pooled(images)
            return model.head(pooled), pooled
        found = model.backbone(images, taps=model.taps)
        return model.decoded(found, images), self.pool(found.tokens, found.prefix)


def feature_similarity(samples: Samples, program: Backend, reference: Backend) -> float:
    """Mean cosine similarity of a program's features with the model's over the compared images."""
    found = [
        _cosines(program.output(FEATURES, images), reference.output(FEATURES, images))
        for images, _ in samples.batches()
    ]
    return float(np.concatenate(found).mean())


def _cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """(B,), of the rows of two matrices (B, D')."""
    first, second = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (one, other))
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products: NDArray[np.float64] = (first * second).sum(1) / np.maximum(lengths, 1e-30)
    return products
