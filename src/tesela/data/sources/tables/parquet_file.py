"""Parquet files at any place: schema, metadata, columns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from tesela.core.errors import DataError, MissingExtraError
from tesela.data.storage.place import DataPlace
from tesela.data.storage.remote import RemotePath


def below(file: DataPlace, root: DataPlace) -> PurePath:
    """The name of a file below a folder."""
    if isinstance(file, RemotePath) and isinstance(root, RemotePath):
        return file.relative_to(root)
    return Path(str(file)).relative_to(str(root))


def read_schema(file: DataPlace) -> Any:
    """The schema of a file.

    Raises:
        DataError: it is no readable Parquet file.
    """
    reader = parquet_module()
    try:
        with readable(file) as stream:
            return reader.read_schema(stream)
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is no readable Parquet file", hint="download it again") from error


def read_metadata(file: DataPlace) -> Any:
    """The metadata in a file's footer."""
    with readable(file) as stream:
        return parquet_module().ParquetFile(stream).metadata


@contextlib.contextmanager
def readable(place: DataPlace) -> Iterator[Any]:
    """What PyArrow reads a place from."""
    if isinstance(place, RemotePath):
        with place.open() as stream:
            yield stream
    else:
        yield place


def parquet_module() -> Any:
    """PyArrow's module for Parquet.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("reading Parquet", "train") from None
    return pyarrow.parquet


def read_column(file: DataPlace, name: str) -> list[Any]:
    """The values of a column.

    Raises:
        DataError: the file has none of that name.
    """
    try:
        with readable(file) as stream:
            return list(parquet_module().read_table(stream, columns=[name]).column(0).to_pylist())
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{file} cannot be read like its neighbours: no column {name!r}",
            hint="keep files of one data set together",
        ) from error
