"""Manifests of a source's splits, as CSV or JSON lines, that read back to the same images.

Names go through ``path_text``, so that any file name can be written. Odd: where a name holds a carriage
return, all cells are in quotes, for the CSV writer leaves that sign bare.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

from tesela.core.errors import DataError, UsageError
from tesela.core.files import write_atomic
from tesela.core.pathnames import path_text
from tesela.data.source import Items, Selection, Source


def manifest_text(source: Source, *, folder: Path | None, suffix: str = ".csv") -> str:
    """The splits as a table of path, label or mask, and split.

    Args:
        source: what is split.
        folder: of the source, as seen from the manifest; None leaves the names as they are.
        suffix: ``.csv`` or ``.jsonl``.

    Raises:
        DataError: the masks are no files.
        UsageError: another suffix.
    """
    heading = ("path", "label" if source.masks is None else "mask", "split")
    if suffix.lower() == ".jsonl":
        return "".join(
            json.dumps(dict(zip(heading, row, strict=True)), ensure_ascii=False) + "\n"
            for row in _rows(source, folder)
        )
    if suffix.lower() != ".csv":
        raise UsageError(f"a manifest cannot end in {suffix or 'nothing'}", hint="end it in .csv or .jsonl")
    rows = list(_rows(source, folder))
    text = io.StringIO(newline="")
    bare = any("\r" in cell for row in rows for cell in row)
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL)
    writer.writerow(heading)
    writer.writerows(rows)
    return text.getvalue()


def write_manifest(source: Source, out: Path, *, root: Path | None) -> None:
    """Save the splits as a manifest that ``open_source`` reads again.

    Args:
        source: what is split.
        out: a .csv or .jsonl file.
        root: folder that the source's names are relative to; None where they are no files.

    Raises:
        UsageError: the file is called otherwise.
        StorageError: the file system refused.
    """
    folder = None if root is None else Path(os.path.relpath(root.resolve(), out.resolve().parent))
    write_atomic(out, manifest_text(source, folder=folder, suffix=out.suffix).encode())


def names_root(source: Source) -> Path | None:
    """The folder that a source's names are relative to; None where they are no files."""
    items = next(iter(source.splits.values()))
    base: object = items.items if isinstance(items, Selection) else items
    files = getattr(base, "files", None)
    found = getattr(base, "root", None) or getattr(base, "folder", None) or (files and files[0].parent)
    return Path(found) if found else None


def _rows(source: Source, folder: Path | None) -> Iterator[tuple[str, str, str]]:
    for split, items in source.splits.items():
        base: object = items.items if isinstance(items, Selection) else items
        are_files = hasattr(base, "paths")
        for index in range(len(items)):
            name = items.name(index)
            place = folder if are_files or not name.startswith("digits#") else None
            second = (
                source.labels[items.targets[index]] if source.masks is None else _mask(items, index, folder)
            )
            yield _located(name, place), second, split


def _mask(items: Items, index: int, folder: Path | None) -> str:
    """Where the mask of an image is."""
    base: object = items.items if isinstance(items, Selection) else items
    row = int(items.rows[index]) if isinstance(items, Selection) else index
    paths = getattr(base, "masks", None)
    if paths is None:
        raise DataError(
            "the masks of this data set are no files that a manifest could name",
            hint="keep the data set as it is; its splits are cut the same way each time",
        )
    return _located(path_text(paths[row]), folder)


def _located(name: str, folder: Path | None) -> str:
    """A name below the folder; what a name escapes does not reach over a slash."""
    if folder is None or name.startswith("/"):
        return name
    return name if folder == Path() else f"{path_text(folder)}/{name}"
