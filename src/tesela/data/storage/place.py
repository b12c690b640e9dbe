"""Places of data: paths of this machine, and addresses in object storage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeAlias

from tesela.core.address import is_address, local_text
from tesela.core.errors import DataError
from tesela.core.files import write_atomic, write_json
from tesela.data.storage.remote import RemotePath

DataPlace: TypeAlias = "Path | RemotePath"
#: Requests under way at once.
THREADS = 16


def place_of(text: str | Path) -> DataPlace:
    """The place that a word names.

    Raises:
        UsageError: an address with credentials.
    """
    if isinstance(text, str) and is_address(text):
        return RemotePath(text)
    return Path(local_text(str(text))).expanduser()


def content_of(place: DataPlace) -> bytes | None:
    """All bytes of a file; None where there is none.

    Raises:
        StorageError: the storage fails.
    """
    if isinstance(place, RemotePath):
        return place.content()
    return place.read_bytes() if place.is_file() else None


def contents_of(places: Sequence[DataPlace]) -> list[bytes | None]:
    """Bytes of several files, read at once from object storage."""
    return _each(content_of, places)


def sizes_of(places: Sequence[DataPlace]) -> list[int | None]:
    """Bytes of each file; None for those that are not there."""
    return _each(_size, places)


def json_of(place: DataPlace) -> Any:
    """The JSON value of a file; None where there is no file.

    Raises:
        DataError: it is no JSON.
    """
    data = content_of(place)
    try:
        return None if data is None else json.loads(data)
    except ValueError:
        raise DataError(f"{place} is damaged", hint="copy it there again") from None


def put(place: DataPlace, data: bytes) -> None:
    """Write a file, whole or not at all."""
    if isinstance(place, RemotePath):
        place.write(data)
    else:
        write_atomic(place, data)


def put_json(place: DataPlace, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    if isinstance(place, RemotePath):
        place.write((json.dumps(value, indent=2) + "\n").encode())
    else:
        write_json(place, value)


def opened(place: DataPlace) -> IO[bytes]:
    """A file as a stream to read."""
    return place.open() if isinstance(place, RemotePath) else place.open("rb")


def full_name(place: DataPlace) -> str:
    """The last part of the name of a place, a relative path followed."""
    return place.name if isinstance(place, RemotePath) else place.resolve().name


def _size(place: DataPlace) -> int | None:
    if isinstance(place, RemotePath):
        return place.size()
    return place.stat().st_size if place.is_file() else None


def _each(call: Any, places: Sequence[DataPlace]) -> list[Any]:
    if not any(isinstance(place, RemotePath) for place in places):
        return [call(place) for place in places]
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(call, places))
