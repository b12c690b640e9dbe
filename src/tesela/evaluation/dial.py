"""Latency dial: the settings at which a model answers in time, and their cost.

One way to compute is chosen at the model's own size (``tesela.runtime.choice``); then smaller sizes are
timed, one image alone, until one is fast enough; and a plain ViT in torch with tokens merged from block to
block, at the largest sizes that this makes fast enough. What each costs is measured too, and the cheapest is
taken: the score on validation images of the run's own data, or, where there are none, the share of the images
at hand that keep their label.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tesela.core.config import build, read_yaml
from tesela.core.errors import ConfigError, DataError, ImageError, UsageError
from tesela.core.packages import installed
from tesela.data.config import DataConfig
from tesela.data.open import open_source
from tesela.evaluation.program import count_rows
from tesela.hardware.speed import measure_speed
from tesela.models import catalog
from tesela.models.bundle import WEIGHTS
from tesela.runs.folder import Run
from tesela.runtime.choice import random_batch, shares
from tesela.runtime.predictor import Predictor

if TYPE_CHECKING:
    from tesela.models.bundle import BundleInfo
    from tesela.models.config import ModelConfig
    from tesela.runtime.stored import ImageSource

#: Shares of the model's height and width that are tried.
SIDE_SHARES = (1.0, 0.875, 0.75, 0.625, 0.5, 0.375)
#: Shares of the patches at the model's own size that are merged away in each block.
MERGED_SHARES = (0.02, 0.04, 0.08)
#: Images that a score, or an agreement, is measured on; seconds of a timing.
SCORED, COMPARED, SECONDS = 256, 32, 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """Measured settings.

    Attributes:
        size: (height, width) of the images.
        merged: tokens that disappear in each block.
        milliseconds: of one image alone.
        score: what they cost, as ``Curve.measure`` says; None where that was not asked.
        way: what computes.
    """

    size: tuple[int, int]
    merged: int
    milliseconds: float
    way: str
    score: float | None = None

    def __str__(self) -> str:
        merged = f" with {self.merged} tokens fewer in each block" if self.merged else ""
        return f"{self.way} at {self.size[0]} x {self.size[1]}{merged}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Measured settings, and the cost of those that were taken.

    Attributes:
        points: all, in the order of measurement, the model's own size first.
        chosen: those that were taken.
        measure: name of the score; ``same label`` where none could be taken.
        images: how many it was taken on.
        whole: its value at the model's own size.
    """

    points: tuple[Point, ...]
    chosen: Point
    measure: str
    images: int
    whole: float

    def line(self) -> str:
        """The choice and its cost for a person."""
        own, chosen = self.points[0], self.chosen
        time = f"{chosen.milliseconds:.1f} ms an image"
        if chosen is own:
            return f"{chosen}, the model's own size: {time}"
        taken = float("nan") if chosen.score is None else chosen.score
        cost = (
            f"the same label as at its own size for {taken:.1%} of {self.images} images at hand"
            if self.measure == "same label"
            else f"{self.measure} {taken:.4f} instead of {self.whole:.4f} on {self.images} images for "
            "validation"
        )
        before = f"{own.size[0]} x {own.size[1]}"
        instead = f" instead of {before}" if chosen.size != own.size else ""
        return f"{chosen}{instead}: {time} instead of {own.milliseconds:.1f}; {cost}" + self._others()

    def _others(self) -> str:
        """What the other candidates would have cost."""
        others = [one for one in self.points if one.score is not None and one is not self.chosen]
        return "".join(f"; {one}: {one.milliseconds:.1f} ms, {one.score:.4f}" for one in others)


def open_within(
    source: str | Path, *, max_ms: float, sample: Sequence[ImageSource] = (), **options: Any
) -> tuple[Predictor, Curve]:
    """The predictor of the settings that answer within ``max_ms`` at the least cost, and what was measured.

    Args:
        source: a run, bundle or checkpoint.
        max_ms: milliseconds of one image, once it is decoded and prepared.
        sample: images at hand.
        **options: of ``Predictor``.

    Raises:
        UsageError: nothing is fast enough, or ``max_ms`` is not positive.
    """
    if not max_ms > 0:
        raise UsageError(f"{max_ms} milliseconds are no time", hint="tesela predict --max-ms 50, for one")
    own = Predictor(source, sample=sample, **options)
    points = [_point(own)]
    if points[0].milliseconds <= max_ms:
        return own, Curve(points=tuple(points), chosen=points[0], measure="same label", images=0, whole=1.0)
    fixed = {**options, "backend": own.backend.name, "precision": own.backend.precision}
    sizes, fits, largest = [own.info.image.size, *smaller_sizes(own.info)], list[Predictor](), 0
    for merged in (0, *merged_counts(own, options)):
        for size in sizes if merged else sizes[1:]:
            if size[0] * size[1] <= largest:  # merging that gains no size costs for nothing
                break
            backend = {"backend": "torch"} if merged else {}
            found = Predictor(source, image_size=size, merged_tokens=merged, **{**fixed, **backend})
            points.append(_point(found, merged))
            if points[-1].milliseconds <= max_ms:
                measure, count, whole, score = cost_of(source, own, found, sample)
                points[-1] = dataclasses.replace(points[-1], score=score)
                fits.append(found)
                largest = size[0] * size[1]
                break
    if not fits:
        low = min(points, key=lambda one: one.milliseconds)
        raise UsageError(
            f"no size answers within {max_ms:g} ms: {low} takes {low.milliseconds:.1f} ms"
            + ("" if len(points) > 1 else ", and this program takes no other"),
            hint=f"tesela predict --max-ms {np.ceil(low.milliseconds * 1.2):.0f} or more, or a smaller model",
        )
    scored = [one for one in points if one.score is not None]
    best = max(range(len(scored)), key=lambda place: np.nan_to_num(scored[place].score or 0.0, nan=-1.0))
    curve = Curve(points=tuple(points), chosen=scored[best], measure=measure, images=count, whole=whole)
    return fits[best], curve


def _point(predictor: Predictor, merged: int = 0) -> Point:
    return Point(
        size=predictor.info.image.size,
        merged=merged,
        milliseconds=_milliseconds(predictor),
        way=f"{predictor.backend.name} {predictor.backend.precision}",
    )


def merged_counts(own: Predictor, options: Mapping[str, Any]) -> list[int]:
    """Numbers of tokens to merge away in each block; none where the model or the backend merges none."""
    if options.get("backend", "auto") not in ("auto", "torch") or own.backend.precision not in (
        "fp32",
        "bf16",
    ):
        return []
    if not (own.bundle / WEIGHTS).is_file() or not installed("torch"):
        return []
    from tesela.models.bundle import empty_bundle_model
    from tesela.models.encoder.merged import unmergeable

    model = empty_bundle_model(own.info)
    if unmergeable(model):
        return []
    rows, columns = model.grid(own.info.image.size)
    return sorted({max(1, round(share * rows * columns)) for share in MERGED_SHARES})


def smaller_sizes(info: BundleInfo) -> list[tuple[int, int]]:
    """The sizes below the model's own that its grid and its program permit, the largest first."""
    if info.program and "step" not in info.program:
        return []
    config: ModelConfig = build(catalog.family(info.architecture).config or dict, info.model)
    down, right = info.program.get("step") or _steps(config)
    found: list[tuple[int, int]] = []
    for share in SIDE_SHARES[1:]:
        height, width = (
            int(side * share) // step * step
            for side, step in zip(info.image.size, (down, right), strict=True)
        )
        size = height, width
        if min(size) > 0 and size not in (*found, info.image.size) and _fits(config, size):
            found.append(size)
    return found


def _steps(config: ModelConfig) -> tuple[int, int]:
    """The smallest steps by which height and width may shrink."""
    height, width = config.image_size
    return (
        next((step for step in range(1, height) if _fits(config, (height - step, width))), height),
        next((step for step in range(1, width) if _fits(config, (height, width - step))), width),
    )


def _fits(config: ModelConfig, size: tuple[int, int]) -> bool:
    try:
        config.grid(size)
    except ConfigError:
        return False
    return True


def _milliseconds(predictor: Predictor) -> float:
    image = random_batch(predictor.info)[:1]
    call = functools.partial(predictor.backend.logits, image)
    return measure_speed(call, seconds=SECONDS, least=3).median * 1e3


def cost_of(
    source: str | Path, own: Predictor, found: Predictor, sample: Sequence[ImageSource]
) -> tuple[str, int, float, float]:
    """What was measured, on how many images, at the model's own size and at the taken one."""
    if found is own:
        return "same label", 0, 1.0, 1.0
    scored = _scores(source, own, found)
    if scored is not None:
        return scored
    views = []
    for image in sample[:COMPARED]:
        try:
            views.append((own.prepare(image), found.prepare(image)))
        except ImageError:
            continue
    if not views:
        return "same label", 0, 1.0, float("nan")
    outputs = [
        shares(predictor.outputs([pair[place] for pair in views]))
        for place, predictor in enumerate((own, found))
    ]
    labels = [  # of a segmenter, which classes cover most pixels: masks of two sizes cannot be compared
        one.argmax(-1) if one.ndim == 2 else one.mean(axis=tuple(range(1, one.ndim - 1))).argmax(-1)
        for one in outputs
    ]
    return "same label", len(views), 1.0, float((labels[0] == labels[1]).mean())


def _scores(source: str | Path, own: Predictor, found: Predictor) -> tuple[str, int, float, float] | None:
    """The task's score on validation images of the run's own data; None where there are none."""
    run, task = Run(source), own.task
    if not run.exists() or task.array_scorer(own.info) is None:
        return None
    try:
        config: DataConfig = build(DataConfig, read_yaml(run.config).get("data", {}))
        data = open_source(config.source, config=config, targets=task.targets)
    except (UsageError, DataError):
        return None
    items = data.splits.get("val")
    if items is None or not len(items):
        return None
    rows = np.linspace(0, len(items) - 1, min(SCORED, len(items))).astype(int).tolist()
    values: list[float] = []
    for predictor in (own, found):
        counter = task.array_scorer(own.info)
        assert counter is not None
        count_rows(predictor, counter, items, task.targets(data).matched(own.info.labels), rows)
        scores = counter.result()
        if not scores["images"]:
            return None
        values.append(float(scores[task.score]))
    return task.score, scores["images"], values[0], values[1]
