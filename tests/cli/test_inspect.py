"""``tesela inspect`` through the command line's own entry: page, numbers, where images come from, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tesela.cli.main import run
from tesela.imaging.preprocess import preprocess
from tesela.imaging.spec import ImageSpec
from tesela.inspection.inspect import inspect
from tesela.inspection.look import spread
from tesela.models.bundle import describe, load_bundle, write_bundle
from tesela.models.factory import create_model

SPEC = ImageSpec(height=8, width=8, channels=1, mean=(0.5,), std=(0.5,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a bundle that says it was trained on digits, and three image files."""
    folder = tmp_path_factory.mktemp("inspect")
    model: Any = create_model("vit_nano", num_classes=10, seed=0)
    write_bundle(
        folder / "run" / "bundle", model, describe(model, name="small", labels=list("0123456789"), image=SPEC)
    )
    (folder / "run" / "config.yaml").write_text("data:\n  source: digits\n")
    (folder / "files").mkdir()
    for index in range(3):
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (20, 30), np.uint8)).save(
            folder / "files" / f"{index}.png"
        )
    return folder


def called(*words: object) -> int:
    return run(["inspect", *map(str, words)])


def test_page_numbers_and_arrays(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files of a folder: the arrays equal the Python call's on the same preprocessed images."""
    assert called(folder / "run", "--images", folder / "files", "--out", tmp_path, "--json") == 0
    said = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    model, info = load_bundle(folder / "run" / "bundle")
    expected = inspect(model, torch.from_numpy(preprocess(sorted((folder / "files").iterdir()), info.image)))
    assert expected.distance is not None
    with np.load(tmp_path / "inspect.npz", allow_pickle=False) as arrays:
        np.testing.assert_allclose(arrays["attention_distance"], expected.distance, rtol=1e-5)
        np.testing.assert_allclose(arrays["position_similarity"].shape, (1, 4, 4, 4, 4))
        assert str(arrays["position_kind"]) == "learned"
    assert said["images"] == 3
    assert (
        said["attention_distance"]
        == json.loads((tmp_path / "inspect.json").read_text())["attention_distance"]
    )
    assert said["filters"]["explained_variance"] == pytest.approx(
        expected.filters.variance.tolist(), abs=1e-4
    )
    assert "Inside small" in Path(said["page"]).read_text()


def test_a_run_brings_its_own_test_images(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --images: the data the run names; a bundle alone has none, which is said."""
    assert called(folder / "run", "--count", 5, "--out", tmp_path / "a", "--json") == 0
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["images"] == 5
    assert called(folder / "run" / "bundle", "--out", tmp_path / "b", "--json") == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out.strip().splitlines()[-1])
    assert found["images"] == 0
    assert found["attention_distance"] is None
    assert "give --images" in captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere"),
        (["{run}", "--images", "missing"], "missing"),
        (["{run}", "--count", "0"], "count"),
    ],
)
def test_errors_are_two_lines(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """Usage errors, and no file."""
    filled = [word.replace("{run}", str(folder / "run")) for word in words]
    assert called(*filled, "--out", tmp_path / "out") == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.strip().splitlines()) == 2
    assert not (tmp_path / "out").exists()


def test_images_are_spread_evenly() -> None:
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, 8) == [0, 1, 2]
    assert spread(0, 8) == []
