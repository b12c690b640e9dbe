"""Targets of a task: read, checked, stratified, warped and mixed with their images.

A loader knows images; everything it does with targets it asks of a ``Targets``. ``LabelTargets`` is the
plainest kind, one stored class per image, and the one by which data sets are checked and split where no task
is named.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from tesela.core.errors import ConfigError, DataError, suggestion
from tesela.data.source import SPLITS, Items, Source
from tesela.data.sources.tables.labels import label_text

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from tesela.data.augment.movement import Movement
    from tesela.imaging.spec import ImageSpec


class Targets(Protocol):
    """Targets of one task; pickles small, since loader workers get a copy.

    Attributes:
        labels: names of what is predicted, in the order of a model's outputs; empty if there are none.
        spatial: whether targets have places in the image and so have to follow its movements.
    """

    labels: tuple[str, ...]
    spatial: bool

    def check(self, source: Source) -> None:
        """Raise DataError where nothing can be trained on ``source``."""

    def strata(self, items: Items) -> NDArray[np.int64]:
        """(N,) group of each item; each group is split, and taken subsets of, in equal shares."""

    def read(
        self,
        items: Items,
        rows: NDArray[np.int64],
        spec: ImageSpec,
        *,
        boxes: NDArray[np.float64] | None = None,
    ) -> NDArray[np.generic]:
        """(B, ...) targets of some rows.

        Args:
            items: what the rows are of.
            rows: (B,).
            spec: the model's view, which spatial targets are fitted to.
            boxes: (B, 4), the part (top, left, height, width) of each image that is looked at; None is all.
        """

    def matched(self, labels: Sequence[str]) -> Targets:
        """The same targets, numbered as a model with these labels numbers them; labels are matched by name.

        Raises:
            DataError: there is a label that the model does not know.
        """

    def dry(self, count: int, spec: ImageSpec) -> NDArray[np.generic]:
        """(count, ...) valid targets made up for a dry run."""

    def follow(self, values: Tensor, movement: Movement) -> Tensor:
        """Targets (B, ...) after their images were flipped, shifted and warped."""

    def mix(self, values: Tensor, *, share: float) -> Tensor:
        """Targets of a batch mixed with itself in reverse order (MixUp, CutMix).

        Args:
            values: (B, ...), as ``read`` gives them.
            share: weight of the first image of each pair; 1 where this batch was left unmixed.

        Raises:
            ConfigError: these targets cannot be mixed.
        """


@runtime_checkable
class SpatialTargets(Protocol):
    """Targets that have places in the image."""

    def full(self, items: Items, row: int) -> NDArray[np.generic]:
        """(H, W) targets of one image at its own size."""


class WholeTargets(ABC):
    """Class numbers (B,) of whole images, which stay whatever moves in the image."""

    spatial = False

    @abstractmethod
    def classes(self, items: Items, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(B,) class numbers of some rows."""

    def read(
        self,
        items: Items,
        rows: NDArray[np.int64],
        spec: ImageSpec,
        *,
        boxes: NDArray[np.float64] | None = None,
    ) -> NDArray[np.int64]:
        """(B,) class numbers."""
        del spec, boxes
        return self.classes(items, rows)

    def follow(self, values: Tensor, movement: Movement) -> Tensor:
        """The same classes wherever the image goes."""
        del movement
        return values


class LabelTargets(WholeTargets):
    """One class per image, as the source stores it.

    Args:
        labels: class names; a target is an index into them.
        numbers: (stored classes,) the class that each stored number stands for; None where they are the same.

    Attributes:
        counts: training images of each of the K classes, once a source was checked.
    """

    def __init__(self, labels: Sequence[str], numbers: NDArray[np.int64] | None = None) -> None:
        self.labels = tuple(labels)
        self._numbers = numbers
        self.counts: list[int] | None = None

    def check(self, source: Source) -> None:
        """Refuse a source with one class, or with a class that is in val or test only.

        Raises:
            DataError: no classifier can be trained on it.
        """
        if len(self.labels) < 2:
            found = f"one class only: {self.labels[0]}" if self.labels else "no labels"
            columns = sorted({name for items in source.splits.values() for name in items.columns})
            hint = "a classifier needs at least two class folders"
            if source.kind == "manifest":
                hint = "a classifier needs a column called label with at least two classes"
                hint += f"; the other columns are {', '.join(columns)}" if columns else ""
            hint += "" if self.labels else "; to learn without labels: tesela train DATA --task pretrain"
            raise DataError(f"{source.name} has {found}", hint=hint)
        counts = label_counts(source)
        self.counts = counts["train"]
        for number, label in enumerate(self.labels):
            places = [split for split in counts if split != "train" and counts[split][number]]
            if not counts["train"][number] and places:
                alike = [one for one in self.labels if one != label and one.casefold() == label.casefold()]
                raise DataError(
                    f"class {label!r} is in {places[0]} but not in train",
                    hint=f"{alike[0]!r} and {label!r} differ in case only: give both one name"
                    if alike
                    else f"add training images of {label!r} or remove it from {places[0]}",
                )
        if np.count_nonzero(counts["train"]) < 2:
            raise DataError(
                f"{source.name} has training images of one class only",
                hint="a classifier needs at least two classes",
            )

    def strata(self, items: Items) -> NDArray[np.int64]:
        """The classes."""
        return items.targets

    def classes(self, items: Items, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(B,) class numbers, as a model numbers them."""
        stored = items.targets[rows]
        return stored if self._numbers is None else self._numbers[stored]

    def matched(self, labels: Sequence[str]) -> LabelTargets:
        """Classes by the numbers that a model gives them."""
        if tuple(labels) == self.labels:
            return self
        return LabelTargets(labels, match_labels(self.labels, labels))

    def dry(self, count: int, spec: ImageSpec) -> NDArray[np.int64]:
        """(count,) of class 0."""
        del spec
        return np.zeros(count, np.int64)

    def mix(self, values: Tensor, *, share: float) -> Tensor:
        """(B, K) float32 probabilities that sum to 1."""
        import torch

        if not self.labels:
            raise ConfigError(
                "MixUp and CutMix need the class names", hint="turn them off: --augment.mixup 0"
            )
        soft = torch.zeros(len(values), len(self.labels), device=values.device)
        soft = soft.scatter_(1, values[:, None], 1.0)
        return soft if share == 1 else soft * share + soft.flip(0) * (1 - share)


def match_labels(found: Sequence[str], known: Sequence[str]) -> NDArray[np.int64]:
    """The place among the ``known`` labels of each label of the data, by name, however its letters are coded.

    Raises:
        DataError: the data has labels that are not known.
    """
    places = {label_text(label): place for place, label in enumerate(known)}
    places |= {label: place for place, label in enumerate(known)}
    unknown = [label for label in found if label not in places and label_text(label) not in places]
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        names = ", ".join(repr(label) for label in unknown[:5]) + more
        raise DataError(
            f"the model does not know {len(unknown)} of the data's {len(found)} classes: {names}",
            hint=suggestion(unknown[0], known),
        )
    return np.array([places.get(label, places.get(label_text(label))) for label in found], dtype=np.int64)


def label_counts(source: Source) -> dict[str, list[int]]:
    """Images per class, by split."""
    order = [split for split in SPLITS if split in source.splits]
    return {
        split: np.bincount(source.splits[split].targets, minlength=len(source.labels)).tolist()
        for split in order
    }
