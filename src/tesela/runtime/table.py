"""Tables of results as JSON lines, CSV or Parquet, row by row, whole or not at all.

JSON lines and Parquet keep everything; CSV has the columns that the task's results say. Paths are written as
``tesela.core.pathnames.path_text`` does, in all three: ``text_path`` gives the file back. No table is held in
memory, however many rows it has.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

from tesela.core.errors import MissingExtraError, UsageError
from tesela.core.files import file_atomic, io_call, json_text
from tesela.tasks.result import Result

#: Fields of a failure.
ERROR = {"code": "string", "message": "string", "hint": "string"}
#: Rows of a Parquet file that are written at once.
GROUP = 4096


class RowWriter(Protocol):
    """Writes rows of one format to an open file; what it opens itself goes on the stack."""

    def append(self, result: Result, extra: Mapping[str, Any]) -> None:
        """Write a row; ``extra`` are further values, where the format has a place for them."""

    def close(self) -> None:
        """Write what is left."""


class PredictionTable:
    """A table of results that are written as they come, inside a ``with`` block.

    Args:
        path: the file, which appears when the block ends without an error; .jsonl, .csv or .parquet.
        schema: of the results, for a Parquet file that may stay without rows.

    Raises:
        UsageError: the ending is another.
        MissingExtraError: Parquet without PyArrow.
        StorageError: the file system refused; raised inside the block.
    """

    def __init__(self, path: Path, *, schema: Mapping[str, Any] | None = None) -> None:
        kinds: dict[str, type[Any]] = {".jsonl": _Lines, ".csv": _Csv, ".parquet": _Parquet}
        if path.suffix.lower() not in kinds:
            raise UsageError(
                f"cannot tell the format of {path.name}", hint="end the name in .jsonl, .csv or .parquet"
            )
        self._kind = kinds[path.suffix.lower()]
        if self._kind is _Parquet:
            _pyarrow()
        self.path, self._stack, self._schema = path, contextlib.ExitStack(), schema
        self._writer: RowWriter

    def __enter__(self) -> Self:
        temporary = self._stack.enter_context(file_atomic(self.path))
        stream = self._stack.enter_context(temporary.open("wb"))
        self._writer = self._kind(stream, self._stack)
        if isinstance(self._writer, _Parquet):
            self._writer.fields.update(self._schema or {})
        return self

    def append(self, result: Result, **extra: Any) -> None:
        """Write one row; ``extra`` are further values of a JSON line."""
        self._writer.append(result, extra)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            self._writer.close()


def write_predictions(path: Path, results: Iterable[Result]) -> None:
    """Write one row for each result; see ``PredictionTable`` for the errors."""
    with PredictionTable(path) as table:
        for result in results:
            table.append(result)


class _Lines:
    """One JSON object per line."""

    def __init__(self, stream: IO[bytes], stack: contextlib.ExitStack) -> None:
        del stack
        self._stream = stream

    def append(self, result: Result, extra: Mapping[str, Any]) -> None:
        line = json_text({**result.to_mapping(), **extra}) + "\n"
        io_call("write", lambda: self._stream.write(line.encode()))

    def close(self) -> None:
        """Nothing is left."""


class _Csv:
    """Columns image and error, then those of the task's results, which are known when all have come."""

    def __init__(self, stream: IO[bytes], stack: contextlib.ExitStack) -> None:
        self._stream = stream
        self._columns: dict[str, None] = {}
        self._spool = stack.enter_context(
            tempfile.TemporaryFile("w+", encoding="ascii", dir=Path(stream.name).parent)  # noqa: SIM115
        )

    def append(self, result: Result, extra: Mapping[str, Any]) -> None:
        del extra
        cells, error = result.cells(), result.failure.code if result.failure else ""
        self._columns.update(dict.fromkeys(cells))
        line = json.dumps([result.source, error, cells]) + "\n"
        io_call("write", lambda: self._spool.write(line))

    def close(self) -> None:
        """Copy the rows under their columns."""
        self._write(["image", "error", *self._columns])
        self._spool.seek(0)
        for line in self._spool:
            source, error, cells = json.loads(line)
            self._write([source, error, *(cells.get(name, "") for name in self._columns)])

    def _write(self, cells: Sequence[str]) -> None:
        data = _csv_line(cells).encode("utf-8", "backslashreplace")
        io_call("write", lambda: self._stream.write(data))


def _csv_line(cells: Sequence[str]) -> str:
    """One row. Odd: the writer quotes a carriage return only where it is part of its own line end."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


class _Parquet:
    """The columns of the JSON form, nested ones as Parquet structures."""

    def __init__(self, stream: IO[bytes], stack: contextlib.ExitStack) -> None:
        del stack
        self._stream = stream
        self._rows: list[dict[str, Any]] = []
        self.fields: dict[str, Any] = {}
        self._writer: Any = None

    def append(self, result: Result, extra: Mapping[str, Any]) -> None:
        del extra
        self.fields = dict(result.schema)
        self._rows.append(result.to_mapping())
        if len(self._rows) == GROUP:
            self._flush()

    def close(self) -> None:
        """Write the last rows; a table of no rows has the columns of an image and its error alone."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        pyarrow = _pyarrow()
        import pyarrow.parquet as parquet

        if self._writer is None:
            fields = {"image": "string", **self.fields, "error": ERROR}
            kinds = [(name, _arrow_type(pyarrow, kind)) for name, kind in fields.items()]
            self._schema = pyarrow.schema(kinds)
            self._writer = parquet.ParquetWriter(self._stream, self._schema)
        table = pyarrow.Table.from_pylist(self._rows, schema=self._schema)
        io_call("write", lambda: self._writer.write_table(table))
        self._rows = []


def _arrow_type(pyarrow: Any, kind: Any) -> Any:
    """The Arrow type of a field of ``Result.schema``."""
    if isinstance(kind, list):
        return pyarrow.list_(_arrow_type(pyarrow, kind[0]))
    if isinstance(kind, dict):
        return pyarrow.struct([(name, _arrow_type(pyarrow, inner)) for name, inner in kind.items()])
    return pyarrow.type_for_alias(kind)


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError("writing Parquet", "train") from error
    return pyarrow
