"""Models and images in every form that people hold them in give the same answers."""

from __future__ import annotations

import io
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.runtime.bundles import LABELS, digits_onnx, digits_run, held_out

import tesela as ts
from tesela.core.errors import DataError, ImageError, UsageError
from tesela.imaging.preprocess import preprocess

FILES, TARGETS = held_out(6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("images")
    for number, content in enumerate(FILES):
        (place / f"{number}.png").write_bytes(content)
    return place


def pixels(number: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(FILES[number])))


def probabilities(results: list[Any]) -> list[list[float]]:
    return [[score.probability for score in sorted(one.scores, key=lambda s: s.index)] for one in results]


def test_one_image_in_every_form(folder: Path) -> None:
    """A path as text or Path, bytes, Pillow's image, grey and RGB arrays: the same answer, in a list."""
    path, grey = folder / "2.png", pixels(2)
    rgba = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    forms: list[Any] = [
        *(path, str(path), FILES[2], bytearray(FILES[2]), Image.open(path), Image.open(path).convert("RGB")),
        *(grey, grey[:, :, None], np.repeat(grey[:, :, None], 3, axis=2), rgba, [path], (path,)),
    ]
    expected = probabilities(ts.predict(digits_run(), [path], top=10))
    for form in forms:
        results = ts.predict(digits_run(), form, top=10)
        assert isinstance(results, list) and len(results) == 1
        np.testing.assert_allclose(probabilities(results), expected, atol=1e-6)


def test_many_images_in_every_form(folder: Path) -> None:
    expected = probabilities(ts.predict(digits_run(), FILES, top=10))
    stack = np.stack([pixels(number) for number in range(6)])
    mixed = [folder / "0.png", FILES[1], Image.open(folder / "2.png"), *stack[3:]]
    for form in (folder, str(folder / "*.png"), stack[..., None], mixed, iter(mixed)):
        found = probabilities(ts.predict(digits_run(), form, top=10))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_turned_photograph_is_the_same_from_pillow() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(pixels(3)).save(stream, "PNG", exif=exif)
    opened = ts.predict(digits_run(), Image.open(stream), top=10)
    np.testing.assert_allclose(
        probabilities(opened), probabilities(ts.predict(digits_run(), stream.getvalue(), top=10)), atol=1e-6
    )


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8), np.float32),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((8,), np.uint8),
        np.zeros((8, 8), np.int64),
    ],
)
def test_arrays_that_are_no_images_are_refused(array: np.ndarray) -> None:
    with pytest.raises(UsageError, match="array of"):
        ts.predict(digits_run(), array)
    with pytest.raises(UsageError, match="is no image"):
        ts.predict(digits_run(), 5)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="is no image"):
        preprocess([array], ts.load(digits_run()).info.image)


def test_a_loaded_model_predicts_like_its_bundle_and_stays_as_it_was() -> None:
    model = ts.load(digits_run())
    model.train()
    found = probabilities(ts.predict(model, FILES, top=10))
    assert model.training and all(module.training for module in model.modules())
    np.testing.assert_allclose(found, probabilities(ts.predict(digits_run(), FILES, top=10)), atol=1e-5)
    with pytest.raises(UsageError, match="does not say how its images are prepared"):
        ts.predict(ts.create_model("vit_nano"), FILES)


def test_explain_takes_runs_and_files(folder: Path) -> None:
    model = ts.load(digits_run())
    tensor = torch.from_numpy(preprocess(FILES, model.info.image))
    expected = ts.explain(model, tensor, target="7")
    for source in (digits_run(), str(digits_run()), model):
        found = ts.explain(source, folder, target="7")
        assert torch.allclose(found.map, expected.map, atol=1e-6)
    (folder / "broken.jpg").write_bytes(b"<html>")
    try:
        with pytest.raises(ImageError, match=r"broken\.jpg: this is no image"):
            ts.explain(model, folder)
    finally:
        (folder / "broken.jpg").unlink()


def test_evaluate_takes_models_and_arrays() -> None:
    """Accuracy by hand, over the predictions; labels and class numbers mean the same."""
    images = np.stack([pixels(number) for number in range(6)])
    hits = [
        one.best.index == target for one, target in zip(ts.predict(digits_run(), FILES), TARGETS, strict=True)
    ]
    model = ts.load(digits_run())
    labels = [LABELS[target] for target in TARGETS]
    for source in (digits_run(), model):
        for targets in (np.array(TARGETS), labels):
            scores = ts.evaluate(source, (images, targets), device="cpu")
            assert (scores["accuracy"], scores["images"]) == (pytest.approx(np.mean(hits)), 6)
            assert scores["folder"] is None
    with pytest.raises(UsageError, match="no class 10"):
        ts.evaluate(model, (images, [10] * 6))
    with pytest.raises(UsageError, match="does not say what it was trained on"):
        ts.evaluate(model)


def test_inspect_takes_models_and_images(folder: Path) -> None:
    expected = ts.inspect(digits_run(), folder)
    for source, images in ((ts.load(digits_run()), FILES), (digits_run(), list(folder.iterdir()))):
        found = ts.inspect(source, images)
        assert found.images == expected.images == 6
        np.testing.assert_allclose(
            np.sort(found.arrays()["attention_distance"]),
            np.sort(expected.arrays()["attention_distance"]),
            rtol=1e-4,
        )


def test_bench_takes_names_runs_and_models() -> None:
    for source in (digits_run(), ts.load(digits_run()), "vit_nano"):
        found = ts.bench(source, batch=2, seconds=0.05, threads=1)
        assert {row["batch"] for row in found["results"]} == {2}
        fp32 = next(row for row in found["results"] if row["precision"] == "fp32")
        assert fp32["images_per_second"] == pytest.approx(2000 / fp32["milliseconds"])
        assert found["flops"] > 0
    with pytest.raises(UsageError, match="batch sizes"):
        ts.bench("vit_nano", batch=0)


def test_models_are_those_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    from tesela.cli.main import run

    assert run(["models", "vit_s*", "--json"]) == 0
    assert ts.models("vit_s*") == json.loads(capsys.readouterr().out.splitlines()[-1])["models"]
    code = "import tesela as ts; first = ts.models('vit_nano'); import tesela.models.catalog; "
    code += "assert first == ts.models('vit_nano') and len(first) == 1"
    subprocess.run([sys.executable, "-c", code], check=True)
    model = ts.create_model("vit_nano")
    (row,) = ts.models("vit_nano")
    assert row["parameters"] == sum(parameter.numel() for parameter in model.parameters())


def test_hints_are_in_tracebacks_and_survive_processes() -> None:
    import pickle

    try:
        ts.load("no/such/run")
    except UsageError as error:
        shown = "".join(traceback.format_exception(error))
        assert f"hint: {error.hint}" in shown
        assert "hint" not in str(error)
        again = pickle.loads(pickle.dumps(error))
        assert "".join(traceback.format_exception(again)).count(f"hint: {error.hint}") == 1


def test_an_exported_graph_takes_the_same_images() -> None:
    found = probabilities(ts.predict(digits_onnx(), Image.open(io.BytesIO(FILES[0])), top=10))
    np.testing.assert_allclose(found, probabilities(ts.predict(digits_run(), FILES[0], top=10)), atol=1e-4)
