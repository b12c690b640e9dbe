"""``tesela explain`` through the command line's own entry: files, JSON, errors and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tesela.cli.main import run
from tesela.explain.explanation import explain
from tesela.imaging.preprocess import preprocess
from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import describe, load_bundle, write_bundle
from tesela.models.factory import create_model

SPEC = ImageSpec(height=16, width=24, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a bundle, and images: two of the same name in different folders, one damaged."""
    folder = tmp_path_factory.mktemp("explain")
    model = create_model("vit_ti16", num_classes=3, image_size=(16, 24), seed=0, width=16, depth=2, heads=2, patch_size=(4, 4))
    torch.nn.init.normal_(model.head.linear.weight, generator=torch.Generator().manual_seed(0))
    write_bundle(folder / "run" / "bundle", model, describe(model, name="small", labels=["cat", "dog", "hot/dog"], image=SPEC))
    draw = np.random.default_rng(0)
    for name in ("a/one.png", "b/one.png"):
        (folder / name).parent.mkdir()
        Image.fromarray(draw.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / name)
    (folder / "a" / "two.jpg").write_bytes(b"no image")
    return folder


def called(*words: object) -> int:
    """The exit code of ``tesela explain`` with these words."""
    return run(["explain", *map(str, words)])


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The object in the last line of standard output."""
    value: dict[str, Any] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    return value


def test_files_and_json_for_each_image_and_class(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two readable images x two classes: four pictures, two NPZ; numbers equal the Python API's; the damaged one is reported."""
    assert called(folder / "run", folder / "a", folder / "b", "--target", "dog", "--target", "hot/dog", "--out", tmp_path, "--json") == 0
    result = last_json(capsys)
    assert (result["explained"], result["unreadable"]) == (2, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "one-2.class2.png",
        "one-2.dog.png",
        "one-2.npz",
        "one.class2.png",
        "one.dog.png",
        "one.npz",
    ]
    first, damaged, _ = result["images"]
    assert damaged["error"]["code"] == "not_an_image"
    assert [one["label"] for one in first["classes"]] == ["dog", "hot/dog"]
    model, info = load_bundle(folder / "run" / "bundle")
    expected = explain(model, torch.from_numpy(preprocess([folder / "a" / "one.png"], info.image)), target=[1, 2])
    with np.load(tmp_path / "one.npz", allow_pickle=False) as arrays:
        np.testing.assert_allclose(arrays["tokens"], expected.tokens[0].numpy(), atol=1e-6)
        assert arrays["map"].shape == (2, 40, 50)
        assert arrays["labels"].tolist() == ["dog", "hot/dog"]
        for place, one in enumerate(first["classes"]):
            assert one["peak"] == list(np.unravel_index(arrays["map"][place].argmax(), (40, 50)))
            assert one["probability"] == pytest.approx(float(expected.probabilities[0, place]), abs=1e-6)
            assert one["prefix_mass"] == pytest.approx(float(expected.prefix_mass[0, place]), abs=1e-6)
    with Image.open(tmp_path / "one.dog.png") as picture:
        assert picture.size == (250, 200)


def test_the_predicted_class_and_the_options(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a target the predicted class; each option changes the numbers as it does in Python."""
    model, info = load_bundle(folder / "run" / "bundle")
    image = torch.from_numpy(preprocess([folder / "b" / "one.png"], info.image))
    for words, options in (
        ((), {}),
        (("--method", "rollout"), {"method": "rollout"}),
        (
            ("--method", "rollout", "--head-fusion", "max", "--discard", "0.5", "--residual", "0.8"),
            {"method": "rollout", "head_fusion": "max", "discard": 0.5, "residual": 0.8},
        ),
    ):
        assert called(folder / "run" / "bundle", folder / "b" / "one.png", *words, "--out", tmp_path, "--json") == 0
        row = last_json(capsys)["images"][0]
        expected = explain(model, image, **options)
        assert row["classes"][0]["index"] == int(expected.targets[0, 0])
        assert row["method"] == expected.method
        with np.load(tmp_path / "one.npz", allow_pickle=False) as arrays:
            np.testing.assert_allclose(arrays["tokens"], expected.tokens[0].numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("words", "code", "message", "hint"),
    [
        (["{run}", "{a}", "--target", "dgo"], 2, "unknown class 'dgo'", "dog"),
        (["{run}", "{a}", "--target", "3"], 2, "no class '3'", "cat"),
        (["{run}", "{a}", "--method", "rolout"], 2, "unknown explanation method", "rollout"),
        (["{run}", "{a}", "--discard", "1"], 2, "discard", "up to"),
        (["{run}", "missing.png"], 2, "missing.png", "path"),
        (["{run}"], 2, "image", ""),
        (["nowhere", "{a}"], 2, "nowhere", "path"),
        (["{run}", "{a}/two.jpg"], 1, "", ""),
    ],
)
def test_errors_are_two_lines_with_an_exit_code(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str, hint: str
) -> None:
    """What is wrong, what to do; nothing is written."""
    filled = [word.replace("{run}", str(folder / "run")).replace("{a}", str(folder / "a")) for word in words]
    assert called(*filled, "--out", tmp_path / "out") == code
    shown = capsys.readouterr().err
    assert message in shown
    if code == 2:
        assert len(shown.strip().splitlines()) == 2
        assert hint in shown.splitlines()[1]
    assert not (tmp_path / "out").exists()
