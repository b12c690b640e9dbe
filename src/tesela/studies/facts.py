"""Facts of a study's data: classes, images of each, their size; all that a grid depends on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tesela.core.errors import ConfigError, DataError
from tesela.data.digest import data_digest
from tesela.tasks.opening import open_for_task
from tesela.training.config import TrainConfig
from tesela.training.start import inspect_images


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFacts:
    """What a grid depends on.

    Attributes:
        name: of the data.
        labels: names of the K classes.
        counts: (K,) training images of each.
        side: longer side of the images in pixels; of those of different sizes, 224.
        channels: as stored.
        masks: whether each image has a mask instead of a label.
        scored: images of the split that is scored.
        split: name of that split.
        digest: changes where the data does.
    """

    name: str
    labels: tuple[str, ...]
    counts: tuple[int, ...]
    side: int
    channels: int
    masks: bool
    scored: int
    split: str
    digest: str

    @property
    def images(self) -> int:
        """Training images."""
        return sum(self.counts)

    @property
    def least(self) -> int:
        """Training images of the smallest class."""
        return min(self.counts)

    def need_labels(self, kind: str) -> None:
        """Refuse masks.

        Raises:
            DataError: the data has masks instead of labels.
        """
        if self.masks:
            raise DataError(
                f"{self.name} has masks, and study {kind} needs one label for each image",
                hint="name a folder of class folders, or compare segmenters: tesela study claims DATA",
            )

    def check_shares(self, labels: tuple[int, ...]) -> None:
        """Refuse more labels than a class has images.

        Raises:
            ConfigError: the class with the fewest images has fewer; it is named.
        """
        least = int(np.argmin(self.counts))
        if labels and max(labels) > self.counts[least]:
            raise ConfigError(
                f"class {self.labels[least]!r} has {self.counts[least]:,} training images, "
                f"fewer than {max(labels):,} labels",
                hint=f"ask for at most {self.counts[least]}: --labels {self.counts[least]}",
            )


def read_facts(config: TrainConfig) -> DataFacts:
    """The facts of the data that ``config`` names.

    Raises:
        UsageError: nothing is there.
        DataError: it cannot be trained on.
    """
    source = open_for_task("auto", config.data)
    train, masks = source.splits["train"], source.masks is not None
    split = next((name for name in ("test", "val") if len(source.splits[name])), None)
    if split is None:
        raise DataError(
            f"{source.name} has no images to score a model on",
            hint="add images, or name data with a test split",
        )
    counts = [len(train)] if masks else np.bincount(train.targets, minlength=len(source.labels)).tolist()
    size = inspect_images(train, source.channels).size
    return DataFacts(
        name=source.name,
        labels=source.masks.names if source.masks is not None else source.labels,
        counts=tuple(counts),
        side=224 if size is None else max(size),
        channels=source.channels,
        masks=masks,
        scored=len(source.splits[split]),
        split=split,
        digest=data_digest(source),
    )
