"""Shards: tar archives as ``tesela data pack`` writes them, or in WebDataset's layout.

An image is read by its place in the file, and no archive is unpacked. A loader goes through a few shards at a
time, in an order that seed and epoch give, and mixes their images: reads stay near one another, and any batch
can be made alone, so that a resumed training is exact. Archives at an address are read by ranges, those of a
batch at once.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tesela.core.errors import DataError, ImageError
from tesela.core.pathnames import path_text
from tesela.data.packing.pack import BOOK, INDEX, SETTINGS_OF_PACK, SHARDS_FORMAT, read_index
from tesela.data.source import Columns, Source
from tesela.data.sources.images import NO_CLASS
from tesela.data.sources.layout.split_names import settled, split_in
from tesela.data.storage.place import (
    THREADS,
    DataPlace,
    contents_of,
    full_name,
    json_of,
    opened,
    place_of,
    sizes_of,
)
from tesela.data.storage.remote import RemotePath
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

    def __init__(self, files: Sequence[DataPlace], index: NDArray[np.int64], *, verified: bool) -> None:
        self.files, self.index, self.verified = tuple(files), index, verified
        self.targets: NDArray[np.int64] = index[:, 3]
        self.columns: Columns = {}
        #: Archive of each image, by which a loader shuffles.
        self.groups: NDArray[np.int64] = index[:, 0]
        self.starts = np.searchsorted(self.groups, np.arange(len(self.files)))
        self._open: dict[int, int] = {}
        self._fetched: dict[int, bytes] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}, "_fetched": {}}

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
        """The encoded image.

        Raises:
            ImageError: the archive is cut off or cannot be read.
            StorageError: object storage does not give it.
        """
        if index in self._fetched:
            return self._fetched[index]
        shard, offset, size, _ = self.index[index].tolist()
        file = self.files[shard]
        if isinstance(file, RemotePath):
            return file.read(offset, size)
        try:
            if shard not in self._open:
                self._open[shard] = os.open(file, os.O_RDONLY)
            data = os.pread(self._open[shard], size, offset)
        except OSError as error:
            raise ImageError(
                f"{file.name} cannot be read: {error.strerror}",
                code="unreadable_file",
                hint="look at the disk",
            ) from error
        if len(data) < size:
            raise ImageError(f"{file.name} is cut off", code="truncated", hint="copy it again")
        return data

    def fetch(self, rows: Sequence[int]) -> None:
        """Read the images of a batch at once, where each is a request; those of the last batch are forgotten.

        Raises:
            StorageError: as ``raw``.
        """
        self._fetched = {}
        if any(isinstance(file, RemotePath) for file in self.files):
            with ThreadPoolExecutor(THREADS) as pool:
                self._fetched = dict(zip(rows, pool.map(self.raw, rows), strict=True))


def find_shards(text: str | Path) -> Source | None:
    """The shards in a folder, or a single tar archive of images; None for anything else.

    Raises:
        DataError: a shard is missing or cut off.
        StorageError: object storage fails.
    """
    return open_shards(place_of(text))


def open_shards(place: DataPlace, *, labelled: bool = True) -> Source | None:
    """The shards at a place, as ``find_shards``.

    Args:
        place: a folder, or an archive.
        labelled: whether archives without any class are left alone; where not, classes are not looked at.
    """
    if place.suffix == ".tar" and (isinstance(place, RemotePath) or place.is_file()):
        return _foreign(place, [place], labelled=labelled)
    if isinstance(place, Path) and not place.is_dir():
        return None
    told = json_of(place / INDEX)
    if isinstance(told, dict) and told.get("format") == SHARDS_FORMAT:
        return _packed(place, told) if told["kind"] == "tar" else None  # Parquet is another kind
    if told is None and json_of(place / SETTINGS_OF_PACK) is not None:
        raise DataError(f"{place} was not packed to its end", hint="run tesela data pack again")
    return _foreign(place, archives(place), labelled=labelled)


def archives(folder: DataPlace) -> list[DataPlace]:
    """The tar archives in a folder, in order."""
    if isinstance(folder, RemotePath):
        return [file for file in folder.below() if file.suffix == ".tar" and file.parent == folder]
    return [file for file in sorted(folder.glob("*.tar")) if file.is_file()]


def _packed(folder: DataPlace, told: dict[str, Any]) -> Source:
    splits = {}
    for split, shards in told["splits"].items():
        files = [folder / one["file"] for one in shards]
        for file, one, there in zip(files, shards, sizes_of(files), strict=True):
            size = there or 0
            if size != one["bytes"]:
                raise DataError(
                    f"the shard {file.name} is {'cut off' if size else 'missing'}: "
                    f"{size:,} of {one['bytes']:,} bytes are there",
                    hint="copy it again, or delete it and pack the data again",
                )
        books = [folder / BOOK / f"{file.stem}.idx" for file in files]
        read = zip(books, contents_of(books), shards, strict=True)
        parts = [read_index(book.name, data, one["rows"]) for book, data, one in read]
        splits[split] = ShardItems(files, _joined(parts), verified=True)
    return Source(
        name=path_text(full_name(folder)),
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


def _foreign(path: DataPlace, files: Sequence[DataPlace], *, labelled: bool) -> Source | None:
    """Archives in WebDataset's layout: KEY.jpg and KEY.cls; None where they hold no such pairs."""
    said = settled({file: word for file in files if (word := split_in(file.stem)) is not None})
    by_split: dict[str, list[DataPlace]] = {}
    for file in files:
        by_split.setdefault(said.get(file, "train"), []).append(file)
    parts = {
        split: [_members(file, labelled=labelled) for file in members] for split, members in by_split.items()
    }
    if not any(len(part) for members in parts.values() for part in members):
        return None
    splits = {
        split: ShardItems(by_split[split], _joined(found), verified=False) for split, found in parts.items()
    }
    classes = 1 + max(int(items.targets.max(initial=0)) for items in splits.values())
    return Source(
        name=path_text(Path(full_name(path)).stem),
        kind="shards",
        labels=tuple(str(number) for number in range(classes)),
        splits=splits,
        notes=(
            "shards hold numbers of classes and no names",
            f"shuffled by shard, the images of {BUFFER} shards at a time",
        ),
    )


def _members(file: DataPlace, *, labelled: bool) -> NDArray[np.int64]:
    """(N, 3) offset, bytes and class of the images in an archive."""
    images: dict[str, tuple[int, int]] = {}
    classes: dict[str, int] = {}
    try:
        with opened(file) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                key, _, ending = member.name.partition(".")
                if f".{ending.lower()}" in IMAGE_SUFFIXES:
                    images[key] = member.offset_data, member.size
                elif ending == "cls" and labelled:
                    content = archive.extractfile(member)
                    classes[key] = int((content.read() if content else b"").strip())
            stream.seek(archive.offset)  # an archive ends with empty blocks, also behind its last file
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("unexpected end of data")
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise DataError(
            f"the shard {file.name} is damaged or cut off: {error}", hint="copy it again, or leave it out"
        ) from error
    if not labelled:
        classes = dict.fromkeys(images, NO_CLASS)
    if images and not classes:
        return np.zeros((0, 3), np.int64)
    lost = sorted(images.keys() - classes.keys())
    if lost:
        raise DataError(
            f"{file.name}: {lost[0]} and {len(lost) - 1} more have no .cls with their class",
            hint="the shard may be cut off: copy it again",
        )
    return np.array([(*images[key], classes[key]) for key in images], np.int64).reshape(-1, 3)
