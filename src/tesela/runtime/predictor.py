"""Predictor: decode, preprocess, compute, and let the task decode the outputs.

The same steps serve the command line, the server and the board; only the backend differs. An unreadable image
gives a result with a failure and does not disturb its neighbours in the batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tesela.checkpoints.cache import bundle_of
from tesela.core.errors import ImageError, UsageError
from tesela.hardware.machine import cores
from tesela.imaging.limits import LOCAL_LIMITS, DecodeLimits
from tesela.imaging.preprocess import fitted_view, normalize, pixels
from tesela.models.bundle import BundleInfo, read_info
from tesela.runtime.backends.base import (
    FEATURES,
    LOGITS,
    Backend,
    Precision,
    choose_backend,
    open_backend,
    own_precision,
)
from tesela.runtime.choice import MOST_IMAGES, Choice, choose_way
from tesela.runtime.decoding import FittedView, decode_ahead
from tesela.runtime.stored import ImageSource as ImageSource
from tesela.runtime.stored import content, source_name
from tesela.tasks.catalog import find_task
from tesela.tasks.pretraining.result import Embedding
from tesela.tasks.result import Result
from tesela.tasks.task import Task

if TYPE_CHECKING:
    from tesela.models.model import Model

#: Seconds of processor time after which an image is given up.
DECODE_SECONDS = 1.5
#: Views that are ready beside the batch that is next.
READY = 4


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


def _wanted(precision: Precision | Literal["auto"] | None, info: BundleInfo) -> Precision | None:
    """The only precision to consider; None for all."""
    return None if precision == "auto" else own_precision(info) if precision is None else precision


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
        backend: a name of ``tesela.runtime.backends.base.BACKENDS``; ``auto`` measures those that can be used
            here and takes the fastest, see ``tesela.runtime.choice``.
        threads: threads per operator; None leaves the backend's own choice.
        precision: of the arithmetic; None is the bundle's own, fp32 for weights; ``auto`` is measured too.
        limits: formats and sizes of images that are decoded; those for one's own files by default.
        sample: images on which precisions are compared where that has to be measured.
        image_size: another (height, width) than the model's own, which its network or program must permit.
        merged_tokens: tokens that disappear in each block of a ViT (``tesela.models.encoder.merged``), by the
            torch backend alone.

    Attributes:
        choice: what was measured; None where nothing was to be chosen.

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
        precision: Precision | Literal["auto"] | None = None,
        limits: DecodeLimits = LOCAL_LIMITS,
        sample: Sequence[ImageSource] = (),
        image_size: tuple[int, int] | None = None,
        merged_tokens: int = 0,
    ) -> None:
        self.limits = replace(limits, seconds=limits.seconds or DECODE_SECONDS)
        #: whether no core is left for decoding while a batch is computed
        self._turns = isinstance(path, (str, Path)) and (threads or cores()) >= cores()
        self.backend: Backend
        self.choice: Choice | None = None
        if isinstance(path, (str, Path)):
            self.bundle: Path = bundle_of(path)
            self.info: BundleInfo = read_info(self.bundle)
            if image_size is not None:
                view = replace(self.info.image, height=image_size[0], width=image_size[1])
                self.info = replace(self.info, image=view)
            name = choose_backend(self.bundle, backend)  # says what is missing, before anything is opened
            if backend == "auto" or precision == "auto":
                self.choice, self.backend = choose_way(
                    self.bundle,
                    self.info,
                    backend=backend,
                    precision=_wanted(precision, self.info),
                    threads=threads,
                    sample=self._sample(sample),
                )
            else:
                self.backend = open_backend(
                    name, self.bundle, self.info, threads=threads, precision=precision
                )
        else:
            from tesela.runtime.backends.torch import LoadedBackend

            self.info, self.backend = described(path), LoadedBackend(path)
        self.task: Task = find_task(self.info.task)
        if merged_tokens:
            if not hasattr(self.backend, "merge_tokens"):
                raise UsageError(
                    "tokens are merged by the torch backend alone", hint="name the run, and backend='torch'"
                )
            self.backend.merge_tokens(merged_tokens)

    def _sample(self, sources: Sequence[ImageSource]) -> NDArray[np.float32] | None:
        """Normalised images (B, C, h, w) of the first sources that can be read; None without any."""
        views = []
        for source in sources[:MOST_IMAGES]:
            with contextlib.suppress(ImageError):
                views.append(self.prepare(source))
        return normalize(np.stack(views), self.info.image) if views else None

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
        return fitted_view(content(source), self.info.image, limits=limits or self.limits)

    def outputs(self, images: Sequence[NDArray[np.uint8]], *, name: str = LOGITS) -> NDArray[np.float32]:
        """Outputs (B, ...), such as logits (B, K), of images that ``prepare`` made, in one batch."""
        return self.backend.output(name, normalize(np.stack(images), self.info.image))

    def predict(self, sources: Iterable[ImageSource], *, batch: int = 32, **options: Any) -> list[Any]:
        """Results of the task's kind (``tesela.tasks.result.Result``), one per source, in order.

        Args:
            sources: images; an iterator is consumed one batch ahead, which is decoded meanwhile.
            batch: images computed at once.
            **options: of the task's ``decode``, such as ``top=5`` for a classifier; or ``features=True`` for
                what the head reads, as ``tesela.tasks.pretraining.result.Embedding``.
        """
        return list(self.stream(sources, batch=batch, **options))

    def blank(self, *, features: bool = False) -> Result:
        """A result without an answer, of the kind that ``predict`` gives."""
        return Embedding() if features else self.task.unreadable()

    def stream(self, sources: Iterable[ImageSource], *, batch: int = 32, **options: Any) -> Iterator[Any]:
        """Like ``predict``, giving each batch's results as soon as they are there."""
        if batch < 1 or options.get("top", 1) < 1:
            raise UsageError("top and batch must be 1 or more", hint="leave them out for the usual values")
        if options.pop("features", False):
            yield from self._features(sources, batch=batch, options=options)
            return
        ways = {name: options.pop(name) for name in list(options) if name in self.task.infer_options}
        unknown = sorted(set(options) - self.task.decode_options)
        if unknown:
            raise UsageError(
                f"predictions of the task {self.task.name} have no option {unknown[0]!r}",
                hint="leave it out",
            )
        number = 0
        if any(ways.values()):
            yield from self._one_by_one(sources, ways=ways, options=options)
            return
        seen = self._seen(sources, batch)
        with contextlib.closing(seen):
            while chunk := list(islice(seen, batch)):
                yield from self._batch(chunk, first=number, options=options)
                number += len(chunk)

    def _seen(self, sources: Iterable[ImageSource], batch: int) -> Generator[tuple[ImageSource, FittedView]]:
        ahead = batch if self._turns else batch + READY
        return decode_ahead(sources, self.info.image, limits=self.limits, ahead=ahead, turns=self._turns)

    def _features(
        self, sources: Iterable[ImageSource], *, batch: int, options: dict[str, Any]
    ) -> Iterator[Embedding]:
        """Features of images.

        Raises:
            UsageError: the program gives none, or an option is given beside.
        """
        wanted = FEATURES if self.info.num_classes else LOGITS  # an embedder's only output
        if wanted not in self.backend.outputs:
            raise UsageError(
                f"the program {self.bundle} gives no features",
                hint="export it with them: tesela export RUN --to onnx --with-features; or name the run",
            )
        for name in options:
            raise UsageError(f"features have no option {name!r}", hint="leave it out")
        seen = self._seen(sources, batch)
        number = 0
        with contextlib.closing(seen):
            while chunk := list(islice(seen, batch)):
                views = [view[0] for _, view in chunk if not isinstance(view, ImageError)]
                rows = iter(self.outputs(views, name=wanted) if views else ())
                for source, view in chunk:
                    name = source_name(source, number)
                    number += 1
                    if isinstance(view, ImageError):
                        yield Embedding().failed(name, view)
                    else:
                        yield Embedding(vector=tuple(next(rows).astype(np.float64).tolist())).of(name)

    def _one_by_one(
        self, sources: Iterable[ImageSource], *, ways: dict[str, Any], options: dict[str, Any]
    ) -> Iterator[Result]:
        """Results of images that are looked at in another way than once, as a whole."""
        for index, source in enumerate(sources):
            name = source_name(source, index)
            try:
                image = pixels(content(source), self.info.image, limits=self.limits)
            except ImageError as error:
                yield self.blank().failed(name, error)
                continue
            outputs = self.task.infer(self.backend.logits, image, self.info.image, **ways)
            size = image.shape[0], image.shape[1]
            yield self.task.decode(outputs[None], self.info, sizes=[size], **options)[0].of(name)

    def _batch(
        self, seen: Sequence[tuple[ImageSource, FittedView]], *, first: int, options: dict[str, Any]
    ) -> Iterator[Result]:
        views = [view for _, view in seen if not isinstance(view, ImageError)]
        decoded: Sequence[Result] = ()
        if views:
            outputs = self.outputs([image for image, _ in views])
            decoded = self.task.decode(outputs, self.info, sizes=[size for _, size in views], **options)
        results = iter(decoded)
        for index, (source, view) in enumerate(seen):
            name = source_name(source, first + index)
            if isinstance(view, ImageError):
                yield self.blank().failed(name, view)
            else:
                yield next(results).of(name)
