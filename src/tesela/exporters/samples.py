"""Real images on which an export is calibrated and held against its model.

``--data`` may be a data set, whose labels give scores, or any images. Without it the run's own data are
opened as its training opened them. Images that were trained on calibrate, others are compared: train and val.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tesela.core.config import build, read_yaml
from tesela.core.errors import DataError, ImageError, TeselaError, UsageError
from tesela.data.config import DataConfig
from tesela.data.loader import Loader
from tesela.data.open import open_source
from tesela.data.source import Selection
from tesela.imaging.preprocess import normalize
from tesela.imaging.suffixes import IMAGE_SUFFIXES
from tesela.runs.folder import Run
from tesela.runtime.predictor import Predictor
from tesela.runtime.sources import find_images

if TYPE_CHECKING:
    from tesela.data.batch import Batch
    from tesela.data.source import Items, Source
    from tesela.models.bundle import BundleInfo
    from tesela.tasks.task import Task

#: Most images that are compared, and that calibrate; batches of them.
COMPARED, CALIBRATING, BATCH = 1000, 128, 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Images of an export, prepared as the model wants them.

    Attributes:
        name: what they are, for people.
        kind: ``real`` or ``random``.
        compared: batches of normalised images (B, C, h, w); with targets where there are labels.
        calibrating: normalised images (N, C, h, w); none where there is nothing real.
        labelled: whether batches have targets.
    """

    name: str
    kind: str
    compared: list[Batch | NDArray[np.float32]]
    calibrating: NDArray[np.float32]
    labelled: bool

    @property
    def count(self) -> int:
        """Number of compared images."""
        return sum(len(images) for images, _ in self.batches())

    def batches(self) -> Iterator[tuple[NDArray[np.float32], Batch | None]]:
        """Images (B, C, h, w), and the batch with their targets."""
        for batch in self.compared:
            if isinstance(batch, np.ndarray):
                yield batch, None
            else:
                yield batch.images.float().numpy(), batch

    def first(self, count: int) -> NDArray[np.float32]:
        """The first images, repeated where there are fewer."""
        images = np.concatenate([images for images, _ in self.batches()])[:count]
        return images[np.arange(count) % len(images)]


def collect_samples(
    source: Path, data: str | None, reference: Predictor, *, calibrate: bool, compared: int = COMPARED
) -> Samples:
    """The images of an export.

    Args:
        source: the run or bundle that is exported.
        data: what ``--data`` names; the run's own data if None.
        reference: the model in PyTorch.
        calibrate: whether images for calibration are needed.
        compared: most images to compare.

    Raises:
        UsageError: there are no real images and calibration needs them, or ``data`` is nothing.
        DataError: the data has classes that the model does not know, or no image can be read.
    """
    run = Run(source)
    recorded = read_yaml(run.config).get("data", {}) if run.exists() else {}
    if data is None and not recorded:
        if calibrate:
            raise UsageError(
                "int8 is calibrated on real images, and the model does not say what it was trained on",
                hint="name some: --data DATA, a data set or a folder of images like those it will see",
            )
        return random_samples(reference.info)
    opened = _labelled(recorded, data, reference.task)
    if opened is None:
        return _unlabelled(str(data), reference)
    return _of_source(opened, reference.info, reference.task, compared=compared, calibrate=calibrate)


def random_samples(info: BundleInfo, *, count: int = 12) -> Samples:
    """Uniform noise of the model's size, from a fixed seed."""
    shape = (count, info.image.height, info.image.width, info.image.channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images = normalize(pixels, info.image)
    return Samples(
        name="random images",
        kind="random",
        compared=[images[first : first + BATCH] for first in range(0, count, BATCH)],
        calibrating=images[:0],
        labelled=False,
    )


def _labelled(recorded: dict[str, Any], data: str | None, task: Task) -> Source | None:
    """The data set; None where ``data`` names images without labels."""
    if data is None:
        config = build(DataConfig, recorded)
        try:
            return open_source(config.source, config=config, targets=task.targets)
        except TeselaError as error:
            raise type(error)(
                f"the run's own data: {error.message}", hint="name where images are now: --data DATA"
            ) from error
    path = Path(data).expanduser()
    if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
        return None
    config = build(DataConfig, {**recorded, "source": data, "subset": None, "per_class": None})
    try:
        return open_source(data, config=config, targets=task.targets)
    except TeselaError:
        if path.is_dir() and any(one.suffix.lower() in IMAGE_SUFFIXES for one in path.iterdir()):
            return None  # images side by side have no labels
        if not path.exists() and any(sign in data for sign in "*?["):
            return None
        raise


def _unlabelled(data: str, reference: Predictor) -> Samples:
    pixels, failure = [], None
    for path in find_images([data])[: COMPARED + CALIBRATING]:
        try:
            pixels.append(reference.prepare(path))
        except ImageError as error:
            failure = error
    if not pixels:
        raise DataError(f"no image of {data} can be read: {failure}", hint="give images that the model takes")
    images = normalize(np.stack(pixels), reference.info.image)
    half = max(1, len(images) // 2)
    compared = images if len(images) < 2 * BATCH else images[half:][:COMPARED]
    return Samples(
        name=f"{len(compared)} images of {data}",
        kind="real",
        compared=[compared[first : first + BATCH] for first in range(0, len(compared), BATCH)],
        calibrating=images[:half][:CALIBRATING],
        labelled=False,
    )


def _of_source(source: Source, info: BundleInfo, task: Task, *, compared: int, calibrate: bool) -> Samples:
    split = "val" if len(source.splits.get("val", ())) else "train"
    batches = _read(source, split, info, task, most=compared)
    calibrating = _read(source, "train", info, task, most=CALIBRATING) if calibrate else []
    count = sum(len(batch.images) for batch in batches)
    none = np.zeros((0, info.image.channels, *info.image.size), np.float32)
    return Samples(
        name=f"{count:,} images of {source.name}, split {split}",
        kind="real",
        compared=list(batches),
        calibrating=np.concatenate([none, *(batch.images.float().numpy() for batch in calibrating)]),
        labelled=True,
    )


def _read(source: Source, split: str, info: BundleInfo, task: Task, *, most: int) -> list[Batch]:
    """Batches of images spread evenly over a split."""
    items: Items = source.splits[split]
    rows = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(np.int64))
    loader = Loader(
        Selection(items, rows),
        info.image,
        batch_size=BATCH,
        targets=task.targets(source).matched(info.labels),
        workers=0,
        max_unreadable=1.0,
        full=True,
    )
    try:
        batches = list(loader.epoch(0))
    finally:
        loader.close()
    return batches
