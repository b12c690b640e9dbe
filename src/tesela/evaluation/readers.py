"""Readers of frozen features: classifiers of a few images of each class, and their score.

Three classifiers read the same features of the same images: ridge regression in closed form (the ViT paper's
measure, arXiv 2010.11929, section 4.1), nearest neighbours, and a linear probe. Each image that is drawn
passes the model once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tesela.data.loader import Loader
from tesela.data.scan import scan
from tesela.data.source import Selection, Source
from tesela.evaluation.model import device_of, model_features
from tesela.evaluation.probe import PROBE_L2, linear_probe
from tesela.evaluation.rows import RowSpool
from tesela.evaluation.shots import ShotDraws, draw_shots
from tesela.hardware.autocast import autocast
from tesela.imaging.spec import ImageSpec
from tesela.metrics.few_shot import (
    NEIGHBOURS,
    RIDGE_L2,
    TEMPERATURE,
    LinearClassifier,
    neighbour_votes,
    ridge_classifier,
    standardisation,
)

#: The classifiers, in the order in which they are shown.
READERS = ("ridge", "knn", "probe")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How features are read.

    Attributes:
        readers: of ``READERS``.
        l2: of the ridge regression.
        neighbours: of the nearest neighbours.
        probe_l2: of the linear probe.
    """

    readers: tuple[str, ...] = READERS
    l2: float = RIDGE_L2
    neighbours: int = NEIGHBOURS
    probe_l2: float = PROBE_L2


class FeatureReaders:
    """Classifiers of each draw and number of shots, which count right answers batch by batch.

    Args:
        features: (N, D) of the images that were drawn.
        places: (N,) numbers of these images, ascending.
        targets: class of every image by its number.
        draws: which of them belong to which classifier.
        classes: K.
        reading: how features are read.

    Attributes:
        images: counted in.
        drawn: N.
        width: D.
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        places: NDArray[np.int64],
        targets: NDArray[np.int64],
        draws: ShotDraws,
        *,
        classes: int,
        reading: Reading,
    ) -> None:
        self._features, self._targets, self._classes, self._reading = features, targets, classes, reading
        self._keys = [(shots, draw) for shots in draws.shots for draw in range(len(draws.rows))]
        self._chosen = {(shots, draw): draws.chosen(draw, shots) for shots, draw in self._keys}
        self._rows = {key: np.searchsorted(places, chosen) for key, chosen in self._chosen.items()}
        self._linear = {
            (name, key): self._fitted(name, key)
            for name in reading.readers
            if name != "knn"
            for key in self._keys
        }
        self._right = {(name, key): 0 for name in reading.readers for key in self._keys}
        self.images, self.drawn, self.width = 0, len(places), features.shape[1]

    def settings(self) -> dict[str, float | int]:
        """Settings of the classifiers that are there, for few_shot.json."""
        reading = self._reading
        known = {
            "ridge": {"l2": reading.l2},
            "knn": {"neighbours": reading.neighbours, "temperature": TEMPERATURE},
            "probe": {"probe_l2": reading.probe_l2},
        }
        return {key: value for name in reading.readers for key, value in known[name].items()}

    def _fitted(self, name: str, key: tuple[int, int]) -> LinearClassifier:
        """A linear classifier of one draw."""
        features, targets = self._features[self._rows[key]], self._targets[self._chosen[key]]
        if name == "ridge":
            return ridge_classifier(features, targets, classes=self._classes, l2=self._reading.l2)
        mean, std = standardisation(features)
        weights, bias = linear_probe(
            (features - mean) / std, targets, classes=self._classes, l2=self._reading.probe_l2
        )
        return LinearClassifier(weights=weights, bias=bias).of_standardised(mean, std)

    def update(self, features: NDArray[np.float32], targets: NDArray[np.int64]) -> None:
        """Count in features (B, D) of images of known class (B,)."""
        for name, key in self._right:
            if name == "knn":
                bank, known = self._features[self._rows[key]], self._targets[self._chosen[key]]
                votes = neighbour_votes(
                    features, bank, known, classes=self._classes, neighbours=self._reading.neighbours
                )
                predicted = votes.argmax(1)
            else:
                predicted = self._linear[name, key].predict(features)
            self._right[name, key] += int((predicted == targets).sum())
        self.images += len(targets)

    def result(self) -> list[dict[str, Any]]:
        """A row for each number of shots: mean, deviation and values of the accuracy over draws.

        The deviation is of the sample, None for a single draw.
        """
        rows = []
        for shots in dict.fromkeys(shots for shots, _ in self._keys):
            row: dict[str, Any] = {"shots": shots}
            for name in self._reading.readers:
                values = [
                    right / self.images
                    for (reader, key), right in self._right.items()
                    if (reader, key[0]) == (name, shots)
                ]
                deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
                row[name] = {"mean": float(np.mean(values)), "deviation": deviation, "values": values}
            rows.append(row)
        return rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Passes:
    """How images pass the model.

    Attributes:
        batch_size: images at a time.
        precision: fp32, bf16 or fp16.
        workers: processes that read.
    """

    batch_size: int = 256
    precision: str = "fp32"
    workers: int | Literal["auto"] = 0


def features_of(
    model: nn.Module, loader: Loader, precision: str
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Features (B, D) and numbers (B,) of the images of a loader; the model is in evaluation mode."""
    device = device_of(model)
    for batch in loader.epoch(0):
        with torch.inference_mode(), autocast(device, precision):
            found = model_features(model, batch.images.to(device))
        yield found.cpu().numpy(), batch.indices.numpy()


def read_shots(
    model: nn.Module,
    source: Source,
    spec: ImageSpec,
    shots: Sequence[int],
    *,
    draws: int,
    seed: int,
    reading: Reading,
    passes: Passes,
    spool: RowSpool,
) -> tuple[FeatureReaders, list[dict[str, str]]]:
    """Classifiers of a few training images of each class; and the images that were drawn and cannot be read.

    Others are drawn in the place of these.

    Args:
        model: in evaluation mode.
        source: its training images are drawn from.
        spec: what the model expects of an image.
        shots: how many of each class.
        draws: how many times.
        seed: of the draws.
        reading: how features are read.
        passes: how images pass the model.
        spool: keeps the features, open as long as the classifiers are used.

    Raises:
        ConfigError: a number of shots or draws is below 1.
        DataError: a class has fewer images than shots; it is named.
    """
    train, unreadable = source.splits["train"], list[dict[str, str]]()
    without: list[int] = []
    while True:
        drawn = draw_shots(train.targets, source.labels, shots, draws=draws, seed=seed, without=without)
        places = drawn.every()
        bad = scan(Selection(train, places))
        if not bad:
            break
        unreadable += [{"name": one.name, "code": one.code, "message": one.message} for one in bad]
        without += [int(places[one.index]) for one in bad]
    loader = Loader(
        Selection(train, places), spec, batch_size=passes.batch_size, workers=passes.workers, max_unreadable=0
    )
    for features, _ in features_of(model, loader, passes.precision):
        spool.append({"features": features})
    loader.close()
    readers = FeatureReaders(
        spool.arrays()["features"],
        places,
        train.targets,
        drawn,
        classes=len(source.labels),
        reading=reading,
    )
    return readers, unreadable
