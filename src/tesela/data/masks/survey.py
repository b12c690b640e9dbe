"""Survey of all masks of a split: pixels of each class, and what is wrong with which mask."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from tesela.core.errors import DataError, ImageError
from tesela.data.masks.coding import MaskCoding, packed
from tesela.data.masks.items import stored_mask
from tesela.data.scan import in_threads
from tesela.data.source import Items, Selection, decode_limits
from tesela.imaging.decode import upright_size
from tesela.imaging.mask import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One mask that cannot be used.

    Attributes:
        index: number of its image.
        name: of the mask.
        message: what is wrong.
        hint: how to mend it.
    """

    index: int
    name: str
    message: str
    hint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What the masks of a split hold.

    Attributes:
        pixels: (N, K + 1) pixels of each class in each mask, the ignored ones last.
        faults: masks that cannot be used; their pixels are zero.
    """

    pixels: NDArray[np.int64]
    faults: tuple[Fault, ...]

    @property
    def empty(self) -> list[int]:
        """Numbers of masks in which everything is ignored."""
        broken = {fault.index for fault in self.faults}
        bare = np.flatnonzero(self.pixels[:, :-1].sum(1) == 0)
        return [int(index) for index in bare if int(index) not in broken]


_known: WeakKeyDictionary[Items, dict[MaskCoding, Survey]] = WeakKeyDictionary()


def survey(items: Items, coding: MaskCoding) -> Survey:
    """Read every mask of a split, or of what it was selected from, once."""
    base = items.items if isinstance(items, Selection) else items
    found = _known.setdefault(base, {})
    if coding not in found:
        found[coding] = _survey(base, coding)
    whole = found[coding]
    if not isinstance(items, Selection):
        return whole
    places = {int(row): place for place, row in enumerate(items.rows)}
    faults = tuple(
        replace(fault, index=places[fault.index]) for fault in whole.faults if fault.index in places
    )
    return Survey(pixels=whole.pixels[items.rows], faults=faults)


def _survey(items: Items, coding: MaskCoding) -> Survey:
    pixels = np.zeros((len(items), len(coding.names) + 1), np.int64)
    faults = []
    for index, found in enumerate(in_threads(lambda index: _look(items, index, coding), len(items))):
        if isinstance(found, Fault):
            faults.append(found)
        else:
            pixels[index] = found
    return Survey(pixels=pixels, faults=tuple(faults))


def _look(items: Items, index: int, coding: MaskCoding) -> NDArray[np.int64] | Fault:
    name = ""
    try:
        stored, name = stored_mask(items, index)
        classes = coding.decode(stored, name)
        size = _image_size(items, index)
        if size is not None and size != classes.shape:
            raise DataError(
                f"the mask {name} has {classes.shape[0]}x{classes.shape[1]} pixels, its image "
                f"{items.name(index)} has {size[0]}x{size[1]}",
                hint="a mask has one pixel for each pixel of its image",
            )
    except DataError as error:
        return Fault(index=index, name=name or items.name(index), message=error.message, hint=error.hint)
    counts = np.bincount(classes.reshape(-1), minlength=256)
    return np.append(counts[: len(coding.names)], counts[IGNORE])


def _image_size(items: Items, index: int) -> tuple[int, int] | None:
    """(height, width) of the image; None where it cannot be read, which is said elsewhere."""
    try:
        data = items.raw(index)
        if data is not None:
            return upright_size(data, limits=decode_limits(items))
        height, width = items.read(index).shape[:2]
    except ImageError:
        return None
    return height, width


def stored_values(items: Items) -> tuple[set[int], bool]:
    """All values of the masks that can be read, and whether they are colours."""
    kinds: set[bool] = set()
    values: set[int] = set()

    def look(index: int) -> tuple[NDArray[np.int32], bool] | None:
        try:
            stored, _ = stored_mask(items, index)
        except DataError:
            return None
        coloured = stored.ndim == 3
        return np.unique(packed(stored) if coloured else stored.astype(np.int32)), coloured

    for found in in_threads(look, len(items)):
        if found is not None:
            kinds.add(found[1])
            values.update(found[0].tolist())
    return values, kinds == {True}
