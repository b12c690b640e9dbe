"""Manifests: a table of path, label or mask, and optional split, as CSV or JSON.

Paths are relative to the manifest. ``tesela data split`` writes such files; how tables may be written is in
table.py. For sources that keep many images in one file it writes ``FILE#ROW``, and such paths are read here
through the source of that file.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tesela.core.errors import DataError
from tesela.core.pathnames import path_text, text_path
from tesela.data.masks.classes_file import read_classes
from tesela.data.masks.items import MaskedFiles
from tesela.data.source import Columns, Items, Source
from tesela.data.sources.folder import FileItems
from tesela.data.sources.layout.split_names import settled, split_word, splits_of
from tesela.data.sources.tables.labels import label_texts, withheld
from tesela.data.sources.tables.table import (
    FLAG_KEYS,
    LABEL_KEYS,
    MANIFEST_SUFFIXES,
    PATH_KEYS,
    SPLIT_KEYS,
    Table,
    heading_key,
    read_table,
)
from tesela.imaging.limits import LOCAL_LIMITS, DecodeLimits

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Rows looked at to see whether the paths lead anywhere.
_LOOKED_AT = 20
_YES = ("true", "1", "1.0", "yes")


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One image of a manifest; ``label`` is None where the row has none."""

    number: int
    path: str
    label: str | None
    split: str
    columns: dict[str, str]


def find_manifest(text: str | Path) -> Source | None:
    """The manifest in a CSV or JSON file; None for anything else."""
    path = Path(text).expanduser()
    if not path.is_file() or path.suffix.lower() not in MANIFEST_SUFFIXES:
        return None
    return open_manifest(path) if path.suffix.lower() != ".json" or _holds_rows(path) else None


def _holds_rows(path: Path) -> bool:
    """Whether a .json file is an array, or has an object on each line; other programs write one object."""
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        first = stream.readline(1 << 20).strip()
        try:
            return first[:1] == "[" or (isinstance(json.loads(first), dict) and bool(stream.read(2).strip()))
        except ValueError:
            return False


def open_manifest(path: Path) -> Source:
    """A source of a CSV or JSON file.

    It may have other columns in place of labels, for tasks that read these.

    Raises:
        DataError: it cannot be read, or a row lacks its path or label.
    """
    return manifest_source(manifest_rows(path), path, folder=path.resolve().parent, name=path.stem)


def manifest_source(rows: Sequence[ManifestRow], path: Path, *, folder: Path, name: str) -> Source:
    """A source of the rows of a manifest.

    Args:
        rows: with paths below ``folder``.
        path: of the manifest, for errors.
        folder: what paths are relative to.
        name: of the source.

    Raises:
        DataError: a row lacks its label, or none of the files is there.
    """
    others = sorted({name for row in rows for name in row.columns})
    name = path_text(name)
    if "mask" in others and all(row.label is None for row in rows):
        return _with_masks(path, rows, folder, name)
    notes = _unsaid_splits(rows)
    rows, withheld_notes = _labelled(rows, path)
    notes += withheld_notes
    labels = tuple(sorted({row.label for row in rows if row.label is not None}, key=_label_order))
    number = {label: index for index, label in enumerate(labels)}
    splits: dict[str, Items] = {}
    for split in dict.fromkeys(row.split for row in rows):
        members = [row for row in rows if row.split == split]
        splits[split] = _items(
            path,
            folder,
            [row.path for row in members],
            np.array([number.get(row.label or "", 0) for row in members], np.int64),
            {name: np.array([row.columns.get(name, "") for row in members], np.str_) for name in others},
        )
    channels = min(getattr(items, "channels", 3) for items in splits.values())
    return Source(name=name, kind="manifest", labels=labels, splits=splits, channels=channels, notes=notes)


def _labelled(rows: Sequence[ManifestRow], path: Path) -> tuple[list[ManifestRow], tuple[str, ...]]:
    """The rows without those of splits whose labels are withheld, and a note on these."""
    by_split: dict[str, list[ManifestRow]] = {}
    for row in rows:
        by_split.setdefault(row.split, []).append(row)
    bare = [split for split, members in by_split.items() if withheld([row.label for row in members])]
    if len(bare) == len(by_split) and all(row.label is None for row in rows):
        return list(rows), ()
    notes = []
    if len(bare) < len(by_split):
        for split in bare:
            by_split_count = len(by_split.pop(split))
            notes.append(f"{split} has no labels: its {by_split_count} images are left aside")
    kept = [row for members in by_split.values() for row in members]
    lacking = next((row for row in kept if row.label is None), None)
    if lacking is not None:
        raise DataError(
            f"{path_text(path)}: row {lacking.number} lacks its label", hint="each row needs path and label"
        )
    return kept, tuple(notes)


def _with_masks(path: Path, rows: Sequence[ManifestRow], folder: Path, name: str) -> Source:
    """A source of images and masks, each a file of its own.

    Raises:
        DataError: a row has no mask, or names a row of another file.
    """
    for row in rows:
        if not row.columns.get("mask"):
            raise DataError(
                f"{path_text(path)}: row {row.number} lacks its mask", hint="each row needs path and mask"
            )
        if _is_row(folder, row.path):
            raise DataError(
                f"{path_text(path)}: row {row.number} names a row of another file, which has no mask",
                hint="open that file itself",
            )
    splits = {
        split: MaskedFiles(
            folder,
            [
                (located(folder, row.path), located(folder, row.columns["mask"]))
                for row in rows
                if row.split == split
            ],
        )
        for split in dict.fromkeys(row.split for row in rows)
    }
    coding = read_classes(folder)
    labels = coding.names if coding is not None else ()
    return Source(name=name, kind="manifest", labels=labels, splits=splits, masks=coding)


def manifest_rows(path: Path) -> list[ManifestRow]:
    """The rows of a manifest, blank ones left out.

    Raises:
        DataError: it cannot be read, has no column of paths, or a row lacks its path.
    """
    folder = path.resolve().parent
    shown = path_text(path)
    table = read_table(path, exists=lambda name: _leads_somewhere(folder, name))
    if not table.rows and not table.heading:
        raise DataError(f"{shown} lists no images", hint="write lines of path,label under that heading")
    paths, labels = table.column(PATH_KEYS), table.column(LABEL_KEYS)
    if not paths:
        raise DataError(
            f"{shown} has no column of paths: the heading found is {', '.join(table.heading)}",
            hint="name the columns path, label and split; taken are also "
            + ", ".join((*PATH_KEYS[1:], *LABEL_KEYS[1:], *SPLIT_KEYS[1:])),
        )
    if not table.rows:
        raise DataError(f"{shown} lists no images", hint="write lines of path,label under that heading")
    said = label_texts(
        [_first(values, labels) for _, values in table.rows],
        where=shown,
        rows=[number for number, _ in table.rows],
    )
    splits, split_column = _splits(table, shown)
    known = {*paths, *labels, split_column}
    rows = []
    for (number, values), label, split in zip(table.rows, said, splits, strict=True):
        name = _first(values, paths)
        if name is None or "\0" in str(name):
            raise DataError(f"{shown}: row {number} lacks its path", hint="each row needs path and label")
        columns = {
            key: "" if value is None else str(value) for key, value in values.items() if key not in known
        }
        rows.append(ManifestRow(number, str(name), label, split, columns))
    return rows


def _first(values: Any, names: Iterable[str]) -> Any:
    """The value of the first column that has one in a row."""
    return next((values[name] for name in names if values.get(name) not in (None, "")), None)


def _splits(table: Table, shown: str) -> tuple[list[str], str | None]:
    """The split of each row, and the column that says it."""
    for column in table.column(SPLIT_KEYS):
        found = [str(values.get(column) or "").strip() for _, values in table.rows]
        words = {text: split_word(text) for text in set(found) if text}
        strange = next((text for text, word in words.items() if word is None), None)
        if strange is None:
            known = settled({text: word for text, word in words.items() if word is not None})
            return [known.get(text, "train") for text in found], column
        if heading_key(column) == SPLIT_KEYS[0]:
            row = table.rows[found.index(strange)][0]
            raise DataError(f"{shown}: row {row} has the split {strange!r}", hint="use train, val or test")
    for key, split in FLAG_KEYS.items():
        for column in table.column([key]):
            flags = [str(values.get(column)).strip().lower() in _YES for _, values in table.rows]
            return [split if flag else "train" for flag in flags], column
    return ["train"] * len(table.rows), None


def _unsaid_splits(rows: Sequence[ManifestRow]) -> tuple[str, ...]:
    """A note where folders of the paths are named as splits and no column says any."""
    if {row.split for row in rows} != {"train"}:
        return ()
    folders = {part for row in rows for part in row.path.replace("\\", "/").split("/")[:-1]}
    said = splits_of(sorted(folders))
    if len(set(said.values())) < 2:
        return ()
    return (f"no column says the splits, so the folders {', '.join(map(path_text, said))} count as one",)


def _label_order(label: str) -> tuple[int, int, str]:
    """Numbers by value, before words by spelling."""
    return (0, int(label), label) if label.isdecimal() else (1, 0, label)


def _items(
    manifest: Path, folder: Path, names: Sequence[str], targets: NDArray[np.int64], columns: Columns
) -> Items:
    """Files, or rows of container files."""
    rows = [name for name in names if _is_row(folder, name)]
    if rows:
        if len(rows) < len(names):
            raise DataError(
                f"{path_text(manifest)} mixes files and rows of other files, such as {rows[0]}",
                hint="write a manifest of each",
            )
        return RowItems(folder, list(names), targets, columns)
    paths = [located(folder, name) for name in names]
    looked_at = paths[:: max(1, len(paths) // _LOOKED_AT)]
    if not any(_exists(folder / path) for path in looked_at):
        here = "; move the manifest here, where they are" if _exists(Path(looked_at[0])) else ""
        raise DataError(
            f"{path_text(manifest)} names files that are not there, such as {path_text(looked_at[0])}",
            hint=f"paths are relative to the manifest's own folder, {path_text(folder)}{here}",
        )
    return FileItems(folder, paths, targets, columns=columns)


def located(folder: Path, text: str) -> str:
    """The path that a manifest means, below its folder.

    As it is written; with escaped bytes read back; with backslashes as slashes; without spaces around; in the
    other Unicode form: the first of these that is there.
    """
    if text.isascii() and "\\" not in text and text == text.strip():
        return text
    read = str(text_path(text))
    forms = [read, text, text.strip(), text.replace("\\", "/").strip()]
    forms += [unicodedata.normalize(form, name) for form in ("NFC", "NFD") for name in forms[2:]]
    return next((name for name in forms if _exists(folder / name)), forms[3])


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _leads_somewhere(folder: Path, name: str) -> bool:
    """Whether a cell names a file or a row of one."""
    return bool(name) and (_is_row(folder, name) or (folder / located(folder, name)).is_file())


def _is_row(folder: Path, name: str) -> bool:
    """Whether a path is ``FILE#ROW`` and no file of that name; files are called so too."""
    container, sign, row = name.rpartition("#")
    if not sign or not row.isdecimal():
        return False
    known = container == "digits" or container.endswith((".parquet", "ubyte", "ubyte.gz"))
    return known and not _exists(folder / name)


class RowItems:
    """Rows of container files (``FILE#ROW``), read through the source that opens the container.

    Args:
        folder: what names are relative to.
        names: one per item.
        targets: class index of each, as the manifest says.
        columns: the manifest's other columns.
        limits: of decoding.
    """

    def __init__(
        self,
        folder: Path,
        names: list[str],
        targets: NDArray[np.int64],
        columns: Columns,
        limits: DecodeLimits = LOCAL_LIMITS,
    ) -> None:
        self.folder, self.names, self.targets, self.columns = folder, names, targets, columns
        containers = sorted({name.rpartition("#")[0] for name in names})
        self._opened = {container: open_container(folder, container) for container in containers}
        self.channels = min(channels for _, channels in self._opened.values())
        self.limits = limits

    def __reduce__(self) -> tuple[Any, ...]:
        return RowItems, (self.folder, self.names, self.targets, self.columns, self.limits)

    @property
    def limits(self) -> DecodeLimits:
        """Limits of decoding, in every container."""
        return self._limits

    @limits.setter
    def limits(self, limits: DecodeLimits) -> None:
        self._limits = limits
        for items, _ in self._opened.values():
            items.limits = limits  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.names)

    def _place(self, index: int) -> tuple[Items, int]:
        container, _, row = self.names[index].rpartition("#")
        items = self._opened[container][0]
        if not row.isdecimal() or int(row) >= len(items):
            raise DataError(f"{self.names[index]} names no row", hint=f"{container} has {len(items)} rows")
        return items, int(row)

    def read(
        self, index: int, *, channels: int | None = None, size_hint: tuple[int, int] | None = None
    ) -> NDArray[np.uint8]:
        """As Items.read."""
        items, row = self._place(index)
        return items.read(row, channels=channels, size_hint=size_hint)

    def name(self, index: int) -> str:
        """The manifest's own path."""
        return self.names[index]

    def raw(self, index: int) -> bytes | None:
        """As Items.raw."""
        items, row = self._place(index)
        return items.raw(row)


def open_container(folder: Path, name: str) -> tuple[Items, int]:
    """(items, channels) of one container file: Parquet, IDX images, or digits."""
    from tesela.data.sources.digits import open_digits
    from tesela.data.sources.idx import idx_pairs, open_idx
    from tesela.data.sources.parquet import open_parquet

    path = folder / name
    if name == "digits":
        return open_digits().splits["train"], 1
    if path.suffix == ".parquet" and path.is_file():
        return next(iter(open_parquet(path).splits.values())), 3
    for split, (images, _) in idx_pairs(path.parent).items() if path.is_file() else ():
        if images.name == path.name:
            source = open_idx(path.parent)
            return source.splits[split], source.channels
    raise DataError(
        f"the manifest names rows of {name}, which is no Parquet or IDX file here",
        hint="keep the manifest beside its data",
    )
