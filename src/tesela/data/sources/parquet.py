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
from tesela.data.masks.classes_file import read_classes
from tesela.data.source import Columns, Source
from tesela.data.sources.folder import SPLIT_NAMES
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
    """The Parquet files of a path: itself, or those in the folder."""
    return [path] if path.is_file() else sorted(path.rglob("*.parquet"))


def split_of(path: Path, root: Path) -> str:
    """The split that a file's name or folder says; train where it says nothing."""
    below = path.relative_to(root) if path != root else Path(path.name)
    for word in (below.stem.split("-")[0], *reversed(below.parts[:-1])):
        if word.lower() in SPLIT_NAMES:
            return SPLIT_NAMES[word.lower()]
    return "train"


def find_parquet(text: str | Path) -> Source | None:
    """The rows of a .parquet file or of a folder of such; None for anything else."""
    path = Path(text).expanduser()
    ours = path.suffix == ".parquet" if path.is_file() else path.is_dir() and bool(parquet_files(path))
    return open_parquet(path) if ours else None


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


def open_parquet(path: Path) -> Source:
    """A source of one Parquet file or a folder of them.

    Raises:
        DataError: no image or label column, or files that disagree.
    """
    files = parquet_files(path)
    schema = _schema(files[0])
    image = image_column(schema, files[0])
    masks = mask_column(schema, image)
    if masks is not None:
        return _open_masked(path, files, image, masks)
    label = label_column(schema, files[0])
    values = {file: _column(file, label) for file in files}
    labels = _class_names(schema, label) or _names_of(values)
    by_split: dict[str, list[Path]] = {}
    root = path if path.is_dir() else path.parent
    for file in files:
        by_split.setdefault(split_of(file, path), []).append(file)
    splits = {
        split: ParquetItems(
            members,
            image,
            np.concatenate([_targets(values[file], labels, file) for file in members]),
            root=root,
        )
        for split, members in by_split.items()
    }
    return Source(name=path.resolve().stem, kind="parquet", labels=labels, splits=splits)


def _open_masked(path: Path, files: list[Path], image: str, masks: str) -> Source:
    root = path if path.is_dir() else path.parent
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(split_of(file, path), []).append(file)
    splits = {split: MaskedParquet(members, image, masks, root=root) for split, members in by_split.items()}
    coding = read_classes(root)
    labels = coding.names if coding is not None else ()
    return Source(name=path.resolve().stem, kind="parquet", labels=labels, splits=splits, masks=coding)


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
    import pyarrow.types as types

    for column in schema:
        kind = column.type
        if types.is_struct(kind) and "bytes" in {kind.field(i).name for i in range(kind.num_fields)}:
            return str(column.name)
    for column in schema:
        if types.is_binary(column.type) or types.is_large_binary(column.type):
            return str(column.name)
    raise DataError(
        f"{file} has no column of images", hint="an image column is a struct of bytes and path, or bytes"
    )


def label_column(schema: Any, file: Path) -> str:
    """The label: a ClassLabel of the metadata, else a column under a usual name."""
    classes = [name for name, feature in _features(schema).items() if feature.get("_type") == "ClassLabel"]
    usual = [name for name in LABEL_COLUMNS if name in schema.names]
    for name in (*(name for name in usual if name in classes), *classes, *usual):
        if name in schema.names:
            return name
    raise DataError(f"{file} has no label column", hint="name it one of: " + ", ".join(LABEL_COLUMNS))


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


def _names_of(values: dict[Path, list[Any]]) -> tuple[str, ...]:
    """Class names from the values: 0..highest for numbers, the sorted distinct ones for texts."""
    distinct = {value for column in values.values() for value in column if value is not None}
    if all(isinstance(value, int) for value in distinct):
        return tuple(str(number) for number in range(max(distinct, default=-1) + 1))
    return tuple(sorted(str(value) for value in distinct))


def _targets(values: list[Any], labels: tuple[str, ...], file: Path) -> NDArray[np.int64]:
    number = {label: index for index, label in enumerate(labels)}
    targets = [value if isinstance(value, int) else number.get(str(value), -1) for value in values]
    wrong = next((row for row, target in enumerate(targets) if not 0 <= target < len(labels)), None)
    if wrong is not None:
        raise DataError(
            f"{file}: row {wrong} has the label {values[wrong]!r}, which is no class",
            hint="remove rows without a label",
        )
    return np.array(targets, np.int64)
