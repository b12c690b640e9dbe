"""One shard: a tar archive in WebDataset's layout, or rows of a Parquet file."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Literal

import numpy as np

from tesela.core.errors import MissingExtraError
from tesela.core.files import file_atomic, io_call
from tesela.data.scan import Unreadable, attempt, in_threads
from tesela.data.source import Items
from tesela.data.storage.place import DataPlace
from tesela.data.storage.remote import RemotePath
from tesela.imaging.header import read_header
from tesela.imaging.png import encode_png

ShardKind = Literal["tar", "parquet"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """One image that goes into a shard: its name, encoded bytes and class."""

    name: str
    data: bytes
    target: int


def packed_rows(items: Items, rows: Sequence[int]) -> tuple[list[Packed], list[Unreadable]]:
    """The images of some rows, each decoded once to see that it can be, and those that cannot."""

    def one(place: int) -> Packed | Unreadable:
        row = int(rows[place])

        def work() -> Packed:
            pixels = items.read(row, size_hint=(1, 1))
            data = items.raw(row)
            return Packed(
                name=items.name(row),
                data=encode_png(pixels) if data is None else data,
                target=int(items.targets[row]),
            )

        return attempt(items, row, work)

    found = list(in_threads(one, len(rows)))
    return [one for one in found if isinstance(one, Packed)], [
        one for one in found if isinstance(one, Unreadable)
    ]


def write_tar(
    path: DataPlace, images: Sequence[Packed], *, first: int
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Write a tar archive, whole or not at all: NUMBER.jpg, NUMBER.cls and NUMBER.json of each image.

    Args:
        path: the file.
        images: in order.
        first: number of the first.

    Returns:
        (N, 3): offset and bytes of each encoded image in the file, and its class.
    """
    index = np.zeros((len(images), 3), np.int64)
    with _whole(path, images) as stream:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for place, image in enumerate(images):
                key = f"{first + place:09d}"
                ending = {"JPEG": "jpg", None: "bin"}.get(read_header(image.data).format)
                ending = ending or str(read_header(image.data).format).lower()
                index[place] = _add(archive, f"{key}.{ending}", image.data), len(image.data), image.target
                _add(archive, f"{key}.cls", str(image.target).encode())
                _add(archive, f"{key}.json", json.dumps({"name": image.name}).encode())
    return index


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> int:
    """Append a file; where its bytes begin."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    begin = archive.offset + tarfile.BLOCKSIZE
    io_call("write", lambda: archive.addfile(member, io.BytesIO(data)))
    return begin


def write_rows(path: DataPlace, images: Sequence[Packed], labels: Sequence[str]) -> None:
    """Write a Parquet file in the layout of model hubs, whole or not at all.

    Raises:
        MissingExtraError: PyArrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError("writing Parquet", "train") from error
    features = {"image": {"_type": "Image"}, "label": {"names": list(labels), "_type": "ClassLabel"}}
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    told = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pyarrow.schema([("image", kind), ("label", pyarrow.int64())], metadata=told)
    rows = [{"image": {"bytes": one.data, "path": one.name}, "label": one.target} for one in images]
    table = pyarrow.Table.from_pylist(rows, schema=schema)
    with _whole(path, images) as stream:
        io_call("write", lambda: parquet.write_table(table, stream, row_group_size=256))


@contextlib.contextmanager
def _whole(place: DataPlace, images: Sequence[Packed]) -> Iterator[IO[bytes]]:
    """A stream for these images whose content is a file when the block ends without an error."""
    if isinstance(place, RemotePath):
        buffer = io.BytesIO()
        yield buffer
        place.write(buffer.getvalue())
        return
    needed = sum(len(image.data) for image in images)
    with file_atomic(place, needed=needed) as temporary, temporary.open("wb") as stream:
        yield stream
