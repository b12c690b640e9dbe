"""``tesela data``: the report against a folder whose content is known, and the verbs as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tesela.cli.main import run
from tesela.data.check import check
from tesela.data.open import open_source
from tesela.data.show import chosen, grid
from tesela.data.statistics import pixel_statistics
from tesela.imaging.spec import ImageSpec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """30 + 20 training images, one copied into test, one broken, one JPEG, one stray file."""
    random = np.random.default_rng(0)
    root = tmp_path / "data"
    for place, count in (("train/a", 30), ("train/b", 20), ("test/a", 3), ("test/b", 3)):
        (root / place).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(random.integers(0, 256, (8, 6, 3), np.uint8)).save(
                root / place / f"{number:02d}.png"
            )
    (root / "test/a/copy.png").write_bytes((root / "train/a/07.png").read_bytes())
    (root / "train/b/03.png").write_bytes(b"no image")
    Image.new("L", (5, 9), 80).save(root / "train/b/grey.jpg")
    (root / "train/notes.txt").write_text("x")
    return root


def last_line(text: str) -> dict[str, object]:
    return dict(json.loads(text.strip().splitlines()[-1]))


def test_report_of_a_known_folder(folder: Path) -> None:
    report = check(open_source(folder))
    assert report.images == 58
    assert report.counts["test"] == [4, 3]
    assert [bad.name for found in report.unreadable.values() for bad in found] == ["train/b/03.png"]
    assert {(twin.first, twin.second) for twin in report.duplicates} == {
        ("train/a/07.png", "test/a/copy.png")
    }
    assert report.sizes == {(8, 6): 56, (9, 5): 1}
    assert report.modes == {"PNG RGB": 56, "JPEG L": 1}
    assert report.ignored == ("train/notes.txt",)
    assert sum("two splits" in note for note in report.notes) == 1


def test_check_verb(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", str(folder), "--max-unreadable", "0.5", "--json"]) == 0
    shown = capsys.readouterr()
    answer = last_line(shown.out)
    assert len(shown.out.strip().splitlines()) == 1
    assert answer["accepted"] is True
    assert answer["splits"] == {"train": 46, "val": 5, "test": 7}
    assert "03.png" in str(answer["unreadable"])
    assert run(["data", "check", str(folder), "--max-unreadable", "0.5"]) == 0
    assert "03.png" in capsys.readouterr().out
    assert run(["data", "check", str(folder), "--json"]) == 1
    shown = capsys.readouterr()
    assert last_line(shown.out)["accepted"] is False
    assert shown.err.strip().splitlines()[-1].startswith("hint: ")
    assert run(["data", "check", str(folder / "missing")]) == 2


def test_split_verb_writes_what_open_reads(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "elsewhere" / "split.csv"
    assert run(["data", "split", str(folder), "--out", str(out), "--json"]) == 0
    assert last_line(capsys.readouterr().out)["splits"] == {"train": 46, "val": 5, "test": 7}
    assert run(["data", "split", str(folder), "--out", str(out)]) == 0
    assert "{" not in capsys.readouterr().out
    again = open_source(out)
    assert {split: len(items) for split, items in again.splits.items()} == {"train": 46, "val": 5, "test": 7}
    assert again.splits["test"].read(0).shape == (8, 6, 3)


def test_show_verb_draws_the_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first tile of the picture, shrunk back, is the first image."""
    out = tmp_path / "grid.png"
    assert run(["data", "show", "digits", "--out", str(out), "--count", "20", "--json"]) == 0
    assert last_line(capsys.readouterr().out)["images"] == 20
    items = open_source("digits").splits["train"]
    rows = chosen(items, 20)
    assert sorted(items.targets[rows].tolist()) == sorted(list(range(10)) * 2)
    tile = np.asarray(Image.open(out).convert("L"))[4 + 14 :, 4:][6:96:12, 6:96:12]
    assert np.array_equal(tile, items.read(rows[0])[..., 0])
    assert run(["data", "show", "digits", "--out", str(out), "--augment", "rotation=20,erasing=1"]) == 0
    assert not np.array_equal(np.asarray(Image.open(out).convert("L"))[18:, 4:][6:96:12, 6:96:12], tile)
    assert run(["data", "show", "digits", "--out", str(out), "--augment", "rotaton=20"]) == 2
    assert "did you mean rotation" in capsys.readouterr().err


def test_an_unreadable_image_is_a_grey_tile(folder: Path) -> None:
    items = open_source(folder).splits["train"]
    spec = ImageSpec(height=8, width=6, channels=3, mean=(0.5,) * 3, std=(1.0,) * 3)
    assert grid(items, ("a", "b"), spec, count=len(items)).size[0] > 100


def test_statistics_equal_numpys() -> None:
    items = open_source("digits").splits["train"]
    everything = np.stack([items.read(i) for i in range(len(items))]) / 255
    found = pixel_statistics(items, channels=1)
    assert found.size == (8, 8)
    assert abs(found.mean[0] - everything.mean()) < 1e-4
    assert abs(found.std[0] - everything.std()) < 1e-4
