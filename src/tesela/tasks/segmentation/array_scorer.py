"""Scorer of a segmenter from arrays, on a machine without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tesela.core.config import build
from tesela.metrics.segmentation import SegmentationScores
from tesela.models import catalog
from tesela.tasks.segmentation.mask import mask_of

if TYPE_CHECKING:
    from tesela.models.bundle import BundleInfo
    from tesela.models.config import ModelConfig


class ArraySegmentationScorer:
    """Scores over all images that were seen, at their own sizes.

    Args:
        info: of the bundle.
    """

    def __init__(self, info: BundleInfo) -> None:
        self._info = info
        self._scores = SegmentationScores(info.labels, boundary=True)
        config: ModelConfig = build(catalog.family(info.architecture).config or dict, info.model)
        rows, columns = config.grid(info.image.size)
        self._patch = info.image.height // rows, info.image.width // columns

    def update(self, outputs: NDArray[np.floating[Any]], truth: Sequence[NDArray[Any]]) -> None:
        """Count in logits (B, K, h, w) and masks (H, W)."""
        for logits, mask in zip(outputs, truth, strict=True):
            size = mask.shape[0], mask.shape[1]
            scale = size[0] / self._info.image.height, size[1] / self._info.image.width
            patch = self._patch[0] * scale[0], self._patch[1] * scale[1]
            self._scores.update(mask_of(logits, size, self._info), mask, patch=patch)

    def result(self) -> dict[str, Any]:
        """See ``tesela.metrics.segmentation.SegmentationScores``."""
        return self._scores.result()
