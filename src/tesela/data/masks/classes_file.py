"""Class names and colours beside a data set: ``classes.csv`` and other tools' files.

    value,name,color,ignored
    0,road,#804080,
    255,void,,yes

``value`` is the number or the colour that masks hold. Read too: ``class_dict.csv`` (name, r, g, b) and the
``labelmap.txt`` of annotation tools (``name:r,g,b::``), whose masks hold colours.
"""

from __future__ import annotations

import contextlib
import csv
import io
from pathlib import Path

from tesela.core.errors import DataError, StorageError
from tesela.core.files import write_text
from tesela.data.masks.coding import Colour, MaskCoding, palette, shown

NAME = "classes.csv"
_YES = ("yes", "true", "1", "ignored")


def read_classes(root: Path) -> MaskCoding | None:
    """The coding that a file in the folder ``root`` states; None where there is none.

    Raises:
        DataError: a line does not read.
    """
    for name, read in ((NAME, _own), ("class_dict.csv", _class_dict), ("labelmap.txt", _label_map)):
        file = root / name
        if file.is_file():
            try:
                return read(file.read_text(encoding="utf-8-sig"), file)
            except UnicodeDecodeError as error:
                raise DataError(f"{file} is not UTF-8", hint="save it as UTF-8") from error
    return None


def write_classes(root: Path, coding: MaskCoding) -> Path | None:
    """Write the coding as a proposal beside the data; None where the folder takes no file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("value", "name", "color", "ignored"))
    for value, name, colour in zip(coding.values, coding.names, coding.colours, strict=True):
        writer.writerow((shown(value, coloured=coding.coloured), name, hexadecimal(colour), ""))
    for value in coding.ignored:
        writer.writerow((shown(value, coloured=coding.coloured), "ignored", "", "yes"))
    with contextlib.suppress(StorageError, OSError):
        write_text(root / NAME, text.getvalue())
        return root / NAME
    return None


def hexadecimal(colour: Colour) -> str:
    """A colour as ``#rrggbb``."""
    return f"#{colour[0]:02x}{colour[1]:02x}{colour[2]:02x}"


def parse_colour(text: str) -> Colour:
    """The colour of ``#rrggbb``.

    Raises:
        ValueError: it does not read so.
    """
    digits = text.strip().removeprefix("#")
    if len(digits) != 6:
        raise ValueError(text)
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)


def _own(text: str, file: Path) -> MaskCoding:
    names: list[str] = []
    values: list[int] = []
    ignored: list[int] = []
    colours: list[Colour | None] = []
    kinds = set()
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), 2):
        try:
            stored, coloured = _value((row["value"] or "").strip())
            colour = parse_colour(row["color"]) if (row.get("color") or "").strip() else None
        except (KeyError, ValueError) as error:
            raise DataError(
                f"{file}, line {number}, does not read", hint="its columns are value,name,color,ignored"
            ) from error
        kinds.add(coloured)
        if (row.get("ignored") or "").strip().lower() in _YES:
            ignored.append(stored)
            continue
        values.append(stored)
        names.append((row.get("name") or "").strip() or f"class {row['value']}")
        colours.append(colour if colour is not None or not coloured else _unpacked(stored))
    if not names or len(kinds) > 1:
        what = "names no class" if not names else "has numbers and colours as values"
        raise DataError(f"{file} {what}", hint="one row for each class: value,name,color,ignored")
    usual = palette(len(names))
    return MaskCoding(
        names=tuple(names),
        values=tuple(values),
        colours=tuple(colour or usual[place] for place, colour in enumerate(colours)),
        ignored=tuple(ignored),
        coloured=kinds.pop(),
    )


def _value(text: str) -> tuple[int, bool]:
    if text.startswith("#"):
        red, green, blue = parse_colour(text)
        return red << 16 | green << 8 | blue, True
    number = int(text)
    if not 0 <= number <= 255:
        raise ValueError(text)
    return number, False


def _unpacked(value: int) -> Colour:
    return value >> 16, value >> 8 & 255, value & 255


def _class_dict(text: str, file: Path) -> MaskCoding:
    rows = [
        {key.strip().lower(): (value or "").strip() for key, value in row.items() if key}
        for row in csv.DictReader(io.StringIO(text))
    ]
    try:
        return _by_colour([(row["name"], (int(row["r"]), int(row["g"]), int(row["b"]))) for row in rows])
    except (KeyError, ValueError) as error:
        raise DataError(f"{file} does not read", hint="its columns are name,r,g,b") from error


def _label_map(text: str, file: Path) -> MaskCoding:
    found = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, colour = line.split(":")[:2]
            red, green, blue = (int(part) for part in colour.split(","))
        except ValueError as error:
            raise DataError(f"{file} does not read: {line!r}", hint="lines read name:r,g,b::") from error
        found.append((name.strip(), (red, green, blue)))
    return _by_colour(found)


def _by_colour(rows: list[tuple[str, Colour]]) -> MaskCoding:
    """Classes by colour; those called void, ignore or unlabelled are ignored."""
    void = ("void", "ignore", "ignored", "unlabelled", "unlabeled")
    packed = [(name, red << 16 | green << 8 | blue) for name, (red, green, blue) in rows]
    kept = [(name, value) for name, value in packed if name.lower() not in void]
    return MaskCoding(
        names=tuple(name for name, _ in kept),
        values=tuple(value for _, value in kept),
        colours=tuple(_unpacked(value) for _, value in kept),
        ignored=tuple(value for name, value in packed if name.lower() in void),
        coloured=True,
    )
