"""Result files read back by other readers: json, csv and PyArrow."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from tesela.core.errors import UsageError
from tesela.runtime import table
from tesela.runtime.table import PredictionTable, write_predictions
from tesela.tasks.classification.result import Prediction
from tesela.tasks.result import Failure
from tesela.tasks.score import Score

SCORES = (
    Score(label='a "quoted", label', index=3, probability=0.1 + 0.2),
    Score(label="b", index=0, probability=0.25),
)
ROWS = [
    Prediction(source="häuser/1.png", scores=SCORES),
    Prediction(
        source="2.png",
        failure=Failure(code="truncated", message="the image ends too early", hint="copy it again"),
    ),
]


def test_jsonl(tmp_path: Path) -> None:
    write_predictions(tmp_path / "r.jsonl", ROWS)
    lines = (tmp_path / "r.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [row.to_mapping() for row in ROWS]


def test_csv(tmp_path: Path) -> None:
    write_predictions(tmp_path / "r.csv", ROWS)
    with (tmp_path / "r.csv").open(newline="", encoding="utf-8") as stream:
        first, second = csv.DictReader(stream)
    assert first["label"] == SCORES[0].label
    assert float(first["probability"]) == SCORES[0].probability
    assert (first["label_2"], first["index_2"], first["error"]) == ("b", "0", "")
    assert (second["error"], second["label"], second["probability_2"]) == ("truncated", "", "")


def test_parquet(tmp_path: Path) -> None:
    write_predictions(tmp_path / "r.parquet", ROWS)
    assert parquet.read_table(tmp_path / "r.parquet").to_pylist() == [row.to_mapping() for row in ROWS]


def test_an_older_file_survives_an_unknown_ending_and_no_part_is_left(tmp_path: Path) -> None:
    write_predictions(tmp_path / "r.csv", ROWS)
    with pytest.raises(UsageError, match=r"format of r\.xlsx"):
        write_predictions(tmp_path / "r.xlsx", ROWS)
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


def test_rows_of_several_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parquet is written in groups, a last one that is not full included; no row at all is a table too."""
    monkeypatch.setattr(table, "GROUP", 3)
    many = [dataclasses.replace(ROWS[index % 2], source=str(index)) for index in range(8)]
    for ending in ("parquet", "csv", "jsonl"):
        write_predictions(tmp_path / f"many.{ending}", many)
        write_predictions(tmp_path / f"none.{ending}", [])
    assert parquet.read_table(tmp_path / "many.parquet").to_pylist() == [row.to_mapping() for row in many]
    assert parquet.read_table(tmp_path / "none.parquet").num_rows == 0
    assert (tmp_path / "none.csv").read_text(encoding="utf-8") == "image,error\n"
    with (tmp_path / "many.csv").open(newline="", encoding="utf-8") as stream:
        assert [row["image"] for row in csv.DictReader(stream)] == [str(index) for index in range(8)]


def test_columns_that_come_late(tmp_path: Path) -> None:
    """A first image that could not be read has no columns; the file has those of all rows."""
    write_predictions(tmp_path / "r.csv", reversed(ROWS))
    with (tmp_path / "r.csv").open(newline="", encoding="utf-8") as stream:
        first, second = csv.DictReader(stream)
    assert (first["error"], first["label_2"]) == ("truncated", "")
    assert second["label_2"] == "b"


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_table_that_is_broken_off_leaves_nothing(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"r.{ending}"
    with pytest.raises(KeyboardInterrupt), PredictionTable(path) as rows:
        rows.append(ROWS[0])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
