"""Shards: tar archives as ``tesela data pack`` writes them, or in WebDataset's layout.

An image is read by its place in the file, and no archive is unpacked. A loader goes through a few shards at a
time, in an order that seed and epoch give, and mixes their images: reads stay near one another, and any batch
can be made alone, so that a resumed training is exact.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tesela.core.errors import DataError, ImageError
from tesela.core.files import read_json
from tesela.core.pathnames import path_text
from tesela.data.packing.pack import BOOK, INDEX, SETTINGS_OF_PACK, SHARDS_FORMAT, read_index
from tesela.data.source import Columns, Source
from tesela.data.sources.layout.split_names import settled, split_in
from tesela.imaging.decode import decode
from tesela.imaging.limits import LOCAL_LIMITS
from tesela.imaging.suffixes import IMAGE_SUFFIXES

#: Shards whose images are mixed.
BUFFER = 8


class ShardItems:
    """Encoded images in tar archives, by offset and size.

    Args:
        files: the archives.
        index: (N, 4): number of the archive, offset, bytes and class of each image, archive after archive.
        verified: whether each image was decoded when the archives were written.
    """

    limits = LOCAL_LIMITS
    #: Archives whose images a loader mixes.
    buffer = BUFFER

    def __init__(self, files: Sequence[Path], index: NDArray[np.int64], *, verified: bool) -> None:
        self.files, self.index, self.verified = tuple(files), index, verified
        self.targets: NDArray[np.int64] = index[:, 3]
        self.columns: Columns = {}
        #: Archive of each image, by which a loader shuffles.
        self.groups: NDArray[np.int64] = index[:, 0]
        self.starts = np.searchsorted(self.groups, np.arange(len(self.files)))
        self._open: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def __len__(self) -> int:
        return len(self.index)

    def read(
        self, index: int, *, channels: int | None = None, size_hint: tuple[int, int] | None = None
    ) -> NDArray[np.uint8]:
        """As Items.read."""
        return decode(self.raw(index), channels=channels or 3, limits=self.limits, size_hint=size_hint)

    def name(self, index: int) -> str:
        """The archive and the number of the image in it."""
        shard = int(self.groups[index])
        return f"{self.files[shard].name}#{index - int(self.starts[shard])}"

    def raw(self, index: int) -> bytes:
        """The encoded image."""
        shard, offset, size, _ = self.index[index].tolist()
        try:
            if shard not in self._open:
                self._open[shard] = os.open(self.files[shard], os.O_RDONLY)
            data = os.pread(self._open[shard], size, offset)
        except OSError as error:
            raise ImageError(
                f"{self.files[shard].name} cannot be read: {error.strerror}",
                code="unreadable_file",
                hint="look at the disk",
            ) from error
        if len(data) < size:
            raise ImageError(f"{self.files[shard].name} is cut off", code="truncated", hint="copy it again")
        return data


def find_shards(text: str | Path) -> Source | None:
    """The shards in a folder, or a single tar archive of images; None for anything else.

    Raises:
        DataError: a shard is missing or cut off.
    """
    path = Path(text).expanduser()
    if path.is_dir() and (path / INDEX).is_file():
        told = read_json(path / INDEX)
        if isinstance(told, dict) and told.get("format") == SHARDS_FORMAT:
            return _packed(path, told) if told["kind"] == "tar" else None  # Parquet is another kind
    if path.is_dir() and (path / SETTINGS_OF_PACK).is_file():
        raise DataError(f"{path} was not packed to its end", hint="run tesela data pack again")
    files = sorted(path.glob("*.tar")) if path.is_dir() else [path] if path.suffix == ".tar" else []
    files = [file for file in files if file.is_file()]
    if not files:
        return None
    return _foreign(path, files)


def _packed(folder: Path, told: dict[str, Any]) -> Source:
    splits = {}
    for split, shards in told["splits"].items():
        files = [folder / one["file"] for one in shards]
        for file, one in zip(files, shards, strict=True):
            size = file.stat().st_size if file.exists() else 0
            if size != one["bytes"]:
                raise DataError(
                    f"the shard {file.name} is {'cut off' if size else 'missing'}: "
                    f"{size:,} of {one['bytes']:,} bytes are there",
                    hint="copy it again, or delete it and pack the data again",
                )
        books = [(folder / BOOK / file.name).with_suffix(".idx") for file in files]
        parts = [read_index(book, one["rows"]) for book, one in zip(books, shards, strict=True)]
        splits[split] = ShardItems(files, _joined(parts), verified=True)
    return Source(
        name=path_text(folder.resolve().name),
        kind="shards",
        labels=tuple(told["labels"]),
        splits=splits,
        channels=told["channels"],
        notes=(f"shuffled by shard, the images of {BUFFER} shards at a time",),
    )


def _joined(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """(N, 4) of the shards' own (N, 3)."""
    numbered = [np.insert(part, 0, number, axis=1) for number, part in enumerate(parts)]
    return np.concatenate(numbered) if numbered else np.zeros((0, 4), np.int64)


def _foreign(path: Path, files: Sequence[Path]) -> Source | None:
    """Archives in WebDataset's layout: KEY.jpg and KEY.cls; None where they hold no such pairs."""
    said = settled({file: word for file in files if (word := split_in(file.stem)) is not None})
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(said.get(file, "train"), []).append(file)
    parts = {split: [_members(file) for file in members] for split, members in by_split.items()}
    if not any(len(part) for members in parts.values() for part in members):
        return None
    splits = {
        split: ShardItems(by_split[split], _joined(found), verified=False) for split, found in parts.items()
    }
    classes = 1 + max(int(items.targets.max(initial=0)) for items in splits.values())
    return Source(
        name=path_text(path.resolve().stem),
        kind="shards",
        labels=tuple(str(number) for number in range(classes)),
        splits=splits,
        notes=(
            "shards hold numbers of classes and no names",
            f"shuffled by shard, the images of {BUFFER} shards at a time",
        ),
    )


def _members(file: Path) -> NDArray[np.int64]:
    """(N, 3) offset, bytes and class of the images in an archive."""
    images: dict[str, tuple[int, int]] = {}
    classes: dict[str, int] = {}
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                key, _, ending = member.name.partition(".")
                if f".{ending.lower()}" in IMAGE_SUFFIXES:
                    images[key] = member.offset_data, member.size
                elif ending == "cls":
                    stream = archive.extractfile(member)
                    classes[key] = int((stream.read() if stream else b"").strip())
        if images:
            last = max(offset + size for offset, size in images.values())
            if file.stat().st_size < last:
                raise tarfile.ReadError("unexpected end of data")
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise DataError(
            f"the shard {file.name} is damaged or cut off: {error}", hint="copy it again, or leave it out"
        ) from error
    if images and not classes:
        return np.zeros((0, 3), np.int64)
    lost = sorted(images.keys() - classes.keys())
    if lost:
        raise DataError(
            f"{file.name}: {lost[0]} and {len(lost) - 1} more have no .cls with their class",
            hint="the shard may be cut off: copy it again",
        )
    return np.array([(*images[key], classes[key]) for key in images], np.int64).reshape(-1, 3)
