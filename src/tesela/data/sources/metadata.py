"""Images labelled by a table beside them: the hub's ``metadata.csv`` or ``metadata.jsonl``.

The table names files below its own folder (``file_name``); it lies beside all images or in the folder of each
split. Odd: a table without a column of labels says nothing where there are class folders.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tesela.core.errors import DataError
from tesela.core.pathnames import path_text
from tesela.data.source import Source
from tesela.data.sources.layout.split_names import refuse_doubles, splits_of
from tesela.data.sources.manifest import ManifestRow, manifest_rows, manifest_source

TABLE_NAMES = ("metadata.csv", "metadata.jsonl")


def find_metadata(text: str | Path) -> Source | None:
    """The images that such a table labels; None for anything else.

    Raises:
        DataError: the table cannot be read.
    """
    root = Path(text).expanduser()
    if not root.is_dir():
        return None
    own = _table(root)
    if own is not None:
        rows = [replace(row, split=_split_in_path(row)) for row in manifest_rows(own)]
        return _source(root, own, rows)
    folders = {child.name: child for child in sorted(root.iterdir()) if child.is_dir()}
    splits = splits_of(name for name in folders if _table(folders[name]) is not None)
    if "train" not in splits.values():
        return None
    refuse_doubles(splits, root)
    rows = []
    for name, split in splits.items():
        table = _table(folders[name])
        assert table is not None
        rows += [replace(row, path=f"{name}/{row.path}", split=split) for row in manifest_rows(table)]
    return _source(root, root, rows)


def _table(folder: Path) -> Path | None:
    return next((folder / name for name in TABLE_NAMES if (folder / name).is_file()), None)


def _split_in_path(row: ManifestRow) -> str:
    """The split of the folder that a file lies in, where the table has no column of splits."""
    if row.split != "train":
        return row.split
    folder, _, rest = row.path.partition("/")
    return splits_of([folder]).get(folder, "train") if rest else "train"


def _source(root: Path, table: Path, rows: list[ManifestRow]) -> Source | None:
    if all(row.label is None for row in rows) and not any("mask" in row.columns for row in rows):
        if any(child.is_dir() and not child.name.startswith(".") for child in root.iterdir()):
            return None
        raise DataError(
            f"{path_text(table)} has no column of labels",
            hint="name it label, or give the table itself where a task reads other columns",
        )
    return manifest_source(rows, table, folder=root.resolve(), name=root.resolve().name)
