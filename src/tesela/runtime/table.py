"""Tables of results as JSON lines, CSV or Parquet, written whole or not at all.

JSON lines and Parquet keep everything; CSV has the columns that the task's results say. Paths are written as
``tesela.core.pathnames.path_text`` does, in all three: ``text_path`` gives the file back.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tesela.core.errors import MissingExtraError, UsageError
from tesela.core.files import json_text, write_atomic
from tesela.tasks.result import Result

#: Fields of a failure.
ERROR = {"code": "string", "message": "string", "hint": "string"}


def write_predictions(path: Path, results: Sequence[Result]) -> None:
    """Write one row for each result.

    Raises:
        UsageError: the ending is not .jsonl, .csv or .parquet.
        MissingExtraError: Parquet without PyArrow.
        StorageError: the file system refused.
    """
    write_atomic(path, writer_for(path)(results))


def writer_for(path: Path) -> Callable[[Sequence[Result]], bytes]:
    """The function that turns results into the bytes of such a file; it is asked for before work starts."""
    writers = {".jsonl": to_jsonl, ".csv": to_csv, ".parquet": to_parquet}
    if path.suffix.lower() not in writers:
        raise UsageError(
            f"cannot tell the format of {path.name}", hint="end the name in .jsonl, .csv or .parquet"
        )
    if path.suffix.lower() == ".parquet":
        _pyarrow()
    return writers[path.suffix.lower()]


def to_jsonl(results: Sequence[Result]) -> bytes:
    """One JSON object per line."""
    return lines_of(result.to_mapping() for result in results)


def lines_of(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as JSON lines."""
    return "".join(json_text(row) + "\n" for row in rows).encode()


def to_csv(results: Sequence[Result]) -> bytes:
    """Columns image and error, then those of the task's results."""
    rows = [result.cells() for result in results]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [_csv_line(["image", "error", *columns])]
    for result, row in zip(results, rows, strict=True):
        error = result.failure.code if result.failure else ""
        lines.append(_csv_line([result.source, error, *(row.get(name, "") for name in columns)]))
    return "".join(lines).encode("utf-8", "backslashreplace")


def _csv_line(cells: Sequence[str]) -> str:
    """One row. Odd: the writer quotes a carriage return only where it is part of its own line end."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


def to_parquet(results: Sequence[Result]) -> bytes:
    """The columns of the JSON form, nested ones as Parquet structures."""
    pyarrow = _pyarrow()
    import pyarrow.parquet as parquet

    fields = {"image": "string", **(results[0].schema if results else {}), "error": ERROR}
    schema = pyarrow.schema([(name, _arrow_type(pyarrow, kind)) for name, kind in fields.items()])
    table = pyarrow.Table.from_pylist([result.to_mapping() for result in results], schema=schema)
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    return sink.getvalue()


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
