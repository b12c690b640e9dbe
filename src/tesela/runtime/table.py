"""Predictions as a file: JSON lines, CSV or Parquet, by the file's ending; written whole or not at all.

JSON lines and Parquet keep the whole list of scores; CSV has a pair of columns per rank.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tesela.core.errors import MissingExtraError, UsageError
from tesela.core.files import write_atomic
from tesela.runtime.results import Prediction


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write one row per prediction.

    Raises:
        UsageError: the ending is not .jsonl, .csv or .parquet.
        MissingExtraError: Parquet without PyArrow.
        StorageError: the file system refused.
    """
    write_atomic(path, writer_for(path)(predictions))


def writer_for(path: Path) -> Callable[[Sequence[Prediction]], bytes]:
    """The function that turns predictions into the bytes of such a file; it is asked for before work starts."""
    writers = {".jsonl": to_jsonl, ".csv": to_csv, ".parquet": to_parquet}
    if path.suffix.lower() not in writers:
        raise UsageError(
            f"cannot tell the format of {path.name}", hint="end the name in .jsonl, .csv or .parquet"
        )
    if path.suffix.lower() == ".parquet":
        _pyarrow()
    return writers[path.suffix.lower()]


def to_jsonl(predictions: Sequence[Prediction]) -> bytes:
    """One JSON object per line."""
    return "".join(
        json.dumps(prediction.to_mapping(), ensure_ascii=False) + "\n" for prediction in predictions
    ).encode()


def to_csv(predictions: Sequence[Prediction]) -> bytes:
    """Columns image, error, then label, index and probability for each rank."""
    ranks = max((len(prediction.scores) for prediction in predictions), default=0)
    header = ["image", "error"]
    for rank in range(ranks):
        header += [f"{name}_{rank + 1}" if rank else name for name in ("label", "index", "probability")]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for prediction in predictions:
        row = [prediction.source, prediction.failure.code if prediction.failure else ""]
        for score in prediction.scores:
            row += [score.label, str(score.index), repr(score.probability)]
        writer.writerow(row + [""] * (len(header) - len(row)))
    return text.getvalue().encode()


def to_parquet(predictions: Sequence[Prediction]) -> bytes:
    """The columns of the JSON form, nested ones as Parquet structures."""
    pyarrow = _pyarrow()
    import pyarrow.parquet as parquet

    score = pyarrow.struct(
        [("label", pyarrow.string()), ("index", pyarrow.int64()), ("probability", pyarrow.float64())]
    )
    error = pyarrow.struct(
        [("code", pyarrow.string()), ("message", pyarrow.string()), ("hint", pyarrow.string())]
    )
    schema = pyarrow.schema(
        [("image", pyarrow.string()), *score, ("top", pyarrow.list_(score)), ("error", error)]
    )
    table = pyarrow.Table.from_pylist([prediction.to_mapping() for prediction in predictions], schema=schema)
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    return sink.getvalue()


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError("writing Parquet", "train") from error
    return pyarrow
