"""Latency dial: the largest images that a model answers in time, and their cost.

One way to compute is chosen at the model's own size (``tesela.runtime.choice``); then smaller sizes are
timed, one image alone, until one is fast enough. What it costs is measured too: the score on validation
images of the run's own data, or, where there are none, the share of the images at hand that keep their
label.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tesela.core.config import build, read_yaml
from tesela.core.errors import ConfigError, DataError, ImageError, UsageError
from tesela.data.config import DataConfig
from tesela.data.open import open_source
from tesela.evaluation.program import count_rows
from tesela.hardware.speed import measure_speed
from tesela.models import catalog
from tesela.runs.folder import Run
from tesela.runtime.choice import random_batch, shares
from tesela.runtime.predictor import Predictor

if TYPE_CHECKING:
    from tesela.models.bundle import BundleInfo
    from tesela.models.config import ModelConfig
    from tesela.runtime.decoding import ImageSource

#: Shares of the model's height and width that are tried.
SIDE_SHARES = (1.0, 0.875, 0.75, 0.625, 0.5, 0.375)
#: Images that a score, or an agreement, is measured on; seconds of a timing.
SCORED, COMPARED, SECONDS = 256, 32, 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Times by image size, and the cost of the one that was taken.

    Attributes:
        sizes: (height, width), the model's own first, the taken one last.
        milliseconds: of one image alone at each.
        way: what computes.
        measure: name of the score; ``same label`` where none could be taken.
        images: how many it was taken on.
        whole: its value at the model's own size.
        taken: its value at the taken size.
    """

    sizes: tuple[tuple[int, int], ...]
    milliseconds: tuple[float, ...]
    way: str
    measure: str
    images: int
    whole: float
    taken: float

    def line(self) -> str:
        """The choice and its cost for a person."""
        (height, width), time = self.sizes[-1], self.milliseconds[-1]
        if len(self.sizes) == 1:
            return f"{self.way} at {height} x {width}, the model's own size: {time:.1f} ms an image"
        own = self.sizes[0]
        cost = (
            f"the same label as at its own size for {self.taken:.1%} of {self.images} images at hand"
            if self.measure == "same label"
            else f"{self.measure} {self.taken:.4f} instead of {self.whole:.4f} on {self.images} images for "
            "validation"
        )
        return (
            f"{self.way} at {height} x {width} instead of {own[0]} x {own[1]}: {time:.1f} ms an image "
            f"instead of {self.milliseconds[0]:.1f}; {cost}"
        )


def open_within(
    source: str | Path, *, max_ms: float, sample: Sequence[ImageSource] = (), **options: Any
) -> tuple[Predictor, Curve]:
    """The predictor of the largest size that answers within ``max_ms``, and what was measured.

    Args:
        source: a run, bundle or checkpoint.
        max_ms: milliseconds of one image, once it is decoded and prepared.
        sample: images at hand.
        **options: of ``Predictor``.

    Raises:
        UsageError: no size is fast enough, or ``max_ms`` is not positive.
    """
    if not max_ms > 0:
        raise UsageError(f"{max_ms} milliseconds are no time", hint="tesela predict --max-ms 50, for one")
    own = Predictor(source, sample=sample, **options)
    fixed = {**options, "backend": own.backend.name, "precision": own.backend.precision}
    sizes, times, found = [own.info.image.size], [_milliseconds(own)], own
    for size in smaller_sizes(own.info):
        if times[-1] <= max_ms:
            break
        found = Predictor(source, image_size=size, **fixed)
        sizes.append(size)
        times.append(_milliseconds(found))
    if times[-1] > max_ms:
        raise UsageError(
            f"no size answers within {max_ms:g} ms: {sizes[-1][0]} x {sizes[-1][1]} takes {times[-1]:.1f} ms"
            + ("" if len(sizes) > 1 else ", and this program takes no other"),
            hint=f"tesela predict --max-ms {np.ceil(times[-1] * 1.2):.0f} or more, or a smaller model",
        )
    measure, count, whole, taken = cost_of(source, own, found, sample)
    curve = Curve(
        sizes=tuple(sizes),
        milliseconds=tuple(times),
        way=f"{own.backend.name} {own.backend.precision}",
        measure=measure,
        images=count,
        whole=whole,
        taken=taken,
    )
    return found, curve


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
