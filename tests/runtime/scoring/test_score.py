"""Scoring of many images in parts: every row once, whatever ends the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.bundles import digits_onnx, digits_run, held_out

from tesela.cli.main import run
from tesela.core.errors import DataError
from tesela.runtime.predictor import Predictor
from tesela.runtime.scoring.contents import Contents
from tesela.runtime.scoring.journal import DONE
from tesela.runtime.scoring.listing import Listing, listed_total
from tesela.runtime.sources import find_images, stream_images

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty images, of which one is damaged, in three folders."""
    images, _ = held_out(20)
    for number, content in enumerate(images):
        place = tmp_path / "in" / "abc"[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:02d}.png").write_bytes(b"broken" if number == 5 else content)
    return tmp_path / "in"


def score(folder: Path, out: Path, *words: str) -> int:
    given = ["--out", str(out), "--backend", "onnxruntime", "--precision", "fp32", *words]
    return run(["predict", str(digits_onnx()), str(folder), *given])


def rows(out: Path) -> list[dict[str, object]]:
    lines = [line for part in sorted(out.glob("part-*.jsonl")) for line in part.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def test_the_rows_are_those_of_a_single_table(folder: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "parts.jsonl", tmp_path / "table.jsonl"
    assert score(folder, out, "--parts", "6") == 1
    assert score(folder, table) == 1
    assert [path.name for path in sorted(out.glob("part-*"))] == [f"part-00000{n}.jsonl" for n in range(4)]
    wanted = {row["image"]: row for row in map(json.loads, table.read_text().splitlines())}
    found = {row["image"]: row for row in rows(out)}
    assert len(rows(out)) == 20 and found.keys() == wanted.keys()
    for image, row in wanted.items():
        assert (found[image]["label"], found[image]["error"]) == (row["label"], row["error"])


def test_parquet_parts_are_one_table(folder: Path, tmp_path: Path) -> None:
    from pyarrow import dataset

    out = tmp_path / "parts.parquet"
    assert score(folder, out, "--parts", "6", "--dedupe") == 1
    assert score(folder, out, "--parts", "6", "--dedupe") == 1
    table = dataset.dataset(out, format="parquet").to_table()
    assert table.num_rows == 20 and sum(error is not None for error in table["error"].to_pylist()) == 1


def test_features_in_parts_are_those_of_the_run(folder: Path, tmp_path: Path) -> None:
    """Reference: the predictor. Each Parquet part has the columns of its rows, not those of the task."""
    from pyarrow import dataset

    out = tmp_path / "parts.parquet"
    words = ["--out", str(out), "--features", "--parts", "6", "--backend", "torch", "--precision", "fp32"]
    assert run(["predict", str(digits_run()), str(folder), *words]) == 1
    found = dataset.dataset(out, format="parquet").to_table().to_pylist()
    assert len(found) == 20
    predictor = Predictor(digits_run(), backend="torch", precision="fp32")
    paths = [Path(row["image"]) for row in found]
    for row, wanted in zip(found, predictor.predict(paths, features=True), strict=True):
        assert (row["error"] is None) == (wanted.failure is None)
        np.testing.assert_allclose(row["embedding"] or [], wanted.vector, atol=1e-5)


def test_csv_parts_have_their_header(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "parts.csv"
    assert score(folder, out, "--parts", "10") == 1
    lines = [path.read_text().splitlines() for path in sorted(out.glob("part-*.csv"))]
    assert [len(part) for part in lines] == [11, 11] and lines[0][0] == lines[1][0]


def test_what_is_done_is_left_alone_and_the_rest_computed(folder: Path, tmp_path: Path) -> None:
    """A part without a line in the journal, or without its file, is computed again."""
    out = tmp_path / "parts.jsonl"
    assert score(folder, out, "--parts", "6") == 1
    before, kept = rows(out), (out / "part-000000.jsonl").stat().st_mtime_ns
    journal = (out / DONE).read_bytes().splitlines(keepends=True)
    (out / DONE).write_bytes(b"".join(journal[:3]) + journal[3][:7])
    (out / "part-000001.jsonl").unlink()
    (out / ".part-000002.jsonl.123.part").write_text("half")
    assert score(folder, out, "--parts", "6") == 1
    assert rows(out) == before
    assert (out / "part-000000.jsonl").stat().st_mtime_ns == kept
    assert not list(out.glob(".*.part"))
    assert len((out / DONE).read_text().splitlines()) == 5


def test_files_of_equal_bytes_are_computed_once(folder: Path, tmp_path: Path) -> None:
    copies = {f"z/{number}.png": f"{'abc'[number % 3]}/{number:02d}.png" for number in (0, 1, 5, 12)}
    (folder / "z").mkdir()
    for copy, original in copies.items():
        (folder / copy).write_bytes((folder / original).read_bytes())
    out = tmp_path / "parts.jsonl"
    assert score(folder, out, "--parts", "7", "--dedupe") == 1
    assert len(rows(out)) == 20
    listed = [
        json.loads(line)
        for part in sorted((out / "_duplicates").iterdir())
        for line in part.read_text().splitlines()
    ]
    assert {
        Path(row["image"]).relative_to(folder).as_posix(): Path(row["same_as"]).relative_to(folder).as_posix()
        for row in listed
    } == copies
    (out / DONE).write_bytes(b"")  # killed before anything was written down: no row is its own duplicate
    assert score(folder, out, "--parts", "7", "--dedupe") == 1
    assert len(rows(out)) == 20


def test_an_image_is_no_duplicate_of_itself(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"same")
    (tmp_path / "b").write_bytes(b"same")
    for _ in range(2):
        with Contents(tmp_path / "base") as seen:
            assert seen.earlier(tmp_path / "a", 4, "a") is None
            assert seen.earlier(tmp_path / "b", 9, "b") == "a"
            assert seen.earlier(tmp_path / "gone", 10, "gone") is None
            seen.keep()


def test_a_list_that_was_cut_off_is_continued_in_the_same_order(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(1000)]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert list(Listing(whole, lambda: iter(paths))) == paths and listed_total(whole) == 1000
    for size in (0, 1, 5000, len(whole.read_bytes()) - 3):
        cut.write_bytes(whole.read_bytes()[:size])
        assert list(Listing(cut, lambda: iter(paths))) == paths
        assert cut.read_bytes() == whole.read_bytes()

    def never() -> Iterator[Path]:
        raise AssertionError("a finished list needs no folder")

    assert list(Listing(whole, never)) == paths


@pytest.mark.parametrize("now", [500, 100])
def test_folders_that_changed_under_an_unfinished_list_are_refused(now: int, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(1000)]
    file = tmp_path / "list"
    list(Listing(file, lambda: iter(paths)))
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:600]))
    with pytest.raises(DataError) as caught:
        list(Listing(file, lambda: iter([*paths[:now], *([tmp_path / "new"] if now == 500 else [])])))
    assert "changed" in caught.value.message


def test_names_that_overlap_are_listed_once(folder: Path) -> None:
    (folder / "a" / "named.bin").write_bytes(b"x")
    words = [
        folder / "a" / "00.png",
        folder,
        folder / "a",
        folder / "a" / "named.bin",
        folder / "b" / "01.png",
    ]
    found = list(stream_images(words))
    assert len(found) == len(set(found))
    assert set(found) == set(find_images(words))
    os.symlink(folder, folder / "c" / "round")
    assert set(stream_images([folder])) == set(find_images([folder]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--parts", "6"], "--out scores.parquet"),
        (["--parts", "6", "--out", "folder"], "--out scores.parquet"),
        (["--parts", "0", "--out", "a.jsonl"], "--parts 2000"),
        (["--dedupe", "--out", "a.jsonl"], "--parts 2000"),
        (["--parts", "5", "--out", "a.jsonl", "--max-ms", "3"], "leave one of them out"),
    ],
)
def test_bad_input(
    words: list[str],
    said: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["predict", str(digits_onnx()), str(folder), *words]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_other_settings_and_other_folders_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, taken = tmp_path / "parts.jsonl", tmp_path / "taken.jsonl"
    assert score(folder, out, "--parts", "6") == 1
    assert score(folder, out, "--parts", "7") == 2
    assert "begun with other settings: rows (" in capsys.readouterr().err
    assert score(folder, out, "--parts", "6", "--top", "2") == 2
    taken.mkdir()
    (taken / "mine").write_text("x")
    assert score(folder, taken, "--parts", "6") == 2 and (taken / "mine").exists()


def test_no_row_is_lost_or_doubled_by_kills(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "kill_predict.py"
    words = ["--images", "4000", "--kills", "2", "--rows", "100", "--side", "16", "--backend", "onnxruntime"]
    done = subprocess.run(
        [sys.executable, str(script), str(digits_onnx()), *words, "--longest", "0.4"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["missing"], found["twice"], found["wrong_reasons"]) == (0, 0, 0) and found["kills"] == 2


def test_the_predictor_reads_no_further_ahead_than_it_decodes(tmp_path: Path) -> None:
    """Memory stays what it is, however many images come."""
    images, _ = held_out(1)
    asked = 0

    def many() -> Iterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield images[0]

    results = Predictor(digits_onnx()).stream(many(), batch=8)
    for number in range(1, 41):
        next(results)
        assert asked <= number + 8 + 8 + 8
    results.close()  # type: ignore[attr-defined]
