"""Real images on which an export is calibrated and held against its model.

``--data`` may be a data set, whose labels give scores, or any images. Without it the run's own data are
opened as its training opened them. Images that were trained on calibrate, others are compared: train and val.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
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
from tesela.hardware.speed import measure_speed
from tesela.imaging.preprocess import normalize
from tesela.imaging.suffixes import IMAGE_SUFFIXES
from tesela.runs.folder import Run
from tesela.runtime.predictor import Predictor
from tesela.runtime.sources import find_images

if TYPE_CHECKING:
    from tesela.data.batch import Batch
    from tesela.data.source import Items, Source
    from tesela.imaging.spec import ImageSpec
    from tesela.models.bundle import BundleInfo
    from tesela.tasks.task import Task

#: Most images that are compared, and that calibrate; batches of them.
COMPARED, CALIBRATING, SAMPLE_BATCH = 1000, 128, 8
#: Seconds that the fp32 model may take for the compared images, of which there are at least so many.
MOST_SECONDS, FEWEST_COMPARED = 60.0, 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Images of an export, prepared as the model wants them.

    Attributes:
        name: what they are, for people.
        kind: ``real`` or ``random``.
        compared: a loader of images with targets, or pixels (N, h, w, C) without.
        spec: how pixels are normalised.
        calibrating: normalised images (N, C, h, w); none where there is nothing real.
    """

    name: str
    kind: str
    compared: Loader | NDArray[np.uint8]
    spec: ImageSpec
    calibrating: NDArray[np.float32]

    @property
    def labelled(self) -> bool:
        """Whether batches have targets."""
        return isinstance(self.compared, Loader)

    @property
    def count(self) -> int:
        """Number of compared images."""
        return self.compared.num_images if isinstance(self.compared, Loader) else len(self.compared)

    def batches(self) -> Iterator[tuple[NDArray[np.float32], Batch | None]]:
        """Images (B, C, h, w), and the batch with their targets; read at each use."""
        if isinstance(self.compared, Loader):
            for batch in self.compared.epoch(0):
                yield batch.images.float().numpy(), batch
            return
        for first in range(0, len(self.compared), SAMPLE_BATCH):
            yield normalize(self.compared[first : first + SAMPLE_BATCH], self.spec), None

    def first(self, count: int) -> NDArray[np.float32]:
        """The first images, repeated where there are fewer."""
        needed = islice(self.batches(), -(-count // SAMPLE_BATCH))
        images = np.concatenate([images for images, _ in needed])[:count]
        return images[np.arange(count) % len(images)]


def collect_samples(
    source: Path, data: str | None, reference: Predictor, *, calibrate: bool, needed: bool = True
) -> Samples:
    """The images of an export.

    Args:
        source: the run or bundle that is exported.
        data: what ``--data`` names; the run's own data if None.
        reference: the model in PyTorch.
        calibrate: whether images for calibration are wanted.
        needed: whether there is no calibration without them.

    Raises:
        UsageError: there are no real images and calibration needs them, or ``data`` is nothing.
        DataError: the data has classes that the model does not know, or no image can be read.
    """
    run = Run(source)
    recorded = read_yaml(run.config).get("data", {}) if run.exists() else {}
    if data is None and not recorded:
        if calibrate and needed:
            raise UsageError(
                "int8 is calibrated on real images, and the model does not say what it was trained on",
                hint="name some: --data DATA, a data set or a folder of images like those it will see",
            )
        return random_samples(reference.info)
    opened = _labelled(recorded, data, reference.task)
    if opened is None:
        return _unlabelled(str(data), reference)
    return _of_source(opened, reference, calibrate=calibrate)


def random_samples(info: BundleInfo, *, count: int = 12) -> Samples:
    """Uniform noise of the model's size, from a fixed seed."""
    shape = (count, info.image.height, info.image.width, info.image.channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Samples(
        name="random images",
        kind="random",
        compared=pixels,
        spec=info.image,
        calibrating=normalize(pixels[:0], info.image),
    )


def affordable(reference: Predictor) -> int:
    """How many images the model computes in ``MOST_SECONDS``, within the bounds."""
    spec = reference.info.image
    images = np.zeros((SAMPLE_BATCH, spec.channels, *spec.size), np.float32)
    timing = measure_speed(lambda: reference.backend.logits(images), seconds=0.2, least=2, warm_up=1)
    return int(np.clip(MOST_SECONDS * SAMPLE_BATCH / timing.median, FEWEST_COMPARED, COMPARED))


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
    images = np.stack(pixels)
    half = max(1, len(images) // 2)
    compared = images if len(images) < 2 * SAMPLE_BATCH else images[half:][: affordable(reference)]
    return Samples(
        name=f"{len(compared):,} images of {data}",
        kind="real",
        compared=compared,
        spec=reference.info.image,
        calibrating=normalize(images[:half][:CALIBRATING], reference.info.image),
    )


def _of_source(source: Source, reference: Predictor, *, calibrate: bool) -> Samples:
    info, task = reference.info, reference.task
    split = "val" if len(source.splits.get("val", ())) else "train"
    compared = _loader(source, split, info, task, most=affordable(reference))
    calibrating = [np.zeros((0, info.image.channels, *info.image.size), np.float32)]
    if calibrate:
        loader = _loader(source, "train", info, task, most=CALIBRATING)
        calibrating += [batch.images.float().numpy() for batch in loader.epoch(0)]
    return Samples(
        name=f"{compared.num_images:,} images of {source.name}, split {split}",
        kind="real",
        compared=compared,
        spec=info.image,
        calibrating=np.concatenate(calibrating),
    )


def _loader(source: Source, split: str, info: BundleInfo, task: Task, *, most: int) -> Loader:
    """Images spread evenly over a split, in batches."""
    items: Items = source.splits[split]
    rows = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(np.int64))
    return Loader(
        Selection(items, rows),
        info.image,
        batch_size=SAMPLE_BATCH,
        targets=task.targets(source).matched(info.labels),
        workers=0,
        max_unreadable=1.0,
        full=True,
    )
