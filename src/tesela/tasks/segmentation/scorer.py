"""Scorer of a segmenter: mean IoU and what else ``tesela.metrics.segmentation`` counts.

While training, masks are scored in the model's view. Where a batch brings masks at the images' own sizes, the
logits are upsampled to these (bilinear) before the class of each pixel is taken, so scores are about the
images, not about the model's view of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tesela.data.batch import Batch
from tesela.imaging.mask import IGNORE
from tesela.imaging.preprocess import placement
from tesela.imaging.spec import ImageSpec
from tesela.metrics.segmentation import SegmentationScores

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Longest side of a drawn mask, masks in a row, and pixels between them.
TILE, ACROSS, GAP = 160, 7, 4


class SegmentationScorer:
    """Scores over all images that were seen.

    Args:
        labels: the K class names, in the order of the logits.
        spec: the model's view; needed for masks at the images' own sizes.
        patch: height and width of a patch in pixels of the view, for block artefacts.
        boundary: whether boundary IoU is counted.
        drawn: numbers of the images whose masks are drawn.
        colours: of the classes.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        spec: ImageSpec | None = None,
        patch: tuple[int, int] | None = None,
        boundary: bool = False,
        drawn: Sequence[int] = (),
        colours: Sequence[tuple[int, int, int]] = (),
    ) -> None:
        self._scores = SegmentationScores(labels, boundary=boundary)
        self._spec, self._patch = spec, patch
        self._loss, self._pixels = 0.0, 0
        self._drawn: dict[int, NDArray[np.uint8] | None] = dict.fromkeys(drawn)
        self._colours = np.zeros((256, 3), np.uint8)
        self._colours[: len(colours)] = np.array(colours, np.uint8).reshape(-1, 3)

    def update(self, batch: Batch, outputs: Tensor | list[Tensor]) -> None:
        """Count in logits (B, K, h, w), or one (K, H, W) for each image at its own size."""
        targets, spec = batch.targets.long(), self._spec
        logits = in_view(outputs, (targets.shape[1], targets.shape[2]), spec)
        if isinstance(outputs, list):
            spec = None
        terms = F.cross_entropy(logits.to(targets.device), targets, ignore_index=IGNORE, reduction="none")
        self._loss += float(terms.double().sum())
        self._pixels += int((targets != IGNORE).sum())
        for index in range(len(batch)):
            truth = batch.full[index] if batch.full else batch.targets[index]
            predicted = classes_at(outputs[index], (truth.shape[0], truth.shape[1]), spec)
            view = targets.shape[1:]
            scale = truth.shape[0] / view[0], truth.shape[1] / view[1]
            patch = self._patch and (self._patch[0] * scale[0], self._patch[1] * scale[1])
            self._scores.update(predicted, truth.cpu().numpy(), patch=patch)
            if (place := int(batch.indices[index])) in self._drawn:
                self._drawn[place] = predicted

    def merge(self, other: SegmentationScorer) -> None:
        """Count in what another scorer has seen."""
        self._scores.merge(other._scores)
        self._loss += other._loss
        self._pixels += other._pixels

    def validation(self) -> dict[str, float]:
        """Mean loss of a pixel, mean IoU, share of right pixels."""
        confusion = self._scores.confusion
        hits, truth = np.diagonal(confusion), confusion.sum(1)
        union = truth + confusion.sum(0) - hits
        there = union > 0
        return {
            "loss": self._loss / max(self._pixels, 1),
            "mean_iou": float((hits[there] / union[there]).mean()) if there.any() else 0.0,
            "pixel_accuracy": int(hits.sum()) / max(int(truth.sum()), 1),
        }

    def picture(self) -> NDArray[np.uint8] | None:
        """The masks that are drawn, in rows of seven."""
        masks = [mask for mask in self._drawn.values() if mask is not None]
        if not masks:
            return None
        height, width = masks[0].shape
        scale = max(1, -(-max(height, width) // TILE))
        small = [mask[::scale, ::scale] for mask in masks]
        size = small[0].shape
        across = min(ACROSS, len(small))
        down = -(-len(small) // across)
        canvas = np.full((down * (size[0] + GAP) - GAP, across * (size[1] + GAP) - GAP, 3), 255, np.uint8)
        for number, mask in enumerate(small):
            top, left = number // across * (size[0] + GAP), number % across * (size[1] + GAP)
            canvas[top : top + size[0], left : left + size[1]] = self._colours[mask]
        return canvas

    def result(self) -> dict[str, Any]:
        """See ``tesela.metrics.segmentation.SegmentationScores``."""
        return self._scores.result()


def in_view(outputs: Tensor | list[Tensor], size: tuple[int, int], spec: ImageSpec | None) -> Tensor:
    """Logits (B, K, h, w), float32, of the model's view, from these or from logits at the images' sizes.

    Args:
        outputs: (B, K, h, w), or (K, H, W) each.
        size: (height, width) of the view.
        spec: the view; None where images fill it.
    """
    if isinstance(outputs, Tensor):
        return outputs.float()
    views = []
    for logits in outputs:
        place = (0, 0, *size) if spec is None else placement((logits.shape[1], logits.shape[2]), spec).view
        top, left, height, width = place
        part = F.interpolate(logits[None].float(), size=(height, width), mode="bilinear", align_corners=False)
        view = part.new_zeros((1, logits.shape[0], *size))
        view[:, :, top : top + height, left : left + width] = part
        views.append(view)
    return torch.cat(views)


def classes_at(logits: Tensor, size: tuple[int, int], spec: ImageSpec | None) -> np.ndarray[Any, Any]:
    """(H, W) most probable class of each pixel of an image of ``size``, from logits (K, h, w) of its view.

    Args:
        logits: of one image.
        size: (height, width) of the image.
        spec: the model's view; None where the image is the view.
    """
    if spec is not None:
        top, left, height, width = placement(size, spec).view
        logits = logits[:, top : top + height, left : left + width]
    if tuple(logits.shape[1:]) != size:
        logits = F.interpolate(logits[None].float(), size=size, mode="bilinear", align_corners=False)[0]
    classes: np.ndarray[Any, Any] = logits.max(0).indices.to(torch.uint8).cpu().numpy()
    return classes
