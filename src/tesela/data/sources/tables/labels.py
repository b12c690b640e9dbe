"""Class names as one text: of a folder, a cell or a value.

Composed Unicode (NFC), so that a folder that came from a Mac is the class of the same letters elsewhere; no
spaces around; bytes that are no UTF-8 written out. Numbers read alike in every format: 1, 1.0 and "1" are one
class.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from tesela.core.errors import DataError
from tesela.core.pathnames import path_text

#: The hub's number for a label that is withheld.
WITHHELD = "-1"
_WHOLE = re.compile(r"[+-]?\d+(\.0*)?")
_DECIMAL = re.compile(r"[+-]?\d+\.\d*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def label_text(text: str) -> str:
    """The class that a name stands for."""
    return text if text.isascii() and text == text.strip() else _composed(text)


def _composed(text: str) -> str:
    written = "".join(path_text(sign) if "\ud800" <= sign <= "\udfff" else sign for sign in text)
    return unicodedata.normalize("NFC", written).strip()


def label_texts(values: Sequence[Any], *, where: str, rows: Sequence[int] | None = None) -> list[str | None]:
    """The class of each value, None where there is none (null, NaN, an empty text).

    Args:
        values: as a file holds them.
        where: the file, for errors.
        rows: number of each value in it; by default from 0.

    Raises:
        DataError: a value is a list or another structure, or the values are measurements.
    """
    texts = [_text(value, row, where) for row, value in zip(rows or range(len(values)), values, strict=True)]
    present = {text for text in texts if text}
    if any(_DECIMAL.fullmatch(text) for text in present) and all(map(_WHOLE.fullmatch, present)):
        return [text.partition(".")[0] if text else None for text in texts]
    if len(present) > max(20, len(texts) // 2) and _are_measurements(present):
        raise DataError(
            f"{where} has {len(present)} different numbers as labels: measurements, no classes",
            hint="put them into classes first, such as low, middle and high",
        )
    return [text or None for text in texts]


def _are_measurements(texts: set[str]) -> bool:
    return all(map(_NUMBER.fullmatch, texts)) and not all(map(_WHOLE.fullmatch, texts))


def _text(value: Any, number: int, where: str) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return label_text(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple | dict):
        shown = str(value)
        raise DataError(
            f"{where}: row {number} has the label {shown[:60]}, and one label per image is needed",
            hint="keep one class of each image, or a column for each class and a task that reads these",
        )
    return label_text(str(value))


def withheld(labels: Sequence[str | None]) -> bool:
    """Whether none of these is a label: the split is one whose labels are not given away."""
    return all(label is None or label == WITHHELD for label in labels)
