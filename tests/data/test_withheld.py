"""Splits whose labels are not given away, and labels that are no single class, in tables of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.pictures import make_picture, make_pictures

from tesela.cli.main import run
from tesela.core.errors import DataError
from tesela.data.open import find_source, open_source
from tesela.data.targets import label_counts

NAMES = {"image": {"_type": "Image"}, "label": {"names": ["blue", "red"], "_type": "ClassLabel"}}


def write_table(path: Path, labels: list[Any], *, named: bool, kind: pa.DataType | None = None) -> None:
    """A Parquet file of pictures with these labels."""
    start = 100 * len(labels)
    data = [make_picture(path.parent / "x.png", start + row).read_bytes() for row in range(len(labels))]
    (path.parent / "x.png").unlink()
    table = pa.table(
        {"image": [{"bytes": one, "path": None} for one in data], "label": pa.array(labels, kind)}
    )
    if named:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": NAMES}})})
    pq.write_table(table, path)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("nothing", [-1, None])
def test_a_parquet_test_split_without_labels(tmp_path: Path, named: bool, nothing: int | None) -> None:
    write_table(tmp_path / "train-00000-of-00001.parquet", [0, 1] * 12, named=named)
    write_table(tmp_path / "test-00000-of-00001.parquet", [nothing] * 4, named=named, kind=pa.int64())
    source = open_source(tmp_path)
    assert source.labels == (("blue", "red") if named else ("0", "1"))
    assert source.cut == ("val", "test")
    assert sum(len(items) for items in source.splits.values()) == 24
    assert source.notes == ("test has no labels: its 4 images are left aside",)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("nothing", [-1, None])
def test_a_manifest_with_a_split_without_labels(tmp_path: Path, suffix: str, nothing: int | None) -> None:
    make_pictures(tmp_path, {"p": 12, "q": 12, "r": 3})
    paths = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    rows = [
        (path, nothing if path[0] == "r" else path[0], "test" if path[0] == "r" else "train")
        for path in paths
    ]
    if suffix == ".csv":
        lines = [f"{path},{'' if label is None else label},{split}" for path, label, split in rows]
        text = "\n".join(["path,label,split", *lines])
    else:
        text = "\n".join(json.dumps(dict(zip(("path", "label", "split"), row, strict=True))) for row in rows)
    (tmp_path / f"m{suffix}").write_text(text)
    source = open_source(tmp_path / f"m{suffix}")
    assert source.labels == ("p", "q")
    assert source.cut == ("val", "test")
    assert source.notes == ("test has no labels: its 3 images are left aside",)


def test_a_plan_says_that_the_test_split_has_no_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_pictures(tmp_path / "data", {"train/blue": 12, "train/red": 12, "test": 5})
    words = ["train", str(data), "--model", "vit_nano", "--image-size", "8", "--epochs", "1", "--precision"]
    out = str(tmp_path / "run")
    assert run([*words, "fp32", "--no-report", "--no-tensorboard", "--out", out]) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "note test has no labels" in shown and "(5) are left aside" in shown


def test_a_few_rows_without_labels_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "train.parquet", [0, 1, -1, 0], named=True)
    with pytest.raises(DataError, match="row 2 has the label -1, which is no class") as caught:
        open_source(tmp_path / "train.parquet")
    assert "1 of 4" in caught.value.hint


@pytest.mark.parametrize(
    ("values", "labels", "counts"),
    [
        ([1.0, 0.0, 1.0], ("0", "1"), [1, 2]),
        ([True, False, True], ("false", "true"), [1, 2]),
        (["b", " a", "b "], ("a", "b"), [1, 2]),
        ([0, 2, 2], ("0", "1", "2"), [1, 0, 2]),
        ([70001, 5, 70001], ("5", "70001"), [1, 2]),
        ([0.5, 1.5, 1.5], ("0.5", "1.5"), [1, 2]),
    ],
)
def test_labels_of_parquet(
    tmp_path: Path, values: list[Any], labels: tuple[str, ...], counts: list[int]
) -> None:
    write_table(tmp_path / "train.parquet", values, named=False)
    source = find_source(tmp_path / "train.parquet")
    assert source.labels == labels
    assert label_counts(source) == {"train": counts}


def test_numbers_of_named_classes_may_be_floats(tmp_path: Path) -> None:
    write_table(tmp_path / "train.parquet", [1.0, 0.0, 1.0], named=True)
    source = find_source(tmp_path / "train.parquet")
    assert source.labels == ("blue", "red") and label_counts(source) == {"train": [1, 2]}


@pytest.mark.parametrize("values", [[[0], [1]], [[0, 1], []], [{"id": 1}, {"id": 2}]])
def test_one_label_per_image_is_needed(tmp_path: Path, values: list[Any]) -> None:
    write_table(tmp_path / "train.parquet", values, named=False)
    with pytest.raises(DataError, match=r"row 0 has the label .* one label per image is needed"):
        open_source(tmp_path / "train.parquet")


def test_splits_that_files_say_among_other_words(tmp_path: Path) -> None:
    for name in ("birds-train-0.parquet", "birds-test-0.parquet", "extra.parquet"):
        write_table(tmp_path / name, [0, 1, 1], named=True)
    source = find_source(tmp_path)
    assert label_counts(source) == {"train": [2, 4], "test": [1, 2]}
    assert source.notes == ("extra.parquet names no split and is read as train (1 files)",)


def test_tables_of_results_among_photographs_are_no_data(tmp_path: Path) -> None:
    make_pictures(tmp_path, {"blue": 3, "red": 3})
    pq.write_table(pa.table({"image": ["blue/000.png"], "label": ["red"]}), tmp_path / "found.parquet")
    source = find_source(tmp_path)
    assert source.kind == "folder" and source.ignored == ("found.parquet",)
