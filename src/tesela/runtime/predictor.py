"""A bundle that classifies images: decode, fit and normalise as the bundle says, compute, rank.

The same steps serve the command line, the server and the board; only the backend differs. An unreadable image gives a
prediction with a failure and does not disturb its neighbours in the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tesela.checkpoints.cache import bundle_of
from tesela.core.errors import DataError, ImageError, UsageError
from tesela.imaging.decode import DEFAULT_LIMITS, DecodeLimits
from tesela.imaging.preprocess import fit, normalize, pixels
from tesela.models.bundle import BundleInfo, read_info
from tesela.runtime.backends.base import Backend, Precision, choose, open_backend
from tesela.runtime.results import WRONG_SIZE, Prediction, failure_of, ranked, softmax

#: An encoded image in memory, a file, or pixels (H, W, C) uint8.
ImageSource: TypeAlias = bytes | Path | NDArray[np.uint8]


class Predictor:
    """A loaded bundle.

    Args:
        path: a run folder, a bundle, or a checkpoint that can be converted to one.
        backend: ``auto``, ``onnxruntime`` or ``torch``; auto prefers onnxruntime where the bundle has a graph.
        threads: threads per operator; None leaves the backend's own choice.
        precision: fp32, or bf16 with the torch backend.

    Raises:
        UsageError: there is no bundle at ``path``, or its task is not classification.
        WeightsError: the bundle is damaged.
        MissingExtraError: the backend is not installed.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        backend: str = "auto",
        threads: int | None = None,
        precision: Precision = "fp32",
    ) -> None:
        self.bundle: Path = bundle_of(path)
        self.info: BundleInfo = read_info(self.bundle)
        if self.info.task != "classify":
            raise UsageError(
                f"{self.bundle} is for the task {self.info.task!r}, not for classification",
                hint="give a classifier",
            )
        name = choose(self.bundle, backend)
        self.backend: Backend = open_backend(
            name, self.bundle, self.info, threads=threads, precision=precision
        )

    def prepare(self, source: ImageSource, *, limits: DecodeLimits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
        """One image as the model wants it, (h, w, C) uint8.

        Raises:
            ImageError: it cannot be decoded, or has a size that a model without resizing does not take.
        """
        spec = self.info.image
        try:
            return fit(pixels(source, spec, limits=limits), spec)
        except ImageError:
            raise
        except DataError as error:
            raise ImageError(error.message, code=WRONG_SIZE, hint=error.hint) from error

    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (B, K) of normalised images (B, C, h, w)."""
        return self.backend.logits(batch)

    def probabilities(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Probabilities (B, K) of images that ``prepare`` made, in one batch."""
        return softmax(self.logits(normalize(np.stack(images), self.info.image)))

    def classify(self, sources: Iterable[ImageSource], *, top: int = 5, batch: int = 32) -> list[Prediction]:
        """One prediction per source, in their order.

        Args:
            sources: images; an iterator is consumed batch by batch.
            top: how many labels each prediction holds.
            batch: images computed at once.
        """
        return list(self.stream(sources, top=top, batch=batch))

    def stream(
        self, sources: Iterable[ImageSource], *, top: int = 5, batch: int = 32
    ) -> Iterator[Prediction]:
        """Like ``classify``, giving each batch's predictions as soon as they are there."""
        if top < 1 or batch < 1:
            raise UsageError(
                f"top and batch must be 1 or more, not {top} and {batch}",
                hint="leave them out for the usual values",
            )
        remaining = iter(sources)
        number = 0
        while chunk := list(islice(remaining, batch)):
            yield from self._classify_batch(chunk, first=number, top=top)
            number += len(chunk)

    def _classify_batch(
        self, sources: Sequence[ImageSource], *, first: int, top: int
    ) -> Iterator[Prediction]:
        images: list[NDArray[np.uint8]] = []
        failures: dict[int, ImageError] = {}
        for index, source in enumerate(sources):
            try:
                images.append(self.prepare(source))
            except ImageError as error:
                failures[index] = error
        rows = iter(self.probabilities(images)) if images else iter(())
        for index, source in enumerate(sources):
            name = str(source) if isinstance(source, Path) else f"image {first + index}"
            if index in failures:
                yield Prediction(source=name, failure=failure_of(failures[index]))
            else:
                yield Prediction(source=name, scores=ranked(next(rows), self.info.labels, top=top))
