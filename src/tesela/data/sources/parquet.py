"""Parquet files in the layout of model hubs: image struct {bytes, path}, and label or mask.

Class names come from the features in the schema's metadata (ClassLabel), else from the column's values. The
split is read off the file's name (train-00000-of-00002.parquet) or its folder (train/0000.parquet).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tesela.core.errors import DataError, UsageError
from tesela.core.pathnames import path_text
from tesela.data.masks.classes_file import read_classes
from tesela.data.source import Source
from tesela.data.sources.layout.split_names import settled, split_in, split_word
from tesela.data.sources.layout.tree import scan_folder
from tesela.data.sources.parquet_items import MaskedParquet, ParquetItems
from tesela.data.sources.tables.class_numbers import class_numbers
from tesela.data.sources.tables.parquet_file import below, read_column, read_metadata, read_schema
from tesela.data.storage.place import DataPlace, full_name, place_of
from tesela.data.storage.remote import RemotePath

if TYPE_CHECKING:
    from numpy.typing import NDArray

MASK_COLUMNS = ("mask", "masks", "annotation", "label", "segmentation", "segmentation_mask", "semantic")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "category")


def parquet_files(path: DataPlace) -> list[DataPlace]:
    """The Parquet files of a place: itself, or those in the folder that are not hidden."""
    if isinstance(path, RemotePath):
        if path.suffix.lower() == ".parquet":
            return [path]
        listed = [file for file in path.below() if file.suffix.lower() == ".parquet"]
        return [file for file in listed if not any(part[:1] == "." for part in below(file, path).parts)]
    if path.is_file():
        return [path]
    found = sorted(path.rglob("*.[pP][aA][rR][qQ][uU][eE][tT]"))
    return [file for file in found if not any(part[:1] == "." for part in file.relative_to(path).parts)]


def file_splits(files: Sequence[DataPlace], root: DataPlace) -> dict[DataPlace, str]:
    """The split of those files whose name or folder says one."""
    said: dict[DataPlace, str] = {}
    for file in files:
        name = below(file, root) if file != root else Path(file.name)
        words = (split_in(name.stem), *map(split_word, reversed(name.parts[:-1])))
        word = next((word for word in words if word is not None), None)
        if word is not None:
            said[file] = word
    return settled(said)


def find_parquet(text: str | Path) -> Source | None:
    """The rows of a .parquet file or of a folder of such; None for anything else.

    Tables without images, such as results of ``predict``, count in a folder only if nothing else is there.
    """
    path = place_of(text)
    if isinstance(path, RemotePath):
        files = parquet_files(path)
        return open_parquet(path, files) if files else None
    if path.is_file():
        return open_parquet(path) if path.suffix.lower() == ".parquet" else None
    files = parquet_files(path) if path.is_dir() else []
    data = [file for file in files if find_image_column(read_schema(file)) is not None]
    if not files or (not data and scan_folder(path).top.count):
        return None
    return open_parquet(path, data or files)


def open_parquet(path: DataPlace, files: Sequence[DataPlace] | None = None) -> Source:
    """A source of one Parquet file or a folder of them.

    Args:
        path: the file or the folder; an address too.
        files: those of the folder that hold data; all by default.

    Raises:
        DataError: no image or label column, or files that disagree.
    """
    files = files or parquet_files(path)
    schema = read_schema(files[0])
    image = image_column(schema, files[0])
    masks = mask_column(schema, image)
    if masks is not None:
        return _open_masked(path, files, image, masks)
    label = label_column(schema, files[0])
    values = {file: read_column(file, label) for file in files}
    labels, numbers = class_numbers(values, _class_names(schema, label))
    root = _folder(path)
    by_split, notes = _by_split(files, path)
    bare = [split for split, members in by_split.items() if all((numbers[one] < 0).all() for one in members)]
    for split in bare if len(bare) < len(by_split) else ():
        count = sum(len(numbers[file]) for file in by_split.pop(split))
        notes.append(f"{split} has no labels: its {count} images are left aside")
    splits = {}
    for split, members in by_split.items():
        for file in members:
            _refuse_unlabelled(numbers[file], values[file], len(labels), file)
        targets = np.concatenate([numbers[file] for file in members])
        splits[split] = ParquetItems(members, image, targets, root=root)
    name = path_text(Path(full_name(path)).stem)
    return Source(name=name, kind="parquet", labels=labels, splits=splits, notes=tuple(notes))


def unlabelled_parquet(path: DataPlace) -> ParquetItems | None:
    """All images of a Parquet file or a folder of them, whatever else their rows say; None without any.

    Raises:
        DataError: a file is damaged.
    """
    files = [file for file in parquet_files(path) if find_image_column(read_schema(file)) is not None]
    if not files:
        return None
    rows = sum(read_metadata(file).num_rows for file in files)
    column = image_column(read_schema(files[0]), files[0])
    return ParquetItems(files, column, np.full(rows, -1, np.int64), root=_folder(path))


def _folder(path: DataPlace) -> DataPlace:
    """The folder whose Parquet files are read."""
    if isinstance(path, RemotePath):
        return path.parent if path.suffix.lower() == ".parquet" else path
    return path if path.is_dir() else path.parent


def _by_split(files: Sequence[DataPlace], path: DataPlace) -> tuple[dict[str, list[DataPlace]], list[str]]:
    """The files of each split, and a note on those that say none beside others that do."""
    found = file_splits(files, path)
    by_split: dict[str, list[DataPlace]] = {}
    for file in files:
        by_split.setdefault(found.get(file, "train"), []).append(file)
    silent = [file for file in files if file not in found]
    notes = []
    if found and silent:
        notes.append(f"{path_text(silent[0].name)} names no split and is read as train ({len(silent)} files)")
    return by_split, notes


def _open_masked(path: DataPlace, files: Sequence[DataPlace], image: str, masks: str) -> Source:
    root = _folder(path)
    if isinstance(path, RemotePath) or isinstance(root, RemotePath):
        raise UsageError(
            f"{path} holds masks, which are read from folders of this machine", hint="copy it to a folder"
        )
    by_split, notes = _by_split(files, path)
    splits = {split: MaskedParquet(members, image, masks, root=root) for split, members in by_split.items()}
    coding = read_classes(root)
    labels = coding.names if coding is not None else ()
    return Source(
        name=path_text(Path(full_name(path)).stem),
        kind="parquet",
        labels=labels,
        splits=splits,
        masks=coding,
        notes=tuple(notes),
    )


def mask_column(schema: Any, image: str) -> str | None:
    """The column of encoded masks beside that of the images; None if there is none."""
    import pyarrow.types as types

    for column in schema:
        kind = column.type
        encoded = types.is_binary(kind) or types.is_large_binary(kind)
        if types.is_struct(kind):
            encoded = "bytes" in {kind.field(place).name for place in range(kind.num_fields)}
        if encoded and column.name != image and column.name.lower() in MASK_COLUMNS:
            return str(column.name)
    return None


def image_column(schema: Any, file: DataPlace) -> str:
    """The first column of encoded images: struct {bytes, path}, or bytes."""
    found = find_image_column(schema)
    if found is None:
        raise DataError(
            f"{path_text(str(file))} has no column of images; its columns are {', '.join(schema.names)}",
            hint="an image column is a struct of bytes and path, or bytes",
        )
    return found


def find_image_column(schema: Any) -> str | None:
    """The first column of encoded images; None where there is none."""
    import pyarrow.types as types

    for column in schema:
        kind = column.type
        if types.is_struct(kind) and "bytes" in {kind.field(i).name for i in range(kind.num_fields)}:
            return str(column.name)
    for column in schema:
        if types.is_binary(column.type) or types.is_large_binary(column.type):
            return str(column.name)
    return None


def label_column(schema: Any, file: DataPlace) -> str:
    """The label: a ClassLabel of the metadata, else a column under a usual name."""
    classes = [name for name, feature in _features(schema).items() if feature.get("_type") == "ClassLabel"]
    usual = [name for name in LABEL_COLUMNS if name in schema.names]
    for name in (*(name for name in usual if name in classes), *classes, *usual):
        if name in schema.names:
            return name
    raise DataError(
        f"{path_text(str(file))} has no label column; its columns are {', '.join(schema.names)}",
        hint="name it one of: " + ", ".join(LABEL_COLUMNS),
    )


def _features(schema: Any) -> dict[str, Any]:
    """The hub's feature description in the schema's metadata; empty if there is none."""
    text = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(text)["info"]["features"] if text else {}
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def _class_names(schema: Any, label: str) -> tuple[str, ...]:
    return tuple(str(name) for name in _features(schema).get(label, {}).get("names") or ())


def _refuse_unlabelled(
    numbers: NDArray[np.int64], values: Sequence[Any], classes: int, file: DataPlace
) -> None:
    wrong = np.flatnonzero((numbers < 0) | (numbers >= classes))
    if len(wrong):
        raise DataError(
            f"{path_text(str(file))}: row {wrong[0]} has the label {values[wrong[0]]!r}, which is no class",
            hint=f"remove rows without a label ({len(wrong)} of {len(values)})",
        )
