"""Scorer of pre-training: probes, effective rank of the embeddings, loss of the pretext.

Probes and rank are of at most ``MOST`` images, chosen by their numbers alone, so that memory is constant and
the scores do not depend on the order of batches or the number of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tesela.data.batch import Batch
from tesela.data.random import bits
from tesela.metrics.embedding import effective_rank, probe_hits
from tesela.tasks.pretraining.outputs import PretextOutputs
from tesela.tasks.pretraining.targets import UNLABELLED

MOST = 4096
#: Below this effective rank, or this share of what is possible, embeddings have collapsed.
LEAST_RANK, LEAST_SHARE = 2.0, 0.02
#: Pixels between two pictures, and how many stand beside one another.
GAP, ACROSS = 4, 2
#: Longest side that a picture is enlarged to.
PICTURE_SIDE = 96


class EmbeddingScorer:
    """Scores over all images that were seen.

    Args:
        drawn: numbers of the images whose pictures are drawn.
    """

    def __init__(self, *, drawn: Sequence[int] = ()) -> None:
        self._images, self._loss, self._losses = 0, 0.0, 0
        self._keys = np.zeros(0, np.uint64)
        self._numbers = np.zeros(0, np.int64)
        self._labels = np.zeros(0, np.int64)
        self._embeddings: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        self._drawn: dict[int, NDArray[np.uint8] | None] = dict.fromkeys(drawn)

    def update(self, batch: Batch, outputs: Tensor | PretextOutputs) -> None:
        """Count in embeddings (B, D), with losses and pictures where an objective gives them."""
        embeddings = outputs if isinstance(outputs, Tensor) else outputs.embeddings
        numbers = batch.indices.cpu().numpy()
        self._images += len(numbers)
        self._keep(numbers, batch.targets.cpu().numpy().astype(np.int64), embeddings.float().cpu().numpy())
        if isinstance(outputs, Tensor):
            return
        if outputs.losses is not None:
            self._loss += float(outputs.losses.double().sum())
            self._losses += len(numbers)
        rows = [row for row, number in enumerate(numbers.tolist()) if number in self._drawn]
        if rows and outputs.draw is not None:
            for row, picture in zip(rows, outputs.draw(rows), strict=True):
                self._drawn[int(numbers[row])] = picture

    def _keep(
        self, numbers: NDArray[np.int64], labels: NDArray[np.int64], embeddings: NDArray[np.float32]
    ) -> None:
        """Keep the images with the smallest random words."""
        keys = np.concatenate((self._keys, bits(0, 0, numbers, "probe")[:, 0]))
        order = np.argsort(keys, kind="stable")[:MOST]
        self._keys = keys[order]
        self._numbers = np.concatenate((self._numbers, numbers))[order]
        self._labels = np.concatenate((self._labels, labels))[order]
        known = self._embeddings.reshape(-1, embeddings.shape[1])
        self._embeddings = np.concatenate((known, embeddings))[order]

    def merge(self, other: EmbeddingScorer) -> None:
        """Count in what another scorer has seen."""
        self._images += other._images
        self._loss += other._loss
        self._losses += other._losses
        if len(other._numbers):
            self._keep(other._numbers, other._labels, other._embeddings)
        self._drawn.update({number: one for number, one in other._drawn.items() if one is not None})

    def validation(self) -> dict[str, float]:
        """The pretext's loss, probes where at least two classes are known, and the effective rank."""
        found = {"loss": self._loss / self._losses} if self._losses else {}
        labelled = self._labels != UNLABELLED
        labels, embeddings = self._labels[labelled], self._embeddings[labelled]
        if len(np.unique(labels)) > 1:
            order = np.argsort(self._numbers[labelled], kind="stable")
            linear, nearest = probe_hits(embeddings[order], labels[order])
            found |= {"probe_accuracy": linear / len(labels), "knn_accuracy": nearest / len(labels)}
        return found | ({"embedding_rank": effective_rank(self._embeddings)} if self._images else {})

    def picture(self) -> NDArray[np.uint8] | None:
        """The pictures that are drawn, two in a row."""
        pictures = [enlarged(one) for one in self._drawn.values() if one is not None]
        if not pictures:
            return None
        height, width = pictures[0].shape[:2]
        across = min(ACROSS, len(pictures))
        down = -(-len(pictures) // across)
        size = down * (height + GAP) - GAP, across * (width + GAP) - GAP, 3
        canvas = np.full(size, 255, np.uint8)
        for number, picture in enumerate(pictures):
            top, left = number // across * (height + GAP), number % across * (width + GAP)
            canvas[top : top + height, left : left + width] = picture
        return canvas

    def result(self) -> dict[str, Any]:
        """The same, the numbers behind them, and whether the embeddings have collapsed."""
        scores = self.validation()
        kept, width = len(self._embeddings), self._embeddings.shape[1]
        rank = scores.get("embedding_rank")
        return {
            "images": self._images,
            "probe_accuracy": None,
            "knn_accuracy": None,
            **scores,
            "probed": int((self._labels != UNLABELLED).sum()),
            "classes": len(np.unique(self._labels[self._labels != UNLABELLED])),
            "embedding_width": width,
            "collapsed": rank is not None and has_collapsed(rank, kept, width),
        }


def has_collapsed(rank: float, images: int, width: int) -> bool:
    """Whether an effective rank is so low that embeddings no longer tell images apart.

    Args:
        rank: of the embeddings.
        images: how many there are; below ten, nothing is said.
        width: D.
    """
    return images >= 10 and rank < max(LEAST_RANK, LEAST_SHARE * min(images, width))


def enlarged(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture (H, W, C) in colour, each pixel repeated until its height is about ``PICTURE_SIDE``."""
    times = max(1, PICTURE_SIDE // picture.shape[0])
    colored = np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture
    found: NDArray[np.uint8] = colored.repeat(times, 0).repeat(times, 1)
    return found
