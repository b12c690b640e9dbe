"""Targets of pre-training: none to learn, and classes for the probes where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tesela.core.errors import ConfigError, DataError
from tesela.data.source import Items, Source
from tesela.data.targets import WholeTargets

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from tesela.imaging.spec import ImageSpec

#: Stands for the class of an image that has none.
UNLABELLED = -1


class ProbeTargets(WholeTargets):
    """(B,) class numbers for the probes, ``UNLABELLED`` where an image has none; nothing is learned of them.

    Args:
        labelled: whether the source's numbers are classes of whole images.
    """

    labels: tuple[str, ...] = ()

    def __init__(self, *, labelled: bool) -> None:
        self.labelled = labelled

    def check(self, source: Source) -> None:
        """Refuse a single image, which has nothing to be compared with.

        Raises:
            DataError: there is only one.
        """
        if len(source.splits["train"]) < 2:
            raise DataError(
                f"{source.name} has one training image, and pre-training needs many",
                hint="give a folder with all your images, with or without labels",
            )

    def strata(self, items: Items) -> NDArray[np.int64]:
        """The classes, so that splits are those of a training with labels; those without one together."""
        return items.targets + 1 if self.labelled else np.zeros(len(items), np.int64)

    def classes(self, items: Items, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(B,) class numbers."""
        return items.targets[rows] if self.labelled else np.full(len(rows), UNLABELLED, np.int64)

    def matched(self, labels: Sequence[str]) -> ProbeTargets:
        """The same: the model knows no labels."""
        del labels
        return self

    def dry(self, count: int, spec: ImageSpec) -> NDArray[np.int64]:
        """(count,) without a class."""
        del spec
        return np.full(count, UNLABELLED, np.int64)

    def mix(self, values: Tensor, *, share: float) -> Tensor:
        """Nothing can be mixed.

        Raises:
            ConfigError: always.
        """
        del values, share
        raise ConfigError(
            "MixUp and CutMix mix labels, and pre-training learns none",
            hint="turn them off: --augment.mixup 0 --augment.cutmix 0",
        )
