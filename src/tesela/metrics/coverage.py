"""Coverage of an embedding: rows that stand for all others, one after the other.

Each row is covered by the most similar of the chosen ones (the facility location function); the next row is
the one that adds most, weighted by how much each row matters. So the first choices are typical of large
groups, and no choice repeats an earlier one. Greedy choice reaches at least 1 - 1/e of the best coverage
(Nemhauser et al. 1978); gains never grow, so that most need no second look (Minoux 1978).
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from tesela.metrics.calibration import Floats, Integers

_ROWS = 512


class Coverage:
    """Rows by how much they add to what is covered.

    Args:
        features: (N, D); similarity is 1 + cosine about their mean.
        weights: (N,) at least 0, how much each row matters; 1 by default.
    """

    def __init__(self, features: Floats, weights: NDArray[np.float64] | None = None) -> None:
        values = features.astype(np.float64)
        values = values - values.mean(0) if len(values) > 1 else values
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        self._unit = values / np.where(lengths > 0, lengths, 1)
        self._weights = np.ones(len(values)) if weights is None else weights
        self._covered = np.zeros(len(values))

    def cover(self, rows: Integers) -> None:
        """Count rows as chosen."""
        for start in range(0, len(rows), _ROWS):
            likeness = 1 + self._unit @ self._unit[rows[start : start + _ROWS]].T
            self._covered = np.maximum(self._covered, likeness.max(1))

    def share(self) -> float:
        """Weighted mean similarity of all rows to the most similar chosen one, between 0 and 1."""
        total = self._weights.sum()
        return float(self._weights @ self._covered / (2 * total)) if total else 0.0

    def choose(self, candidates: Integers, count: int) -> Integers:
        """The next ``count`` rows out of ``candidates``, or all of them; of equals the first."""
        gains = np.concatenate(
            [self._gains(candidates[start : start + _ROWS]) for start in range(0, len(candidates), _ROWS)]
            or [np.zeros(0)]
        )
        heap = [(-gain, int(row)) for gain, row in zip(gains.tolist(), candidates, strict=True)]
        heapq.heapify(heap)
        chosen: list[int] = []
        while heap and len(chosen) < count:
            _, row = heapq.heappop(heap)
            fresh = (-float(self._gains(np.array([row]))[0]), row)
            if heap and fresh > heap[0]:
                heapq.heappush(heap, fresh)
                continue
            chosen.append(row)
            self.cover(np.array([row]))
        return np.array(chosen, np.int64)

    def _gains(self, rows: Integers) -> NDArray[np.float64]:
        """What each row would add (R,)."""
        likeness = 1 + self._unit @ self._unit[rows].T  # (N, R)
        found: NDArray[np.float64] = self._weights @ np.maximum(likeness - self._covered[:, None], 0)
        return found
