"""Rows of a manifest file, as spreadsheets and tools write them.

CSV with commas, semicolons, tabs or bars, in UTF-8 or Excel's UTF-16, with a heading or without; JSON lines
or a JSON array. Headings count without regard to case and spaces. Odd: JSON lines end at a line feed only,
since U+2028 may stand inside their texts.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tesela.core.errors import DataError
from tesela.core.pathnames import path_text

#: What a column of paths, of labels and of splits may be called, the surest first.
PATH_KEYS = (
    *("path", "filepath", "file_path", "image_path", "imagepath", "img_path"),
    *("file", "filename", "file_name", "image", "image_file", "image_filename", "image_name", "img", "fname"),
)
LABEL_KEYS = ("label", "class", "target", "category", "class_name", "classname", "label_name", "labels")
SPLIT_KEYS = ("split", "set", "subset", "partition")
#: Columns of yes and no that say one split.
FLAG_KEYS = {"is_valid": "val", "is_val": "val", "is_test": "test"}
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
#: Files that may be manifests.
MANIFEST_SUFFIXES = (".csv", ".tsv", ".txt", *JSON_SUFFIXES)
_DELIMITERS = ",;\t|"


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a file.

    Attributes:
        heading: the columns' names as the file has them; empty where it has none.
        rows: number in the file from 1, and the values by column.
    """

    heading: tuple[str, ...]
    rows: list[tuple[int, Mapping[str, Any]]]

    def column(self, keys: Sequence[str]) -> list[str]:
        """Names of the columns that are called by one of the keys, in the order of the keys."""
        names = {name: heading_key(name) for name in self.heading}
        return [name for key in keys for name in names if names[name] == key]


def heading_key(name: str) -> str:
    """A heading without regard to case, spaces and hyphens."""
    return "_".join(name.lower().replace("-", " ").replace("_", " ").split())


def read_table(path: Path, *, exists: Callable[[str], bool]) -> Table:
    """The rows of a CSV or JSON file.

    Args:
        path: of the file.
        exists: whether a text names an image, by which a file without a heading is told.

    Raises:
        DataError: it cannot be read.
    """
    try:
        text = _decoded(path.read_bytes())
        if path.suffix.lower() in JSON_SUFFIXES:
            return _json_table(text)
        return _csv_table(text, exists)
    except (UnicodeDecodeError, csv.Error, ValueError, OSError) as error:
        raise DataError(
            f"{path_text(path)} is no readable manifest: {error}",
            hint="use UTF-8 (in Excel: CSV UTF-8), CSV with a heading or one JSON object per line",
        ) from error


def _decoded(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    if len(data) > 1 and 0 in data[:2]:
        return data.decode("utf-16-be" if data[0] == 0 else "utf-16-le")
    return data.decode("utf-8-sig")


def _json_table(text: str) -> Table:
    if text.lstrip().startswith("["):
        values = json.loads(text)
        numbered = list(enumerate(values, start=1))
    else:
        lines = enumerate(text.split("\n"), start=1)
        numbered = [(number, _json_row(line, number)) for number, line in lines if line.strip()]
    heading: dict[str, None] = {}
    for number, row in numbered:
        if not isinstance(row, dict):
            raise ValueError(f'row {number} is no object such as {{"path": ..., "label": ...}}')
        heading |= dict.fromkeys(row)
    return Table(tuple(heading), numbered)


def _json_row(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number} is no JSON: {error}") from error


def _csv_table(text: str, exists: Callable[[str], bool]) -> Table:
    said = ""
    if text[:4].lower() == "sep=":  # Excel's own word for the delimiter
        said, _, text = text[4:].partition("\n")
    first = next((line for line in text.splitlines() if line.strip(_DELIMITERS + " ")), "")
    delimiter, has_heading = _delimiter(first, said.strip()[:1] or _DELIMITERS, exists)
    if delimiter is None:
        return _bare_lines(text)
    spaced = f"{delimiter} " in first or f'{delimiter} "' in text
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=spaced)
    found = [(number, row) for number, row in enumerate(reader, start=1) if any(map(str.strip, row))]
    if not found:
        return Table((), [])
    heading = [name.strip() for name in found[0][1]] if has_heading else ["path", "label", "split"]
    while heading and not heading[-1]:
        heading.pop()
    begin = found[0][0] if has_heading else 0
    rows: list[tuple[int, Mapping[str, Any]]] = []
    for number, row in found[1 if has_heading else 0 :]:
        if any(map(str.strip, row[len(heading) :])):
            raise ValueError(
                f"row {number - begin} has {len(row)} cells under {len(heading)} headings; "
                "put names that hold the delimiter in quotes"
            )
        rows.append((number - begin, {name: cell for name, cell in zip(heading, row, strict=False) if name}))
    return Table(tuple(name for name in heading if name), rows)


def _delimiter(line: str, choice: str, exists: Callable[[str], bool]) -> tuple[str | None, bool]:
    """The delimiter, and whether the line is a heading; None for a line of path, space and label."""
    cells = {sign: _cells(line, sign) for sign in choice}
    headed = [sign for sign in choice if {heading_key(cell) for cell in cells[sign]} & {*PATH_KEYS}]
    if headed:
        return max(headed, key=lambda sign: len(cells[sign])), True
    bare = [sign for sign in choice if 2 <= len(cells[sign]) <= 3 and exists(cells[sign][0])]
    if bare:
        return bare[0], False
    words = line.rsplit(maxsplit=1)
    if len(words) == 2 and exists(words[0]):
        return None, False
    return max(choice, key=lambda sign: len(cells[sign])), True


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])


def _bare_lines(text: str) -> Table:
    """Lines of a path, a space and a label."""
    rows: list[tuple[int, Mapping[str, Any]]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.rsplit(maxsplit=1)
        if words:
            rows.append((number, {"path": words[0], "label": words[1] if len(words) == 2 else ""}))
    return Table(("path", "label"), rows)
