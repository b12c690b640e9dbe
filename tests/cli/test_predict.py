"""``tesela predict`` through the command line's own entry: lines, files, unreadable images, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.runtime.bundles import digits_onnx, digits_run, held_out

from tesela.cli.main import run
from tesela.runtime.predictor import Predictor


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images, _ = held_out(3)
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name, content in zip(("b.png", "sub/a.png", "sub/c.png"), images, strict=True):
        (tmp_path / "in" / name).write_bytes(content)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return tmp_path / "in"


@pytest.mark.parametrize("place", [digits_run, digits_onnx])
def test_one_json_object_per_image(place, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    """Reference: the predictor, file by file.

    A damaged one is among the lines with its code and counted on stderr.
    """
    assert run(["predict", str(place()), str(folder), "--top", "2", "--json"]) == 1
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert [Path(row["image"]).name for row in rows] == ["b.png", "broken.jpg", "a.png", "c.png"]
    predictor = Predictor(place())
    for row in rows:
        alone = predictor.predict([Path(row["image"])], top=2)[0].to_mapping()
        assert (row["label"], row["error"]) == (alone["label"], alone["error"])
        assert [one["probability"] for one in row["top"]] == pytest.approx(
            [one["probability"] for one in alone["top"]], abs=1e-6
        )
    assert rows[1]["error"]["code"] in ("truncated", "corrupt")
    assert "1 of 4 images could not be read" in captured.err


def test_lines_for_people(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(["predict", str(digits_run()), str(folder / "b.png"), str(folder / "broken.jpg"), "--top", "1"])
        == 1
    )
    first, second = capsys.readouterr().out.splitlines()
    best = Predictor(digits_run()).predict([folder / "b.png"], top=1)[0].scores[0]
    assert first == f"{folder / 'b.png'}: {best.label} {best.probability:.1%}"
    assert second.startswith(f"{folder / 'broken.jpg'}: unreadable (")


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_out_writes_all_rows(ending: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / f"r.{ending}"
    assert run(["predict", str(digits_run()), str(folder), "--out", str(out)]) == 1
    if ending == "jsonl":
        assert [
            Path(json.loads(line)["image"]).name for line in out.read_text(encoding="utf-8").splitlines()
        ][1] == "broken.jpg"
    assert out.stat().st_size > 100


def test_exit_codes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(digits_run())
    assert run(["predict", model, str(folder / "broken.jpg")]) == 1
    (tmp_path / "empty").mkdir()
    assert run(["predict", model, str(tmp_path / "empty")]) == 1
    capsys.readouterr()
    for words in (
        [str(tmp_path / "absent"), str(folder)],
        [model, str(folder / "absent.png")],
        [model],
        [model, str(folder), "--out", str(tmp_path / "r.xlsx")],
        [model, str(folder), "--top", "0"],
        [model, str(folder), "--backend", "tpu"],
    ):
        assert run(["predict", *words]) == 2, words
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2
        assert lines[0].startswith("error: ")
        assert lines[1].startswith("hint: ")
    assert not (tmp_path / "r.xlsx").exists()
