"""Arrays of rows that grow on disk, for evaluations larger than memory."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from tesela.core.files import io_call, storage_errors

Arrays = dict[str, npt.NDArray[Any]]


class RowSpool:
    """Arrays (N, ...) by name, appended batch by batch to temporary files.

    A context manager that removes them.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tesela-rows-")
        self._files: dict[str, BinaryIO] = {}
        self._shapes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        self._counts: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()
        self._folder.cleanup()

    def append(self, rows: Mapping[str, npt.NDArray[Any]]) -> None:
        """Add the rows of one batch; every batch must have the same names, types and shapes of a row."""
        for name, values in rows.items():
            if name not in self._files:
                self._files[name] = self._path(name).open("wb")
                self._shapes[name] = values.dtype, values.shape[1:]
            if (values.dtype, values.shape[1:]) != self._shapes[name]:
                raise ValueError(f"rows of {name!r} changed from {self._shapes[name]}")
            stream, data = self._files[name], np.ascontiguousarray(values).tobytes()
            with storage_errors(self._path(name), needed=len(data)):
                io_call("write", lambda stream=stream, data=data: stream.write(data))  # type: ignore[misc]
            self._counts[name] = self._counts.get(name, 0) + len(values)

    def arrays(self) -> Arrays:
        """All rows so far, mapped into memory and read as needed."""
        found: Arrays = {}
        for name, stream in self._files.items():
            stream.flush()
            kind, shape = self._shapes[name]
            found[name] = np.memmap(self._path(name), kind, mode="r", shape=(self._counts[name], *shape))
        return found

    def _path(self, name: str) -> Path:
        return Path(self._folder.name) / name
