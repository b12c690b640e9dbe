"""Formats, limits and bad files on every verb that takes images; refusals by cause; levels of 16 bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tesela.cli.main import run

SMALL = [
    *("--model", "vit_nano", "--image-size", "16", "--precision", "fp32", "--attention", "fused"),
    *("--epochs", "1", "--threads", "1", "--no-tensorboard", "--no-report", "--data.workers", "0"),
]
ENDINGS = {"BMP": "bmp", "GIF": "gif", "TIFF": "tif", "AVIF": "avif", "PNG": "png", "JPEG": "jpg"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, trained on two classes in six formats, and its data with two bad files in the test split."""
    folder = tmp_path_factory.mktemp("formats")
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        for label, colour in (("red", 0), ("blue", 2)):
            below = folder / "data" / split / label
            below.mkdir(parents=True)
            for number in range(count):
                for kind, ending in ENDINGS.items():
                    noise = np.random.default_rng(number).integers(0, 99, (20, 20, 3), np.uint8)
                    noise[..., colour] += 150
                    Image.fromarray(noise).save(below / f"{number}{kind}.{ending}", kind)
    assert run(["train", str(folder / "data"), *SMALL, "--out", str(folder / "run")]) == 0
    (folder / "data/test/red/broken.jpg").write_bytes(b"<html>")
    (folder / "data/test/red/link.png").symlink_to("nowhere.png")
    return folder


def last_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_training_reads_every_format(place: Path) -> None:
    assert not (place / "run" / "unreadable.json").exists()


@pytest.mark.parametrize("verb", ["predict", "explain", "inspect", "evaluate"])
def test_bad_files_end_no_verb_and_are_named(
    verb: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All good ones are done, each bad one is named on standard error, and the exit code is 1."""
    images = str(place / "data/test")
    words = {
        "predict": [images, "--out", str(tmp_path / "p.jsonl")],
        "explain": [images, "--out", str(tmp_path / "e"), "--no-faithfulness"],
        "inspect": ["--images", images, "--out", str(tmp_path / "i"), "--count", "99"],
        "evaluate": [str(place / "data"), "--device", "cpu"],
    }[verb]
    capsys.readouterr()
    assert run([verb, str(place / "run"), *words]) == 1
    said = capsys.readouterr()
    assert "broken.jpg: " in said.err and "link.png: " in said.err
    assert "this is no image of a known format" in said.err and "No such file" in said.err
    if verb == "predict":
        rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
        assert [row["error"] is None for row in rows].count(True) == 12
        assert said.out == ""
    if verb == "explain":
        assert len(list((tmp_path / "e").glob("*.figure.png"))) == 12
    if verb == "inspect":
        assert json.loads((tmp_path / "i" / "inspect.json").read_text())["images"] == 12


@pytest.mark.parametrize("verb", ["predict", "explain", "inspect", "evaluate", "data check", "data show"])
def test_formats_and_pixels_are_options_of_every_verb(
    verb: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four of twelve test images are JPEG or PNG; none has 100 pixels or fewer; others are refused."""
    data, images, model = str(place / "data"), str(place / "data/test"), str(place / "run")
    words = {
        "predict": ["predict", model, images],
        "explain": ["explain", model, images, "--out", str(tmp_path), "--no-faithfulness"],
        "inspect": ["inspect", model, "--images", images, "--out", str(tmp_path), "--count", "99"],
        "evaluate": ["evaluate", model, data, "--device", "cpu"],
        "data check": ["data", "check", data, "--max-unreadable", "1"],
        "data show": ["data", "show", data, "--out", str(tmp_path / "grid.png"), "--split", "test"],
    }[verb]
    capsys.readouterr()
    assert run([*words, "--formats", "jpeg,png", "--json"]) == (0 if verb.startswith("data") else 1)
    out = capsys.readouterr().out
    if verb == "predict":
        rows = [json.loads(line) for line in out.splitlines()]
        assert sum(row["error"] is None for row in rows) == 4
        refused = next(row["error"] for row in rows if row["image"].endswith(".tif"))
        assert refused["code"] == "format_not_allowed" and "--formats" in refused["hint"]
    found = json.loads(out.splitlines()[-1])
    count = {"explain": "explained", "inspect": "images", "evaluate": "images"}.get(verb)
    assert count is None or found[count] == 4
    if verb == "data check":
        assert found["modes"] == {"JPEG RGB": 8, "PNG RGB": 8}
    assert run([*words, "--max-pixels", "100"]) == (0 if verb == "data check" else 1)
    assert run([*words, "--formats", "xcf"]) == 2
    assert "choose from: JPEG" in capsys.readouterr().err


def test_refusals_are_counted_by_cause(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hint names an option that training has under that name, and the cure works."""
    words = ["train", str(place / "data"), *SMALL, "--out", str(tmp_path / "run")]
    assert run([*words, "--formats", "jpeg,png"]) == 1
    said = capsys.readouterr().err
    assert "16 of 24 images are unreadable" in said and "4 TIFF" in said and "4 GIF" in said
    assert "--formats" in said and "--max-unreadable" in said
    assert run([*words, "--formats", "jpeg,png,bmp,gif,tiff,avif", "--max-pixels", "399"]) == 1
    said = capsys.readouterr().err
    assert "24 too many pixels" in said and "--max-pixels" in said
    assert run([*words, "--data.max-pixels", "400", "--data.formats", "png", "--max-unreadable", "0.9"]) == 0


def test_few_levels_of_16_bits_are_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """12 bits in 16: data check and training say how many levels are left; the full range needs no remark."""
    for name, most in (("twelve", 4095), ("sixteen", 65_535)):
        for label in ("a", "b"):
            (tmp_path / name / label).mkdir(parents=True)
            for number in range(12):
                values = np.random.default_rng(number).integers(0, most + 1, (32, 32)).astype(np.uint16)
                Image.fromarray(values).save(tmp_path / name / label / f"{number}.png")
    assert run(["data", "check", str(tmp_path / "twelve"), "--json"]) == 0
    (note,) = [note for note in last_json(capsys)["notes"] if "16-bit" in note]
    assert "of 65,536 levels, from " in note and "16 levels are left" in note and "rescale" in note
    assert run(["train", str(tmp_path / "twelve"), *SMALL, "--out", str(tmp_path / "run")]) == 0
    assert "16 levels are left" in " ".join(capsys.readouterr().err.split())
    assert run(["data", "check", str(tmp_path / "sixteen"), "--json"]) == 0
    assert not [note for note in last_json(capsys)["notes"] if "16-bit" in note]
