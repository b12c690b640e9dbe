"""Predictor: decode, preprocess, compute, and let the task decode the outputs.

The same steps serve the command line, the server and the board; only the backend differs. An unreadable image
gives a result with a failure and does not disturb its neighbours in the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tesela.checkpoints.cache import bundle_of
from tesela.core.errors import ImageError, UsageError
from tesela.core.pathnames import path_text
from tesela.imaging.limits import LOCAL_LIMITS, DecodeLimits
from tesela.imaging.preprocess import fitted_view, normalize, pixels
from tesela.models.bundle import BundleInfo, read_info
from tesela.runtime.backends.base import Backend, Precision, choose_backend, open_backend
from tesela.tasks.catalog import find_task
from tesela.tasks.result import Result
from tesela.tasks.task import Task

if TYPE_CHECKING:
    from tesela.models.model import Model

#: An encoded image in memory, a file, or pixels (H, W, C) uint8.
ImageSource: TypeAlias = bytes | Path | NDArray[np.uint8]

#: Seconds of processor time after which an image is given up.
DECODE_SECONDS = 1.5


def described(model: Model) -> BundleInfo:
    """What a loaded model says of its labels and images.

    Raises:
        UsageError: it says nothing.
    """
    info = getattr(model, "info", None)
    if not isinstance(info, BundleInfo):
        raise UsageError(
            "the model does not say how its images are prepared",
            hint="load it with tesela.load, or name its run or bundle",
        )
    return info


def labels_of_model(source: Path | str | Model) -> tuple[str, ...]:
    """Labels of a run, bundle, checkpoint or loaded model."""
    return tuple(_info_of(source).labels)


def channels_of_model(source: Path | str | Model) -> int:
    """Channels of the images that a run, bundle, checkpoint or loaded model sees."""
    return _info_of(source).image.channels


def _info_of(source: Path | str | Model) -> BundleInfo:
    return read_info(bundle_of(source)) if isinstance(source, (str, Path)) else described(source)


class Predictor:
    """A loaded bundle.

    Args:
        path: a run folder, a bundle, a checkpoint that can be converted to one, or a loaded model, which
            computes itself, whatever the next three say.
        backend: ``auto``, ``onnxruntime`` or ``torch``; auto prefers onnxruntime if the bundle has a graph.
        threads: threads per operator; None leaves the backend's own choice.
        precision: fp32, or bf16 with the torch backend.
        limits: formats and sizes of images that are decoded; those for one's own files by default.

    Raises:
        UsageError: there is no bundle at ``path``.
        UnknownNameError: the bundle's task is not installed.
        WeightsError: the bundle is damaged.
        MissingExtraError: the backend is not installed.
    """

    def __init__(
        self,
        path: Path | str | Model,
        *,
        backend: str = "auto",
        threads: int | None = None,
        precision: Precision = "fp32",
        limits: DecodeLimits = LOCAL_LIMITS,
    ) -> None:
        self.limits = replace(limits, seconds=limits.seconds or DECODE_SECONDS)
        self.backend: Backend
        if isinstance(path, (str, Path)):
            self.bundle: Path = bundle_of(path)
            self.info: BundleInfo = read_info(self.bundle)
            name = choose_backend(self.bundle, backend)
            self.backend = open_backend(name, self.bundle, self.info, threads=threads, precision=precision)
        else:
            from tesela.runtime.backends.torch import LoadedBackend

            self.info, self.backend = described(path), LoadedBackend(path)
        self.task: Task = find_task(self.info.task)

    @property
    def network(self) -> Any:
        """The torch module behind a torch backend; None with other engines."""
        return getattr(self.backend, "model", None)

    def prepare(self, source: ImageSource, *, limits: DecodeLimits | None = None) -> NDArray[np.uint8]:
        """One image as the model wants it, (h, w, C) uint8.

        Raises:
            ImageError: it cannot be decoded, or has a size that a model without resizing does not take.
        """
        return self.fitted(source, limits=limits)[0]

    def fitted(
        self, source: ImageSource, *, limits: DecodeLimits | None = None
    ) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """As ``prepare``, with the image's own (height, width)."""
        return fitted_view(source, self.info.image, limits=limits or self.limits)

    def outputs(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Outputs (B, ...), such as logits (B, K), of images that ``prepare`` made, in one batch."""
        return self.backend.logits(normalize(np.stack(images), self.info.image))

    def predict(self, sources: Iterable[ImageSource], *, batch: int = 32, **options: Any) -> list[Any]:
        """Results of the task's kind (``tesela.tasks.result.Result``), one per source, in order.

        Args:
            sources: images; an iterator is consumed batch by batch.
            batch: images computed at once.
            **options: of the task's ``decode``, such as ``top=5`` for a classifier.
        """
        return list(self.stream(sources, batch=batch, **options))

    def stream(self, sources: Iterable[ImageSource], *, batch: int = 32, **options: Any) -> Iterator[Any]:
        """Like ``predict``, giving each batch's results as soon as they are there."""
        if batch < 1 or options.get("top", 1) < 1:
            raise UsageError("top and batch must be 1 or more", hint="leave them out for the usual values")
        ways = {name: options.pop(name) for name in list(options) if name in self.task.infer_options}
        unknown = sorted(set(options) - self.task.decode_options)
        if unknown:
            raise UsageError(
                f"predictions of the task {self.task.name} have no option {unknown[0]!r}",
                hint="leave it out",
            )
        remaining = iter(sources)
        number = 0
        while chunk := list(islice(remaining, batch)):
            if any(ways.values()):
                yield from self._one_by_one(chunk, first=number, ways=ways, options=options)
            else:
                yield from self._batch(chunk, first=number, options=options)
            number += len(chunk)

    def _one_by_one(
        self, sources: Sequence[ImageSource], *, first: int, ways: dict[str, Any], options: dict[str, Any]
    ) -> Iterator[Result]:
        """Results of images that are looked at in another way than once, as a whole."""
        for index, source in enumerate(sources):
            name = path_text(source) if isinstance(source, Path) else f"image {first + index}"
            try:
                image = pixels(source, self.info.image, limits=self.limits)
            except ImageError as error:
                yield self.task.unreadable().failed(name, error)
                continue
            outputs = self.task.infer(self.backend.logits, image, self.info.image, **ways)
            size = image.shape[0], image.shape[1]
            yield self.task.decode(outputs[None], self.info, sizes=[size], **options)[0].of(name)

    def _batch(
        self, sources: Sequence[ImageSource], *, first: int, options: dict[str, Any]
    ) -> Iterator[Result]:
        images: list[NDArray[np.uint8]] = []
        sizes: list[tuple[int, int]] = []
        failures: dict[int, ImageError] = {}
        for index, source in enumerate(sources):
            try:
                image, size = self.fitted(source)
                images.append(image)
                sizes.append(size)
            except ImageError as error:
                failures[index] = error
        decoded: Sequence[Result] = ()
        if images:
            decoded = self.task.decode(self.outputs(images), self.info, sizes=sizes, **options)
        results = iter(decoded)
        for index, source in enumerate(sources):
            name = path_text(source) if isinstance(source, Path) else f"image {first + index}"
            if index in failures:
                yield self.task.unreadable().failed(name, failures[index])
            else:
                yield next(results).of(name)
