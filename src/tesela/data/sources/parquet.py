"""Parquet files in the layout of model hubs: image struct {bytes, path}, and label or mask.

Class names come from the features in the schema's metadata (ClassLabel), else from the column's values. The
split is read off the file's name (train-00000-of-00002.parquet) or its folder (train/0000.parquet). Up to 2
GiB of encoded images are held in memory, shared with forked workers; above, row groups are read when asked
for and the last few are kept. Odd: an image whose bytes are null is a file, its path taken relative to the
Parquet file.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tesela.core.errors import DataError, ImageError, MissingExtraError
from tesela.core.pathnames import path_text
from tesela.data.masks.classes_file import read_classes
from tesela.data.source import Columns, Source
from tesela.data.sources.layout.split_names import settled, split_in, split_word
from tesela.data.sources.layout.tree import scan_folder
from tesela.data.sources.tables.class_numbers import class_numbers
from tesela.imaging.decode import decode
from tesela.imaging.limits import LOCAL_LIMITS
from tesela.imaging.mask import decode_mask, mask_palette

if TYPE_CHECKING:
    from numpy.typing import NDArray

MASK_COLUMNS = ("mask", "masks", "annotation", "label", "segmentation", "segmentation_mask", "semantic")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "category")
IN_MEMORY = 2 << 30
_KEPT_GROUPS = 8


class ParquetItems:
    """Encoded images in the row groups of some Parquet files.

    Args:
        files: in order.
        column: the image column.
        targets: class index of each row, over all files.
        root: what names are relative to.
    """

    limits = LOCAL_LIMITS

    def __init__(self, files: Sequence[Path], column: str, targets: NDArray[np.int64], *, root: Path) -> None:
        self.files = tuple(files)
        self.root = root
        self._names = [file.relative_to(root).as_posix() for file in self.files]
        self.column = column
        self.targets = targets
        self.columns: Columns = {}
        self._groups: OrderedDict[int, Any] = OrderedDict()
        self._places: list[tuple[Path, int]] = []
        self._starts = np.zeros(1, np.int64)
        self._file_starts = np.zeros(1, np.int64)
        self._keep = _KEPT_GROUPS
        self._index()

    def _index(self) -> None:
        """Note where each row group and each file starts."""
        starts, file_starts, size = [0], [0], 0
        for path in self.files:
            metadata = _parquet().ParquetFile(path).metadata
            for group in range(metadata.num_row_groups):
                self._places.append((path, group))
                starts.append(starts[-1] + metadata.row_group(group).num_rows)
                size += metadata.row_group(group).total_byte_size
            file_starts.append(starts[-1])
        self._starts, self._file_starts = np.array(starts), np.array(file_starts)
        self._keep = len(self._places) if size <= IN_MEMORY else _KEPT_GROUPS

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = self.files, self.column, self.targets
        return partial(ParquetItems, root=self.root), arguments, {"limits": self.limits}

    def __len__(self) -> int:
        return len(self.targets)

    def read(
        self, index: int, *, channels: int | None = None, size_hint: tuple[int, int] | None = None
    ) -> NDArray[np.uint8]:
        """As Items.read."""
        data = self.raw(index)
        if data is None:
            raise ImageError("the row holds no image", code="empty", hint="remove the row")
        return decode(data, channels=channels or 3, limits=self.limits, size_hint=size_hint)

    def name(self, index: int) -> str:
        """The file and the row in it."""
        number = int(np.searchsorted(self._file_starts, index, side="right")) - 1
        return f"{self._names[number]}#{index - self._file_starts[number]}"

    def raw(self, index: int) -> bytes | None:
        """The encoded image; None where the row has none."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        value = self._group(number)[index - int(self._starts[number])].as_py()
        if not isinstance(value, dict):
            return value if isinstance(value, bytes) else None
        if value.get("bytes") is None and value.get("path"):
            return _file_bytes(self._places[number][0].parent, value["path"])
        return value.get("bytes")

    def byte_sizes(self) -> NDArray[np.int64]:
        """(N,) bytes of each encoded image; for one in a file beside, or none, what all of these share."""
        import pyarrow
        import pyarrow.compute as compute

        found = []
        for number in range(len(self._places)):
            column = self._group(number)
            encoded = (
                compute.struct_field(column, "bytes") if pyarrow.types.is_struct(column.type) else column
            )
            found.append(compute.fill_null(compute.binary_length(encoded), 1).to_numpy())
        return np.concatenate(found or [np.zeros(0)]).astype(np.int64)

    def _group(self, number: int) -> Any:
        """The image column of one row group, kept for a while."""
        if number not in self._groups:
            path, group = self._places[number]
            self._groups[number] = (
                _parquet().ParquetFile(path).read_row_group(group, columns=[self.column]).column(0)
            )
            while len(self._groups) > self._keep:
                self._groups.popitem(last=False)
        return self._groups[number]


def _file_bytes(folder: Path, path: str) -> bytes | None:
    """A file that a row names; nothing outside the Parquet file's folder is read."""
    place = (folder / path).resolve()
    if not place.is_relative_to(folder.resolve()):
        return None
    try:
        return place.read_bytes()
    except OSError:
        return None


def parquet_files(path: Path) -> list[Path]:
    """The Parquet files of a path: itself, or those in the folder that are not hidden."""
    if path.is_file():
        return [path]
    found = sorted(path.rglob("*.[pP][aA][rR][qQ][uU][eE][tT]"))
    return [file for file in found if not any(part[:1] == "." for part in file.relative_to(path).parts)]


def file_splits(files: Sequence[Path], root: Path) -> dict[Path, str]:
    """The split of those files whose name or folder says one."""
    said: dict[Path, str] = {}
    for file in files:
        below = file.relative_to(root) if file != root else Path(file.name)
        words = (split_in(below.stem), *map(split_word, reversed(below.parts[:-1])))
        word = next((word for word in words if word is not None), None)
        if word is not None:
            said[file] = word
    return settled(said)


def find_parquet(text: str | Path) -> Source | None:
    """The rows of a .parquet file or of a folder of such; None for anything else.

    Tables without images, such as results of ``predict``, count in a folder only if nothing else is there.
    """
    path = Path(text).expanduser()
    if path.is_file():
        return open_parquet(path) if path.suffix.lower() == ".parquet" else None
    files = parquet_files(path) if path.is_dir() else []
    data = [file for file in files if _image_column(_schema(file)) is not None]
    if not files or (not data and scan_folder(path).top.count):
        return None
    return open_parquet(path, data or files)


class MaskedParquet(ParquetItems):
    """Encoded images with a mask each, in two columns.

    Args:
        files: in order.
        column: the image column.
        masks: the mask column.
        root: what names are relative to.
    """

    def __init__(self, files: Sequence[Path], column: str, masks: str, *, root: Path) -> None:
        rows = sum(_parquet().ParquetFile(file).metadata.num_rows for file in files)
        super().__init__(files, column, np.zeros(rows, np.int64), root=root)
        self._masks = ParquetItems(files, masks, self.targets, root=root)

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = self.files, self.column, self._masks.column
        return partial(MaskedParquet, root=self.root), arguments, {"limits": self.limits}

    def mask(self, index: int) -> NDArray[np.uint8]:
        """As HasMasks.mask."""
        return decode_mask(self._encoded(index))

    def mask_name(self, index: int) -> str:
        """The file, the row and the column."""
        return f"{self.name(index)} {self._masks.column}"

    def mask_colours(self, index: int) -> list[tuple[int, int, int]]:
        """The mask's own palette."""
        return mask_palette(self._encoded(index))

    def _encoded(self, index: int) -> bytes:
        data = self._masks.raw(index)
        if data is None:
            raise ImageError("the row holds no mask", code="empty", hint="remove the row")
        return data


def open_parquet(path: Path, files: Sequence[Path] | None = None) -> Source:
    """A source of one Parquet file or a folder of them.

    Args:
        path: the file or the folder.
        files: those of the folder that hold data; all by default.

    Raises:
        DataError: no image or label column, or files that disagree.
    """
    files = files or parquet_files(path)
    schema = _schema(files[0])
    image = image_column(schema, files[0])
    masks = mask_column(schema, image)
    if masks is not None:
        return _open_masked(path, files, image, masks)
    label = label_column(schema, files[0])
    values = {file: _column(file, label) for file in files}
    labels, numbers = class_numbers(values, _class_names(schema, label))
    root = path if path.is_dir() else path.parent
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
    name = path_text(path.resolve().stem)
    return Source(name=name, kind="parquet", labels=labels, splits=splits, notes=tuple(notes))


def _by_split(files: Sequence[Path], path: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """The files of each split, and a note on those that say none beside others that do."""
    found = file_splits(files, path)
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(found.get(file, "train"), []).append(file)
    silent = [file for file in files if file not in found]
    notes = []
    if found and silent:
        notes.append(f"{path_text(silent[0].name)} names no split and is read as train ({len(silent)} files)")
    return by_split, notes


def _open_masked(path: Path, files: Sequence[Path], image: str, masks: str) -> Source:
    root = path if path.is_dir() else path.parent
    by_split, notes = _by_split(files, path)
    splits = {split: MaskedParquet(members, image, masks, root=root) for split, members in by_split.items()}
    coding = read_classes(root)
    labels = coding.names if coding is not None else ()
    return Source(
        name=path_text(path.resolve().stem),
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


def image_column(schema: Any, file: Path) -> str:
    """The first column of encoded images: struct {bytes, path}, or bytes."""
    found = _image_column(schema)
    if found is None:
        raise DataError(
            f"{path_text(file)} has no column of images; its columns are {', '.join(schema.names)}",
            hint="an image column is a struct of bytes and path, or bytes",
        )
    return found


def _image_column(schema: Any) -> str | None:
    import pyarrow.types as types

    for column in schema:
        kind = column.type
        if types.is_struct(kind) and "bytes" in {kind.field(i).name for i in range(kind.num_fields)}:
            return str(column.name)
    for column in schema:
        if types.is_binary(column.type) or types.is_large_binary(column.type):
            return str(column.name)
    return None


def label_column(schema: Any, file: Path) -> str:
    """The label: a ClassLabel of the metadata, else a column under a usual name."""
    classes = [name for name, feature in _features(schema).items() if feature.get("_type") == "ClassLabel"]
    usual = [name for name in LABEL_COLUMNS if name in schema.names]
    for name in (*(name for name in usual if name in classes), *classes, *usual):
        if name in schema.names:
            return name
    raise DataError(
        f"{path_text(file)} has no label column; its columns are {', '.join(schema.names)}",
        hint="name it one of: " + ", ".join(LABEL_COLUMNS),
    )


def _schema(file: Path) -> Any:
    reader = _parquet()
    try:
        return reader.read_schema(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is no readable Parquet file", hint="download it again") from error


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("reading Parquet", "train") from None
    return pyarrow.parquet


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


def _column(file: Path, name: str) -> list[Any]:
    try:
        return list(_parquet().read_table(file, columns=[name]).column(0).to_pylist())
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{file} cannot be read like its neighbours: no column {name!r}",
            hint="keep files of one data set together",
        ) from error


def _refuse_unlabelled(numbers: NDArray[np.int64], values: Sequence[Any], classes: int, file: Path) -> None:
    wrong = np.flatnonzero((numbers < 0) | (numbers >= classes))
    if len(wrong):
        raise DataError(
            f"{path_text(file)}: row {wrong[0]} has the label {values[wrong[0]]!r}, which is no class",
            hint=f"remove rows without a label ({len(wrong)} of {len(values)})",
        )
