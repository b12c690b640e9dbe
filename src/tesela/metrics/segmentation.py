"""Scores of masks in constant memory: confusion of pixels, boundary IoU, block artefacts.

Pixels that are ignored in the truth count nowhere. ``mean_iou`` is the mean over the classes that occur in
the truth or in a prediction (macro); ``boundary_iou`` (Cheng et al. 2021, arXiv 2103.16562) is the same over
the pixels of each region that lie within a distance of its border; ``block_artefacts`` is how much more often
neighbours differ across borders of patches than elsewhere, 1 where nothing shows.

Odd: ignored pixels are taken out of truth and prediction alike before boundaries are found, so the border of
an ignored region is a boundary of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tesela.imaging.mask import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Distance that counts as boundary, as a share of the image's diagonal.
BOUNDARY = 0.02


class SegmentationScores:
    """Scores over all masks that were seen.

    Args:
        labels: the K class names.
        boundary: whether boundary IoU is counted, which costs more than all else.
    """

    def __init__(self, labels: Sequence[str], *, boundary: bool = True) -> None:
        self.labels = tuple(labels)
        self.boundary = boundary
        self.images = 0
        self.confusion = np.zeros((len(labels), len(labels)), np.int64)
        self._edges = np.zeros((2, len(labels)), np.int64)  # intersection, union
        self._blocks = np.zeros(
            (2, 2, 2), np.int64
        )  # truth or prediction, inside or border, changes or pairs

    def update(
        self,
        predicted: NDArray[np.uint8],
        truth: NDArray[np.uint8],
        *,
        patch: tuple[float, float] | None = None,
    ) -> None:
        """Count in one image.

        Args:
            predicted: (H, W) class numbers.
            truth: (H, W) class numbers and ``IGNORE``.
            patch: height and width of a patch in these pixels; None leaves block artefacts out.
        """
        self.images += 1
        count = len(self.labels)
        seen = truth != IGNORE
        pairs = truth[seen].astype(np.int64) * count + predicted[seen]
        self.confusion += np.bincount(pairs, minlength=count * count).reshape(count, count)
        if self.boundary:
            self._count_edges(np.where(seen, predicted, IGNORE).astype(np.uint8), truth)
        if patch is not None and min(patch) >= 2:
            for place, mask in enumerate((truth, predicted)):
                self._blocks[place] += block_changes(mask, seen, patch)

    def _count_edges(self, predicted: NDArray[np.uint8], truth: NDArray[np.uint8]) -> None:
        distance = boundary_distance((truth.shape[0], truth.shape[1]))
        count = IGNORE + 1
        found, wanted = (np.where(boundaries(mask, distance), mask, IGNORE) for mask in (predicted, truth))
        hits = np.bincount(found[found == wanted], minlength=count)
        sizes = np.bincount(found.ravel(), minlength=count), np.bincount(wanted.ravel(), minlength=count)
        union = sizes[0] + sizes[1] - hits
        self._edges += np.stack([hits, union])[:, : len(self.labels)]

    def merge(self, other: SegmentationScores) -> None:
        """Count in what another has seen."""
        self.images += other.images
        self.confusion += other.confusion
        self._edges += other._edges
        self._blocks += other._blocks

    def result(self) -> dict[str, Any]:
        """All scores as plain values; None where nothing was seen that defines one."""
        confusion = self.confusion
        hits = np.diagonal(confusion)
        truth, predicted = confusion.sum(1), confusion.sum(0)
        union = truth + predicted - hits
        total = int(truth.sum())
        iou, dice = _shares(hits, union), _shares(2 * hits, truth + predicted)
        recall, edges = _shares(hits, truth), _shares(self._edges[0], self._edges[1])
        scores: dict[str, Any] = {
            "images": self.images,
            "pixels": total,
            "mean_iou": _mean(iou),
            "pixel_accuracy": int(hits.sum()) / total if total else 0.0,
            "mean_accuracy": _mean(recall),
            "dice": _mean(dice),
            "frequency_weighted_iou": _weighted(iou, truth),
        }
        if self.boundary:
            scores["boundary_iou"] = _mean(edges)
        scores["block_artefacts"] = _artefacts(self._blocks[1])
        scores["block_artefacts_truth"] = _artefacts(self._blocks[0])
        scores["per_class"] = [
            {
                "label": label,
                "iou": iou[index],
                "dice": dice[index],
                "recall": recall[index],
                "precision": _shares(hits, predicted)[index],
                "boundary_iou": edges[index] if self.boundary else None,
                "pixels": int(truth[index]),
                "share": int(truth[index]) / total if total else 0.0,
            }
            for index, label in enumerate(self.labels)
        ]
        scores["confusion"] = confusion.tolist()
        return scores


def iou_of(predicted: NDArray[np.uint8], truth: NDArray[np.uint8], count: int) -> float:
    """Mean IoU of one image over its own classes; NaN where everything is ignored."""
    seen = truth != IGNORE
    pairs = truth[seen].astype(np.int64) * count + predicted[seen]
    confusion = np.bincount(pairs, minlength=count * count).reshape(count, count)
    hits = np.diagonal(confusion)
    found = _shares(hits, confusion.sum(0) + confusion.sum(1) - hits)
    return _mean(found) if any(value is not None for value in found) else float("nan")


def boundary_distance(size: tuple[int, int]) -> int:
    """How many pixels from its border a region's boundary reaches in an image of (height, width)."""
    return max(1, round(BOUNDARY * float(np.hypot(*size))))


def boundaries(mask: NDArray[np.uint8], distance: int) -> NDArray[np.bool_]:
    """Pixels of any region of a mask (H, W) within ``distance`` of its border, the image's edge being one.

    The distance is that of the chessboard: a window of 2 * distance + 1 pixels that is not all of one class,
    which is a window in which two neighbours differ.
    """
    side, found = 2 * distance + 1, np.ones(mask.shape, np.bool_)
    if min(mask.shape) < side:
        return found
    across = _sums(mask[:, 1:] != mask[:, :-1], side, side - 1)
    down = _sums(mask[1:] != mask[:-1], side - 1, side)
    found[distance:-distance, distance:-distance] = (across + down) > 0
    return found


def _sums(values: NDArray[np.bool_], height: int, width: int) -> NDArray[np.int32]:
    """Sums over all windows of that height and width."""
    sums = np.zeros((values.shape[0] + 1, values.shape[1] + 1), np.int32)
    np.cumsum(values, axis=0, dtype=np.int32, out=sums[1:, 1:])
    np.cumsum(sums[1:, 1:], axis=1, out=sums[1:, 1:])
    windows: NDArray[np.int32] = (
        sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    )
    return windows


def block_changes(
    mask: NDArray[np.uint8], seen: NDArray[np.bool_], patch: tuple[float, float]
) -> NDArray[np.int64]:
    """(2, 2): how many neighbours differ, and how many there are, inside patches and across their borders.

    Args:
        mask: (H, W) class numbers.
        seen: (H, W), pixels that count.
        patch: height and width of a patch in pixels.
    """
    counts = np.zeros((2, 2), np.int64)
    for axis, step in enumerate(patch):
        values, known = (mask, seen) if axis == 0 else (mask.T, seen.T)
        both = known[1:] & known[:-1]
        differ = (values[1:] != values[:-1]) & both
        places = np.arange(1, len(values))
        border = np.floor(places / step) != np.floor((places - 1) / step)
        for where, rows in enumerate((~border, border)):
            counts[where] += np.count_nonzero(differ[rows]), np.count_nonzero(both[rows])
    return counts


def _artefacts(counts: NDArray[np.int64]) -> float | None:
    (inside, pairs_inside), (border, pairs_border) = counts.tolist()
    if not inside or not pairs_border:
        return None
    return float((border / pairs_border) / (inside / pairs_inside))


def _shares(parts: NDArray[np.int64], wholes: NDArray[np.int64]) -> list[float | None]:
    return [
        part / whole if whole else None for part, whole in zip(parts.tolist(), wholes.tolist(), strict=True)
    ]


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0


def _weighted(values: Sequence[float | None], weights: NDArray[np.int64]) -> float:
    total = int(weights.sum())
    pairs = zip(values, weights.tolist(), strict=True)
    return sum((value or 0.0) * weight for value, weight in pairs) / total if total else 0.0
