"""CSV and JSON-lines manifests: path, label or mask, and optional split.

Paths are relative to the manifest.

``tesela data split`` writes such files. For sources that keep many images in one file it writes ``FILE#ROW``,
and such paths are read here through the source of that file.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tesela.core.errors import DataError
from tesela.data.masks.classes_file import read_classes
from tesela.data.masks.items import MaskedFiles
from tesela.data.source import Columns, Items, Source
from tesela.data.sources.folder import SPLIT_NAMES, FileItems
from tesela.imaging.limits import LOCAL_LIMITS, DecodeLimits

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PATH_KEYS = ("path", "file", "filename", "file_name", "image")
_LABEL_KEYS = ("label", "class", "target", "category")


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One image of a manifest; ``label`` is None where the row has none."""

    path: str
    label: str | None
    split: str
    columns: dict[str, str]


def find_manifest(text: str | Path) -> Source | None:
    """The manifest in a .csv or .jsonl file; None for anything else."""
    path = Path(text).expanduser()
    return open_manifest(path) if path.is_file() and path.suffix in (".csv", ".jsonl") else None


def open_manifest(path: Path) -> Source:
    """A source of a CSV or JSONL file.

    It may have other columns in place of labels, for tasks that read these.

    Raises:
        DataError: it cannot be read, or a row lacks its path or label.
    """
    rows = [_row(path, number, values) for number, values in enumerate(_read(path), start=1)]
    if not rows:
        raise DataError(f"{path} lists no images", hint="write lines of path,label under that heading")
    others = sorted({name for row in rows for name in row.columns})
    bare = next((number for number, row in enumerate(rows, start=1) if row.label is None), None)
    if bare is not None and (not others or any(row.label is not None for row in rows)):
        raise DataError(f"{path}: row {bare} lacks its label", hint="each row needs path and label")
    if "mask" in others and all(row.label is None for row in rows):
        return _with_masks(path, rows)
    labels = tuple(sorted({row.label for row in rows if row.label is not None}, key=_label_order))
    number = {label: index for index, label in enumerate(labels)}
    splits: dict[str, Items] = {}
    for split in dict.fromkeys(row.split for row in rows):
        members = [row for row in rows if row.split == split]
        splits[split] = _items(
            path,
            [row.path for row in members],
            np.array([number.get(row.label or "", 0) for row in members], np.int64),
            {name: np.array([row.columns.get(name, "") for row in members], np.str_) for name in others},
        )
    channels = min(getattr(items, "channels", 3) for items in splits.values())
    return Source(name=path.stem, kind="manifest", labels=labels, splits=splits, channels=channels)


def _with_masks(path: Path, rows: list[ManifestRow]) -> Source:
    """A source of images and masks, each a file of its own.

    Raises:
        DataError: a row has no mask, or names a row of another file.
    """
    for number, row in enumerate(rows, start=1):
        if not row.columns.get("mask"):
            raise DataError(f"{path}: row {number} lacks its mask", hint="each row needs path and mask")
        if "#" in row.path:
            raise DataError(
                f"{path}: row {number} names a row of another file, which has no mask",
                hint="open that file itself",
            )
    folder = path.resolve().parent
    splits = {
        split: MaskedFiles(folder, [(row.path, row.columns["mask"]) for row in rows if row.split == split])
        for split in dict.fromkeys(row.split for row in rows)
    }
    coding = read_classes(folder)
    labels = coding.names if coding is not None else ()
    return Source(name=path.stem, kind="manifest", labels=labels, splits=splits, masks=coding)


def _read(path: Path) -> Iterable[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            return list(csv.DictReader(text.splitlines()))
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(
            f"{path} is no readable manifest: {error}",
            hint="use UTF-8, CSV with a heading or one JSON object per line",
        ) from error


def _row(path: Path, number: int, values: Mapping[str, Any]) -> ManifestRow:
    if not isinstance(values, Mapping):
        raise DataError(f"{path}: row {number} is no object", hint='write {"path": ..., "label": ...}')
    name = next((values[key] for key in _PATH_KEYS if values.get(key)), None)
    label = next((values[key] for key in _LABEL_KEYS if values.get(key) not in (None, "")), None)
    if name is None:
        raise DataError(f"{path}: row {number} lacks its path", hint="each row needs path and label")
    split = str(values.get("split") or "train").lower()
    if split not in SPLIT_NAMES:
        raise DataError(f"{path}: row {number} has the split {split!r}", hint="use train, val or test")
    known = {*_PATH_KEYS, *_LABEL_KEYS, "split"}
    columns = {key: "" if value is None else str(value) for key, value in values.items() if key not in known}
    return ManifestRow(str(name), None if label is None else str(label), SPLIT_NAMES[split], columns)


def _label_order(label: str) -> tuple[int, int, str]:
    """Numbers by value, before words by spelling."""
    return (0, int(label), label) if label.isdecimal() else (1, 0, label)


def _items(manifest: Path, names: list[str], targets: NDArray[np.int64], columns: Columns) -> Items:
    """Files, or rows of container files."""
    folder = manifest.resolve().parent
    if not any("#" in name for name in names):
        return FileItems(folder, names, targets, columns=columns)
    return RowItems(folder, names, targets, columns)


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
