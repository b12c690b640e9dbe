"""``tesela explain`` through the command line's own entry: files, JSON, errors and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tesela.attribution.explain import explain
from tesela.attribution.quality.faithfulness import measure_faithfulness
from tesela.cli.main import run
from tesela.cli.verbs.explain import split
from tesela.imaging.preprocess import preprocess
from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import describe, load_bundle, write_bundle
from tesela.models.factory import create_model

SPEC = ImageSpec(height=16, width=24, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a bundle, and images: two of the same name in different folders, one damaged."""
    folder = tmp_path_factory.mktemp("explain")
    model: Any = create_model(
        "vit_ti16", num_classes=3, image_size=(16, 24), seed=0, width=16, depth=2, heads=2, patch_size=(4, 4)
    )
    torch.nn.init.normal_(model.head.linear.weight, generator=torch.Generator().manual_seed(0))
    write_bundle(
        folder / "run" / "bundle",
        model,
        describe(model, name="small", labels=["cat", "dog", "hot/dog"], image=SPEC),
    )
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


def test_files_and_json_for_each_image_and_class(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two readable images x two classes: four pictures, two NPZ; numbers equal the Python API's.

    The damaged one is reported, and the exit code says so.
    """
    assert (
        called(
            folder / "run",
            folder / "a",
            folder / "b",
            "--target",
            "dog",
            "--target",
            "hot/dog",
            "--out",
            tmp_path,
            "--json",
        )
        == 1
    )
    result = last_json(capsys)
    assert (result["explained"], result["unreadable"]) == (2, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "one-2.class2.png",
        "one-2.dog.png",
        "one-2.figure.png",
        "one-2.npz",
        "one.class2.png",
        "one.dog.png",
        "one.figure.png",
        "one.npz",
    ]
    first, damaged, _ = result["images"]
    assert damaged["error"]["code"] == "not_an_image"
    assert [one["label"] for one in first["classes"]] == ["dog", "hot/dog"]
    model, info = load_bundle(folder / "run" / "bundle")
    expected = explain(
        model, torch.from_numpy(preprocess([folder / "a" / "one.png"], info.image)), target=[1, 2]
    )
    with np.load(tmp_path / "one.npz", allow_pickle=False) as arrays:
        np.testing.assert_allclose(arrays["tokens"], expected.tokens[0].numpy(), atol=1e-6)
        assert arrays["map"].shape == (2, 40, 50)
        assert arrays["labels"].tolist() == ["dog", "hot/dog"]
        for place, one in enumerate(first["classes"]):
            assert one["peak"] == list(np.unravel_index(arrays["map"][place].argmax(), (40, 50)))
            assert one["probability"] == pytest.approx(float(expected.probabilities[0, place]), abs=1e-6)
            assert one["prefix_mass"] == pytest.approx(float(expected.prefix_mass[0, place]), abs=1e-6)
    with Image.open(tmp_path / "one.dog.png") as picture:
        assert picture.size == (50, 40)


def test_the_predicted_class_and_the_options(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
        (("--target", "dog", "--contrast", "cat"), {"target": "dog", "contrast": "cat"}),
        (
            ("--method", "attention", "--layer", "0", "--head", "1"),
            {"method": "attention", "layer": 0, "head": 1},
        ),
    ):
        assert (
            called(folder / "run" / "bundle", folder / "b" / "one.png", *words, "--out", tmp_path, "--json")
            == 0
        )
        row = last_json(capsys)["images"][0]
        expected = explain(model, image, **options)
        assert row["classes"][0]["index"] == int(expected.targets[0, 0])
        assert row["method"] == expected.method
        with np.load(tmp_path / "one.npz", allow_pickle=False) as arrays:
            np.testing.assert_allclose(arrays["tokens"], expected.tokens[0].numpy(), atol=1e-6)


def test_methods_beside_one_another_with_their_figures(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two methods x two classes in one call.

    Files of each, numbers as ``explain`` and ``measure`` give them in Python.
    """
    words = ("--method", "rollout,gradient_input", "--target", "dog,cat", "--out", tmp_path, "--json")
    assert called(folder / "run", folder / "a" / "one.png", *words) == 0
    captured = capsys.readouterr()
    row = json.loads(captured.out.strip().splitlines()[-1])["images"][0]
    assert [group["method"] for group in row["methods"]] == ["rollout", "gradient_input"]
    model, info = load_bundle(folder / "run" / "bundle")
    image = torch.from_numpy(preprocess([folder / "a" / "one.png"], info.image))
    for group in row["methods"]:
        found = explain(model, image, target=[1, 0], method=group["method"])
        expected = measure_faithfulness(model, image, found)
        assert [one["label"] for one in group["classes"]] == ["dog", "cat"]
        with np.load(group["npz"], allow_pickle=False) as arrays:
            np.testing.assert_allclose(arrays["deletion"], expected.deletion[0].numpy(), atol=1e-6)
            np.testing.assert_allclose(arrays["percentile"], expected.percentile[0].numpy(), atol=1e-6)
            np.testing.assert_allclose(arrays["randomised_weights"], expected.weights[0].numpy(), atol=1e-5)
            assert str(arrays["patches_are"]) == "dropped"
        for place, one in enumerate(group["classes"]):
            assert one["faithfulness"]["insertion"] == pytest.approx(
                float(expected.insertion[0, place]), abs=1e-5
            )
            assert one["faithfulness"]["faithful"] == bool(expected.faithful[0, place])
            with Image.open(one["png"]) as picture:
                assert picture.size == (50, 40)
    failed = sum(not one["faithfulness"]["faithful"] for group in row["methods"] for one in group["classes"])
    assert (f"not faithful: {failed} of 4 maps" in captured.err) == bool(failed)
    with Image.open(row["figure"]) as figure:
        assert figure.width > 3 * 288
        assert figure.height > 2 * 230


def test_without_measuring(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No figures in files or JSON."""
    assert (
        called(folder / "run", folder / "a" / "one.png", "--no-faithfulness", "--out", tmp_path, "--json")
        == 0
    )
    assert "faithfulness" not in last_json(capsys)["images"][0]["classes"][0]
    with np.load(tmp_path / "one.npz", allow_pickle=False) as arrays:
        assert "deletion" not in arrays.files


def test_the_map_turns_with_the_photograph(folder: Path, tmp_path: Path) -> None:
    """A photograph that its EXIF says is turned.

    The overlay has the size and orientation in which it is shown.
    """
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8))
    marks = Image.Exif()
    marks[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=marks)
    assert (
        called(
            folder / "run", tmp_path / "turned.jpg", "--target", "dog", "--no-faithfulness", "--out", tmp_path
        )
        == 0
    )
    with Image.open(tmp_path / "turned.dog.png") as shown:
        assert shown.size == (40, 60)
    with np.load(tmp_path / "turned.npz", allow_pickle=False) as arrays:
        assert arrays["map"].shape == (1, 60, 40)


def test_a_label_may_hold_a_comma() -> None:
    """Known words stay whole; others are taken apart, each once."""
    assert split(["cat, tabby", "dog,fox", "dog"], ["cat, tabby"]) == ["cat, tabby", "dog", "fox"]


@pytest.mark.parametrize(
    ("words", "code", "message", "hint"),
    [
        (["{run}", "{a}", "--target", "dgo"], 2, "unknown class 'dgo'", "dog"),
        (["{run}", "{a}", "--target", "3"], 2, "no class '3'", "cat"),
        (["{run}", "{a}", "--method", "rolout"], 2, "unknown explanation method", "rollout"),
        (
            ["{run}", "{a}", "--method", "rollout,gradint_input"],
            2,
            "unknown explanation method",
            "gradient_input",
        ),
        (["{run}", "{a}", "--contrast", "dgo"], 2, "unknown class 'dgo'", "dog"),
        (["{run}", "{a}", "--discard", "1"], 2, "discard", "up to"),
        (["{run}", "{a}", "--random-maps", "3"], 2, "random_maps", "20"),
        (["{run}", "missing.png"], 2, "missing.png", "path"),
        (["{run}"], 2, "image", ""),
        (["nowhere", "{a}"], 2, "nowhere", "path"),
        (["{run}", "{a}/two.jpg"], 1, "", ""),
    ],
)
def test_errors_are_two_lines_with_an_exit_code(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
    hint: str,
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
