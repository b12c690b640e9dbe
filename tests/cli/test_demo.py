"""``tesela demo`` from one end to the other with a tiny budget: what it says, writes and returns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tesela.cli.main import run
from tesela.cli.verbs.demo import write_examples
from tesela.data.open import open_source


def test_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reference: the files it names exist and agree with its JSON.

    A second call finds the run complete and says the same.
    """
    out = tmp_path / "demo"
    words = ["demo", "--out", str(out), "--epochs", "2", "--json"]
    assert run(words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["accuracy"] == json.loads((out / "evaluation.json").read_text())["accuracy"] > 0.15
    assert {"accuracy", "top5", "parameters", "seconds", "images_per_second", "run"} <= set(answer)
    page = Path(answer["report"]).read_text(encoding="utf-8")
    assert "Explanations" in page and "http" not in page
    assert len(answer["predictions"]) == 5
    assert all(
        Path(found["image"]).is_file() and found["label"] in "0123456789" for found in answer["predictions"]
    )
    with Image.open(answer["explanation"]) as picture:
        assert picture.format == "PNG" and min(picture.size) >= 64
        assert np.asarray(picture.convert("RGB")).std() > 1
    assert run(words) == 0
    again = json.loads(capsys.readouterr().out)
    assert again == answer


def test_text_names_accuracy_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reference: the accuracy of the JSON file and the report's path, as they are printed for people."""
    out = tmp_path / "demo"
    assert run(["demo", "--out", str(out), "--epochs", "1"]) == 0
    shown = capsys.readouterr().out
    accuracy = json.loads((out / "evaluation.json").read_text())["accuracy"]
    assert f"{accuracy * 100:.2f} % on held-out digits" in shown
    assert str(out / "report.html") in shown.replace("\n", "")


def test_examples_are_named_after_their_class(tmp_path: Path) -> None:
    """Reference: each file's pixels are found among the test images of the class in its name."""
    items = open_source("digits").splits["test"]
    written = write_examples(tmp_path, count=10)
    assert [path.name for path in written] == [f"digit-{digit}.png" for digit in range(10)]
    for path in written:
        with Image.open(path) as image:
            pixels = np.asarray(image)
        twins = [index for index in range(len(items)) if (items.read(index)[..., 0] == pixels).all()]
        assert int(path.stem[-1]) in {int(items.targets[index]) for index in twins}
