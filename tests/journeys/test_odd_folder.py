"""A folder in which everything is odd, from training to export: nothing is lost, every bad file is named."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from scripts.odd_photographs import make_photographs
from tests.conftest import shared_folder

import tesela as ts
from tesela.cli.main import run as tesela
from tesela.core.pathnames import text_path
from tesela.runtime.sources import find_images

COUNT = 100


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Photographs of every format, size and name, and a run on them."""
    shared = shared_folder()
    if shared is None:
        pytest.skip("no shared data: set TESELA_SHARED to the folder with data/ and golden/")
    root = tmp_path_factory.mktemp("odd")
    planted = make_photographs(shared / "data/cifar10", root / "photos", count=COUNT)
    words = ["--model", "vit_nano", "--image-size", "32", "--epochs", "1", "--precision", "fp32"]
    words += ["--max-unreadable", "0.1", "--no-tensorboard", "--threads", "1"]
    assert tesela(["train", planted["root"], *words, "--out", str(root / "run"), "--quiet"]) == 0
    return {**planted, "run": str(root / "run"), "out": root}


def test_the_run_has_what_a_run_has(place: dict[str, Any]) -> None:
    left_out = json.loads((Path(place["run"]) / "unreadable.json").read_text())
    assert {row["name"] for row in left_out} <= set(place["corrupt"])
    assert (Path(place["run"]) / "report.html").exists()


def test_a_row_for_every_image(place: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    """The file of each row exists; one is unreadable, is named, and makes the exit code 1."""
    for suffix in ("csv", "jsonl", "parquet"):
        out = place["out"] / f"labels.{suffix}"
        assert tesela(["predict", place["run"], place["root"], "--out", str(out)]) == 1
    with (place["out"] / "labels.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == place["images"]
    assert all(text_path(row["image"]).exists() for row in rows)
    failed = [row["image"] for row in rows if row["error"]]
    assert len(failed) == 1 and failed[0].endswith(place["corrupt"][0])
    lines = (place["out"] / "labels.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["image"] for line in lines if line] == [row["image"] for row in rows]
    assert place["corrupt"][0].rsplit("/", 1)[-1] in capfd.readouterr().err


def test_evaluation_counts_every_readable_image(place: dict[str, Any]) -> None:
    counts = [ts.evaluate(place["run"], split=split) for split in ("train", "val", "test")]
    assert sum(scores["images"] for scores in counts) == place["images"] - len(place["corrupt"])


def test_inspection_explanation_and_export_end(place: dict[str, Any]) -> None:
    """A map for each readable image of the folder with the corrupt one, whatever its name."""
    folder = Path(place["root"]) / place["corrupt"][0].rsplit("/", 1)[0]
    maps = place["out"] / "maps"
    words = ["--no-faithfulness", "--out", str(maps), "--json"]
    assert tesela(["explain", place["run"], str(folder), *words]) == 1
    assert tesela(["inspect", place["run"], "--out", str(place["out"] / "inside")]) == 0
    assert tesela(["export", place["run"], "--to", "onnx", "--out", str(place["out"] / "onnx")]) == 0
    assert len(list(maps.rglob("*.npz"))) == len(find_images([folder])) - 1
