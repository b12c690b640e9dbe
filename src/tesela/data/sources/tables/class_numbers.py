"""Class names and numbers from a column of labels.

Whole numbers are places in the list of classes: 0..highest. Odd: where few of very many places are taken, as
by identifiers of a larger catalogue, the numbers are names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tesela.core.pathnames import path_text
from tesela.data.sources.tables.labels import WITHHELD, label_text, label_texts

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A file, or its address.
_File = TypeVar("_File")
#: Whole numbers as labels that reach this far and are few are names, not places in a list.
_SPARSE = 1000


def class_numbers(
    values: Mapping[_File, Sequence[Any]], names: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[_File, NDArray[np.int64]]]:
    """Class names, and the class of each row, -1 where it has none.

    Args:
        values: the column of labels of each file.
        names: as the schema says them; without, whole numbers are 0..highest, and other values themselves.

    Raises:
        DataError: a value is a list or another structure.
    """
    texts = {
        file: label_texts(column, where=path_text(str(file))) if not _whole(column) else None
        for file, column in values.items()
    }
    labels = tuple(map(label_text, names)) or _labels_of(values, texts)
    number = {label: place for place, label in enumerate(labels)}
    numbers = {}
    for file, column in values.items():
        said = texts[file]
        if said is None and (names or labels == _count(len(labels))):
            found = [-1 if value is None else value for value in column]
        else:
            found = [number.get(text or "", -1) for text in said or map(str, column)]
            if names and said is not None:  # numbers stored as 1.0
                found = [_place(text, place) for text, place in zip(said, found, strict=True)]
        numbers[file] = np.array(found, np.int64)
    return labels, numbers


def _whole(column: Sequence[Any]) -> bool:
    return all(value is None or type(value) is int for value in column)


def _count(length: int) -> tuple[str, ...]:
    return tuple(map(str, range(length)))


def _place(text: str | None, place: int) -> int:
    return int(text) if place < 0 and text and text.isdecimal() else place


def _labels_of(
    values: Mapping[_File, Sequence[Any]], texts: Mapping[_File, list[str | None] | None]
) -> tuple[str, ...]:
    """0..highest for whole numbers, unless few of them are there; the sorted distinct ones for texts."""
    distinct = {
        text
        for file, column in values.items()
        for text in (texts[file] or map(str, {value for value in column if value is not None}))
        if text
    }
    if not all(text.isdecimal() or text == WITHHELD for text in distinct):
        return tuple(sorted(distinct))
    found = sorted(int(text) for text in distinct if text != WITHHELD)
    highest = found[-1] if found else -1
    if highest >= max(_SPARSE, 10 * len(found)):  # identifiers of a larger catalogue
        return tuple(map(str, found))
    return _count(highest + 1)
