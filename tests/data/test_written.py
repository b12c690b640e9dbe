"""What tesela wrote into a folder of photographs is told from photographs by its content."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.pictures import make_picture, make_pictures

from tesela.cli.main import run
from tesela.data.open import find_source
from tesela.data.targets import label_counts

SMALL = ["--model", "vit_nano", "--image-size", "8", "--precision", "fp32", "--epochs", "1"]
COUNTS = {"train": [12, 12]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photographs in which a model was trained, explained, inspected and asked."""
    root = make_pictures(tmp_path_factory.mktemp("photos"), {"blue": 12, "red": 12})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert run(["train", ".", *SMALL, "--out", "runs/one"]) == 0
        image = "red/000.png"
        assert run(["explain", "runs/one", image, "--no-faithfulness"]) == 0
        assert run(["explain", "runs/one", image, "--no-faithfulness", "--out", "red"]) == 0
        assert run(["inspect", "runs/one"]) == 0
        assert run(["predict", "runs/one", "blue", "--out", "found.parquet"]) == 0
        assert run(["predict", "runs/one", "blue", "--out", "found.csv"]) == 0
    return root


def test_nothing_that_was_written_is_an_image(trained: Path) -> None:
    pictures = {path.relative_to(trained).as_posix() for path in trained.rglob("*.figure.png")}
    assert pictures == {"explanations/000.figure.png", "red/000.figure.png"}
    source = find_source(trained)
    assert source.labels == ("blue", "red")
    assert label_counts(source) == COUNTS
    assert "written by tesela, so no data: explanations, inspection, runs/one" in source.notes


def test_names_do_not_matter(trained: Path, tmp_path: Path) -> None:
    """Folders under other names are known too; folders of these names with photographs are classes."""
    root = tmp_path / "photos"
    shutil.copytree(trained, root)
    (root / "explanations").rename(root / "pictures")
    (root / "runs/one").rename(root / "best")
    shutil.rmtree(root / "runs")
    assert find_source(root).labels == ("blue", "red")
    make_pictures(root, {"runs": 3, "explanations": 2})
    assert label_counts(find_source(root)) == {"train": [12, 2, 12, 3]}


def test_photographs_named_like_explanations_stay(tmp_path: Path) -> None:
    """Only what arrays of an explanation name is left out; other files of that form are photographs."""
    root = make_pictures(tmp_path, {"blue": 3, "red": 3})
    heat, labels, targets = np.zeros(1), np.array(["red"]), np.array([1])
    np.savez(root / "red/a.npz", map=heat, tokens=heat, labels=labels, targets=targets)
    for name in ("a.png", "a.figure.png", "a.red.png", "a.1.png", "a.class1.png", "b.red.png"):
        make_picture(root / "red" / name, len(name))
    items = find_source(root).splits["train"]
    names = {items.name(row) for row in range(len(items)) if items.targets[row] == 1}
    assert names == {f"red/{name}.png" for name in ("000", "001", "002", "a", "a.1", "b.red")}
    np.savez(root / "red/a.npz", other=np.zeros(1))
    assert label_counts(find_source(root)) == {"train": [3, 9]}


def test_masks_that_were_predicted_are_no_class(tmp_path: Path) -> None:
    root = make_pictures(tmp_path, {"blue": 3, "red": 3, "answers": 3, "answers/overlays": 3})
    row = '{"image": "blue/000.png", "height": 8, "width": 6, "areas": []}\n'
    (root / "answers/results.jsonl").write_text(row)
    source = find_source(root)
    assert source.labels == ("blue", "red") and "answers" in source.notes[0]
    (root / "answers/results.jsonl").write_text('{"name": "notes of mine"}\n')
    assert find_source(root).labels == ("answers", "blue", "red")


def test_splits_with_a_run_beside_them(trained: Path, tmp_path: Path) -> None:
    root = make_pictures(tmp_path, {f"{split}/{name}": 3 for split in ("train", "test") for name in "ab"})
    shutil.copytree(trained / "runs", root / "runs")
    shutil.copytree(trained / "explanations", root / "train/a/explanations")
    assert label_counts(find_source(root)) == {"train": [3, 3], "test": [3, 3]}
