"""Targets that are masks: fitted to the model's view and warped with their images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tesela.core.errors import ConfigError, DataError
from tesela.data.masks.coding import MaskCoding
from tesela.data.masks.items import stored_mask
from tesela.data.masks.survey import Survey, survey
from tesela.data.source import SPLITS, Items, Source
from tesela.data.targets import match_labels
from tesela.imaging.mask import IGNORE, fit_mask, resize_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from tesela.data.augment.movement import Movement
    from tesela.imaging.spec import ImageSpec


class MaskTargets:
    """A class for each pixel.

    Args:
        coding: how stored values read.
        numbers: (K,) the number that each class has for a model; None where they are the same.
        labels: names in the model's order.
    """

    spatial = True

    def __init__(
        self,
        coding: MaskCoding,
        numbers: NDArray[np.int64] | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        self.coding = coding
        self.labels = tuple(coding.names if labels is None else labels)
        self.pixels: dict[str, NDArray[np.int64]] = {}
        self._table = np.full(256, IGNORE, np.uint8)
        self._table[: len(coding.names)] = np.arange(len(coding.names)) if numbers is None else numbers

    @property
    def colours(self) -> tuple[tuple[int, int, int], ...]:
        """Of each label, in pictures."""
        return self.coding.renumbered(self.labels)

    def check(self, source: Source) -> None:
        """Read every mask, and count the pixels of each class.

        Raises:
            DataError: masks cannot be used, there are fewer than two classes, or one is in val or test only.
        """
        if len(self.labels) < 2:
            raise DataError(
                f"the masks of {source.name} have one class only",
                hint="a segmenter needs two or more; an ignored value is none",
            )
        for split in (split for split in SPLITS if split in source.splits):
            items = source.splits[split]
            found = survey(items, self.coding)
            _refuse_faults(found, split, len(items))
            if len(items) and len(found.empty) == len(items):
                raise DataError(
                    f"every pixel of every mask in {split} is ignored",
                    hint="check the column ignored in classes.csv",
                )
            self.pixels[split] = found.pixels.sum(0)[: len(self.labels)]
        self._refuse_unseen(source)

    def _refuse_unseen(self, source: Source) -> None:
        train = self.pixels.get("train")
        for split, counts in self.pixels.items():
            unseen = [] if train is None else np.flatnonzero((counts > 0) & (train == 0)).tolist()
            if split != "train" and unseen:
                label = self.coding.names[unseen[0]]
                raise DataError(
                    f"class {label!r} is in the masks of {split} but not of train ({source.name})",
                    hint=f"add training masks with {label!r}, or have it ignored in classes.csv",
                )

    def strata(self, items: Items) -> NDArray[np.int64]:
        """One group for all."""
        return np.zeros(len(items), np.int64)

    def read(
        self,
        items: Items,
        rows: NDArray[np.int64],
        spec: ImageSpec,
        *,
        boxes: NDArray[np.float64] | None = None,
    ) -> NDArray[np.uint8]:
        """(B, h, w) class numbers in the model's view, or of a part (top, left, height, width) of each."""
        if boxes is None:
            return np.stack([fit_mask(self.full(items, int(row)), spec) for row in rows])
        return np.stack(
            [
                _part(self.full(items, int(row)), tuple(box), spec.size)
                for row, box in zip(rows, boxes.tolist(), strict=True)
            ]
        )

    def full(self, items: Items, row: int) -> NDArray[np.uint8]:
        """(H, W) class numbers of one mask at its own size."""
        stored, name = stored_mask(items, row)
        decoded: NDArray[np.uint8] = self._table[self.coding.decode(stored, name)]
        return decoded

    def matched(self, labels: Sequence[str]) -> MaskTargets:
        """The same masks, numbered as a model with these labels numbers them."""
        if tuple(labels) == self.labels:
            return self
        return MaskTargets(self.coding, match_labels(self.coding.names, labels), labels)

    def dry(self, count: int, spec: ImageSpec) -> NDArray[np.uint8]:
        """(count, h, w) of class 0."""
        return np.zeros((count, *spec.size), np.uint8)

    def follow(self, values: Tensor, movement: Movement) -> Tensor:
        """Masks (B, h, w), moved as their images were; what comes from outside is ignored."""
        return movement.masks(values, outside=IGNORE)

    def mix(self, values: Tensor, *, share: float) -> Tensor:
        """Refuse: a pixel has one class.

        Raises:
            ConfigError: always.
        """
        del values, share
        raise ConfigError(
            "MixUp and CutMix mix the labels of whole images, and masks have none",
            hint="turn them off: --augment.mixup 0 --augment.cutmix 0",
        )


def _part(mask: NDArray[np.uint8], box: tuple[float, ...], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A part of a mask at ``size``; the box is rounded to whole pixels as that of its image is."""
    top, left = round(box[0]), round(box[1])
    bottom, right = max(round(box[0] + box[2]), top + 1), max(round(box[1] + box[3]), left + 1)
    return resize_mask(mask[top:bottom, left:right], size)


def _refuse_faults(found: Survey, split: str, total: int) -> None:
    if not found.faults:
        return
    first = found.faults[0]
    count = len(found.faults)
    more = f"; {count} of {total} masks in {split} cannot be used" if count > 1 else ""
    raise DataError(f"{first.message}{more}", hint=f"{first.hint}; 'tesela data check DATA' lists them all")
