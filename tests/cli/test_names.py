"""Names that a file system allows and text does not: every one comes out again, in every format."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.runtime.bundles import digits_run, held_out

from tesela.cli.main import run
from tesela.core.files import file_stem, json_text, write_atomic
from tesela.core.pathnames import path_text, text_path
from tesela.core.terminal import line_text
from tesela.runtime.result_folder import ResultFolder
from tesela.runtime.table import PredictionTable
from tesela.tasks.segmentation.result import segmentation

NAMES = [
    b"caf\xe9.png",
    "日本　語.png".encode(),
    b"new\nline.png",
    b"carriage\rreturn.png",
    "line\u2028and\x85next.png".encode(),
    b"quo\"te'.png",
    b"ha#sh.png",
    b"per%20cent%zz.png",
    b"tab\tx.png",
    b"x" * 250 + b".png",
    "語".encode() * 80 + b".png",
    b"literal\\xe9.png",
    b"literal\\x5cxe9.png",
    b"red\x1b[31m.png",
    "turned\u202etext.png".encode(),
    b"-dash.png",
    b":smile:.png",
    b"[bold]x.png",
    b"a,b;c.png",
    "e\u0301.png".encode(),
    "\u00e9.png".encode(),
    b"UP.PNG",
]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    folder = tmp_path / "odd"
    below = os.fsencode(folder) + b"/vert\xe9"
    os.makedirs(below)
    content = held_out(1)[0][0]
    for place in (*(os.fsencode(folder) + b"/" + name for name in NAMES), below + b"/in.png"):
        Path(os.fsdecode(place)).write_bytes(content)
    return folder


def same(texts: list[str], folder: Path) -> bool:
    """Whether the texts name exactly the files of the folder."""
    wanted = sorted(os.fsencode(path) for path in folder.rglob("*") if path.is_file())
    return sorted(os.fsencode(text_path(text)) for text in texts) == wanted


def test_predict_prints_every_name(odd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, for people and as JSON: also for readers that break lines as Unicode does."""
    assert run(["predict", str(digits_run()), str(odd), "--json"]) == 0
    assert same([json.loads(line)["image"] for line in capsys.readouterr().out.splitlines()], odd)
    assert run(["predict", str(digits_run()), str(odd)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert same([line.rpartition(": ")[0] for line in lines], odd)
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_predict_writes_every_name(ending: str, odd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = odd.parent / f"r.{ending}"
    assert run(["predict", str(digits_run()), str(odd), "--out", str(out)]) == 0
    assert capsys.readouterr().out == ""
    if ending == "jsonl":
        texts = [json.loads(line)["image"] for line in out.read_text(encoding="utf-8").splitlines()]
    elif ending == "csv":
        with out.open(encoding="utf-8", newline="") as stream:
            texts = [row["image"] for row in csv.DictReader(stream)]
    else:
        import pyarrow.parquet as parquet

        texts = parquet.read_table(out)["image"].to_pylist()
    assert same(texts, odd)


def test_a_written_name_is_taken_on_the_command_line(odd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = f"{odd}/vert\\xe9/in.png"
    assert run(["predict", str(digits_run()), written, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["image"] == written


def test_explain_and_inspect_lose_no_name(odd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files about each image are there under the names that the JSON gives; pages and JSON are UTF-8."""
    out = odd.parent / "out"
    words = ["explain", str(digits_run()), str(odd), "--out", str(out), "--no-faithfulness", "--json"]
    assert run(words) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["images"]
    assert same([row["image"] for row in rows], odd)
    files = [
        text_path(text) for row in rows for text in (row["figure"], row["npz"], row["classes"][0]["png"])
    ]
    assert len(set(files)) == len(files)
    assert all(file.is_file() for file in files)
    page = odd.parent / os.fsdecode(b"p\xe9ge")
    image = os.fsdecode(os.fsencode(odd) + b"/caf\xe9.png")
    assert run(["inspect", str(digits_run()), "--images", image, "--out", str(page), "--json"]) == 0
    assert text_path(json.loads(capsys.readouterr().out)["page"]) == page / "inspect.html"
    assert "caf\\xe9.png" in (page / "inspect.html").read_text(encoding="utf-8")
    assert run(["inspect", str(digits_run()), "--images", str(odd), "--count", "99", "--out", str(page)]) == 0


def test_files_of_masks_are_named_in_the_table(tmp_path: Path) -> None:
    """Two images of one name, and one whose name is cut: the row says which files are about it."""
    images = [tmp_path / "a" / "x.png", tmp_path / "b" / "x.png", tmp_path / ("y" * 250 + ".png")]
    folder = ResultFolder(tmp_path / "masks", images)
    colors = ((0, 0, 0), (9, 9, 9), (8, 8, 8))
    with PredictionTable(folder.table) as table:
        for number, image in enumerate(images):
            write_atomic(image, held_out(1)[0][0])
            mask = np.full((8, 8), number, np.uint8)
            result = segmentation(mask, ("p", "q", "r"), colors).of(path_text(image))
            table.append(result, files=folder.write(image, result))
    rows = [json.loads(line) for line in folder.table.read_text(encoding="utf-8").splitlines()]
    assert [text_path(row["image"]) for row in rows] == images
    for number, row in enumerate(rows):
        (name,) = row["files"]
        assert (np.asarray(Image.open(tmp_path / "masks" / name)) == number).all()


def test_texts_of_names() -> None:
    """Reversible as text and as a line; stems that any file system takes, different where names were cut."""
    for name in NAMES:
        path = Path(os.fsdecode(name))
        for text in (path_text(path), line_text(path)):
            text.encode("utf-8")
            assert os.fsencode(text_path(text)) == name
        assert len(line_text(path).splitlines()) == 1
        assert len(file_stem(path).encode()) <= 110
        assert json.loads(json_text({"name": str(path)}))["name"] == str(path)
        json_text({"name": str(path)}).encode("utf-8")
    assert [file_stem(Path(os.fsdecode(name))) for name in NAMES[:3]] == ["caf_", "日本　語", "new_line"]
    assert file_stem(Path("x" * 120 + "a.png")) != file_stem(Path("x" * 120 + "b.png"))


def test_a_run_in_a_folder_that_is_no_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights and graphs are read there too."""
    import shutil

    from tests.runtime.bundles import digits_onnx

    image = tmp_path / "a.png"
    image.write_bytes(held_out(1)[0][0])
    for place in (digits_run(), digits_onnx()):
        moved = tmp_path / os.fsdecode(place.name.encode() + b"\xe9")
        shutil.copytree(place, moved)
        assert run(["predict", str(place), str(image)]) == run(["predict", str(moved), str(image)]) == 0
        first, second = capsys.readouterr().out.splitlines()
        assert first == second
