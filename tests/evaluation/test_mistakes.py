"""The table of images whose label the model contradicts: wrong labels are on top of it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.training.digit_runs import tiny

import tesela as ts
from tesela.cli.main import run as tesela
from tesela.training.run import train


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red and blue images, three of the red ones in the folder of the blue; and a run on them."""
    root = tmp_path_factory.mktemp("mislabelled")
    generator = np.random.default_rng(0)
    for name in ("red", "blue"):
        (root / "data" / name).mkdir(parents=True)
    for channel, name in ((0, "red"), (2, "blue")):
        for number in range(60):
            image = generator.integers(0, 90, (16, 16, 3)).astype(np.uint8)
            image[..., channel] += 120
            wrong = name == "red" and number < 3
            file = f"blue/wrong{number}.png" if wrong else f"{name}/{number}.png"
            Image.fromarray(image).save(root / "data" / file)
    settings = {"data": {"source": str(root / "data"), "subset": None}, "net": {}, "image_size": 16}
    train(tiny(root / "run", epochs=8, accumulate=1, augment={"mixup": 0.0}, ema={"decay": 0.0}, **settings))
    return root


def test_wrong_labels_are_found(place: Path) -> None:
    """Reference: the three files that were put into the wrong folder, over all splits."""
    found: dict[str, dict[str, str]] = {}
    for split in ("train", "val", "test"):
        file = place / f"{split}.csv"
        assert tesela(["evaluate", str(place / "run"), "--split", split, "--mistakes", str(file)]) == 0
        with file.open(newline="", encoding="utf-8") as stream:
            found |= {row["image"]: row for row in csv.DictReader(stream)}
    assert set(found) == {f"blue/wrong{number}.png" for number in range(3)}
    for row in found.values():
        assert (row["label"], row["predicted"]) == ("blue", "red")
        assert float(row["probability"]) > 0.5 > float(row["probability_of_label"])


def test_where_there_is_nothing_to_list(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert tesela(["evaluate", str(place / "run"), "--mistakes", str(place / "wrong.txt")]) == 2
    assert "end the name in .csv" in capfd.readouterr().err
    assert not ts.evaluate(place / "run", mistakes=place / "python.csv")["unreadable"]
    assert (place / "python.csv").exists()


def test_a_name_in_the_table_can_be_explained(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reference: the same file by its whole path, from a folder in which the name says nothing."""
    monkeypatch.chdir(place.parent)
    run, whole = place / "run", place / "data" / "blue" / "wrong0.png"
    assert (
        tesela(["explain", str(run), "blue/wrong0.png", "--target", "blue", "--out", str(place / "m")]) == 0
    )
    assert tesela(["predict", str(run), "blue/wrong0.png"]) == 0
    by_name, by_path = (ts.predict(run, name)[0].scores for name in ("blue/wrong0.png", whole))
    assert by_name == by_path
    assert ts.explain(run, "blue/wrong0.png").map.equal(ts.explain(run, whole).map)
    assert tesela(["explain", str(run), "blue/nowhere.png", "--out", str(place / "n")]) == 2
    for outside in ("../data/blue/wrong0.png", ""):
        assert tesela(["predict", str(run), outside]) == 2
