"""Images in shards and Parquet files as sources of predictions."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tesela.core.address import is_address
from tesela.core.errors import DataError, ImageError, UsageError
from tesela.core.pathnames import path_text, text_path
from tesela.data.source import Items
from tesela.data.sources.parquet import unlabelled_parquet
from tesela.data.sources.shards import archives, open_shards
from tesela.data.storage.place import DataPlace, place_of
from tesela.data.storage.remote import RemotePath
from tesela.runtime.sources import find_images, has_image, stream_images


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image of a shard.

    Attributes:
        place: path or address of the shards.
        split: of the image.
        row: its number in the split.
        name: the shard's path or address, and the number of the image in it.
    """

    place: str
    split: str
    row: int
    name: str

    def data(self) -> bytes:
        """The encoded image.

        Raises:
            ImageError: there is none in its row, or the disk does not give it.
            StorageError: object storage does not give it.
        """
        found = stored_splits(self.place)[self.split].raw(self.row)
        if found is None:
            raise ImageError("the row holds no image", code="empty", hint="remove the row")
        return found


#: An encoded image in memory, a file, pixels (H, W, C) uint8, or an image of a shard.
ImageSource: TypeAlias = bytes | Path | NDArray[np.uint8] | StoredImage


def content(source: ImageSource) -> bytes | Path | NDArray[np.uint8]:
    """The source in a form that decoders take; errors as of ``StoredImage.data``."""
    return source.data() if isinstance(source, StoredImage) else source


def source_name(source: ImageSource, index: int) -> str:
    """The path of a file, the name of a stored image; the number of anything else."""
    if isinstance(source, StoredImage):
        return source.name
    return path_text(source) if isinstance(source, Path) else f"image {index}"


@functools.lru_cache(maxsize=8)
def stored_splits(place: str) -> dict[str, Items]:
    """The images of shards or Parquet files by split, whatever their labels say; none where there are none.

    Raises:
        DataError: a shard is missing, cut off or damaged.
        StorageError: object storage fails.
    """
    found = place_of(place)
    shards = open_shards(found, labelled=False)
    if shards is not None:
        return dict(shards.splits)
    items = unlabelled_parquet(found)
    return {} if items is None else {"all": items}


def find_sources(words: Iterable[str | Path], *, root: Path | None = None) -> list[Path | StoredImage]:
    """The images that ``words`` name; see ``stream_sources``."""
    files, shards = _sorted_out(words)
    found: list[Path | StoredImage] = list(find_images(files, root=root)) if files or not shards else []
    return [*found, *(image for place in shards for image in _stored_images(place))]


def stream_sources(words: Iterable[str | Path], *, root: Path | None = None) -> Iterator[Path | StoredImage]:
    """Files as they are found, then the images of shards.

    Args:
        words: names of files and folders, patterns; shards and Parquet files, or folders or
            addresses of such.
        root: as of ``find_images``.

    Raises:
        UsageError: no word was given, or a word names nothing.
        DataError: a folder holds no image, or a shard is damaged.
        StorageError: object storage fails.
    """
    files, shards = _sorted_out(words)
    if files or not shards:
        yield from stream_images(files, root=root)
    for place in shards:
        yield from _stored_images(place)


def written_source(source: Path | StoredImage) -> Any:
    """A source as a JSON value."""
    if isinstance(source, StoredImage):
        return [source.place, source.split, source.row, source.name]
    return path_text(source)


def read_source(value: Any) -> Path | StoredImage:
    """What ``written_source`` wrote."""
    return StoredImage(*value) if isinstance(value, list) else text_path(value)


def absolute_word(word: str) -> str:
    """A word of the command line that means the same in any folder."""
    return word if is_address(word) else str(Path(word).absolute())


def _sorted_out(words: Iterable[str | Path]) -> tuple[list[str | Path], list[str]]:
    """Words that name files, and those that name shards, none of these twice."""
    files: list[str | Path] = []
    shards: dict[str, None] = {}
    for word in words:
        if str(word) and _holds_shards(place_of(word)):
            shards[str(place_of(word))] = None
        else:
            files.append(word)
    return files, list(shards)


def _holds_shards(place: DataPlace) -> bool:
    if isinstance(place, RemotePath):
        return True
    if place.is_file():
        return place.suffix.lower() in (".tar", ".parquet")
    if not place.is_dir() or has_image(place):
        return False
    return bool(archives(place)) or next(place.rglob("*.parquet"), None) is not None


def _stored_images(place: str) -> Iterator[StoredImage]:
    splits = stored_splits(place)
    if not any(map(len, splits.values())):
        kind = UsageError if is_address(place) else DataError
        raise kind(
            f"there are no shards with images at {place}",
            hint="write them there: tesela data pack DATA --out ADDRESS; or give Parquet files",
        )
    found = place_of(place)
    single = found.suffix.lower() in (".tar", ".parquet")
    root = found.parent if single else found
    beginning = root.url if isinstance(root, RemotePath) else path_text(root)
    for split, items in splits.items():
        for row in range(len(items)):
            yield StoredImage(place, split, row, f"{beginning}/{items.name(row)}")
