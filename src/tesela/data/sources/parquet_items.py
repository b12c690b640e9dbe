"""Encoded images, and masks beside them, in the row groups of Parquet files.

Up to 2 GiB of encoded images are held in memory, shared with forked workers; above, row groups are read when
asked for and the last few are kept. Odd: an image whose bytes are null is a file, its path taken relative to
the Parquet file.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from tesela.core.errors import ImageError
from tesela.data.source import Columns
from tesela.data.sources.tables.parquet_file import below, parquet_module, read_metadata, readable
from tesela.data.storage.place import DataPlace
from tesela.data.storage.remote import RemotePath
from tesela.imaging.decode import decode
from tesela.imaging.limits import LOCAL_LIMITS
from tesela.imaging.mask import decode_mask, mask_palette

if TYPE_CHECKING:
    from numpy.typing import NDArray

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

    def __init__(
        self, files: Sequence[DataPlace], column: str, targets: NDArray[np.int64], *, root: DataPlace
    ) -> None:
        self.files = tuple(files)
        self.root = root
        self._names = [below(file, root).as_posix() for file in self.files]
        self.column = column
        self.targets = targets
        self.columns: Columns = {}
        self._groups: OrderedDict[int, Any] = OrderedDict()
        self._places: list[tuple[DataPlace, int]] = []
        self._starts = np.zeros(1, np.int64)
        self._file_starts = np.zeros(1, np.int64)
        self._keep = _KEPT_GROUPS
        self._index()

    def _index(self) -> None:
        """Note where each row group and each file starts."""
        starts, file_starts, size = [0], [0], 0
        for path in self.files:
            metadata = read_metadata(path)
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
            with readable(path) as file:
                self._groups[number] = (
                    parquet_module().ParquetFile(file).read_row_group(group, columns=[self.column]).column(0)
                )
            while len(self._groups) > self._keep:
                self._groups.popitem(last=False)
        return self._groups[number]


def _file_bytes(folder: DataPlace, path: str) -> bytes | None:
    """A file that a row names; nothing outside the Parquet file's folder is read."""
    if isinstance(folder, RemotePath):
        named = PurePath(path)
        return None if ".." in named.parts or named.is_absolute() else (folder / named.as_posix()).content()
    place = (folder / path).resolve()
    if not place.is_relative_to(folder.resolve()):
        return None
    try:
        return place.read_bytes()
    except OSError:
        return None


class MaskedParquet(ParquetItems):
    """Encoded images with a mask each, in two columns.

    Args:
        files: in order.
        column: the image column.
        masks: the mask column.
        root: what names are relative to.
    """

    def __init__(self, files: Sequence[DataPlace], column: str, masks: str, *, root: DataPlace) -> None:
        rows = sum(read_metadata(file).num_rows for file in files)
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
