"""Training on images of one to four channels: the bundle, and what every verb makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.training.digit_runs import tiny

import tesela as ts
from tesela.cli.main import run
from tesela.core.errors import ConfigError
from tesela.training.run import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose class only alpha tells."""
    root, generator = tmp_path_factory.mktemp("alpha"), np.random.default_rng(0)
    for number in range(80):
        pixels = generator.integers(0, 256, (8, 8, 4)).astype(np.uint8)
        pixels[..., 3] = 230 if number % 2 else 60
        file = root / "ab"[number % 2] / f"{number:02d}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(file)
    return root


def trained(folder: Path, out: Path, channels: int, **changes: Any) -> Path:
    data = {"source": str(folder), "channels": channels, "workers": 0, "subset": None}
    train(tiny(out, data=data, augment={"crop_padding": 1, "color_jitter": 0.2}, epochs=6, **changes))
    return out


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_number_of_channels(folder: Path, tmp_path: Path, channels: int) -> None:
    """Predictions of files equal the network's of the pixels by hand; with alpha the class is learnt."""
    model = ts.load(trained(folder, tmp_path / "run", channels))
    spec = model.info.image
    assert (spec.channels, model.config.channels, len(spec.mean)) == (channels, channels, channels)
    files = sorted(folder.glob("*/*.png"))[::7]
    mode = {1: "", 2: "LA", 3: "", 4: "RGBA"}[channels]
    answers = ts.predict(tmp_path / "run", files)
    hits = 0
    for file, answer in zip(files, answers, strict=True):
        hits += answer.scores[0].label == file.parent.name
        if not mode:
            continue
        pixels = np.asarray(Image.open(file).convert(mode)).astype(np.float32) / 255
        batch = (pixels - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
        with torch.no_grad():
            logits = model(torch.from_numpy(batch.astype(np.float32)).permute(2, 0, 1)[None])
        wanted = torch.softmax(logits[0].double(), 0)
        assert abs(answer.scores[0].probability - float(wanted.max())) < 0.01
    if channels in (2, 4):
        assert hits == len(files)


def test_all_verbs_take_four(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Evaluation, explanation, inspection, exports that read back, and arrays with alpha."""
    out = str(trained(folder, tmp_path / "run", 4, report=True))
    file = next(folder.glob("b/*.png"))
    for words in (
        ["evaluate", out, str(folder)],
        ["explain", out, str(file), "--out", str(tmp_path / "maps")],
        ["inspect", out, "--out", str(tmp_path / "inside")],
        ["export", out, "--to", "hf"],
        ["export", out, "--to", "onnx"],
    ):
        assert run(words) == 0, (words, capsys.readouterr().err)
    spec = json.loads((tmp_path / "run/hf/preprocessor_config.json").read_text())
    assert len(spec["image_mean"]) == 4
    (by_file,) = ts.predict(out, file)
    (by_array,) = ts.predict(out, np.asarray(Image.open(file)))
    (by_image,) = ts.predict(out, Image.open(file))
    (back,) = ts.predict(tmp_path / "run/hf", file)
    assert by_file.scores == by_array.scores == by_image.scores
    assert (back.scores[0].label, by_file.scores[0].label) == ("b", "b")


def test_other_channels_than_those_of_the_start_are_refused(folder: Path, tmp_path: Path) -> None:
    start = trained(folder, tmp_path / "start", 4)
    with pytest.raises(ConfigError, match=r"sees 4 channels, not the 3 of data\.channels"):
        trained(folder, tmp_path / "next", 3, **{"from": str(start), "model": "auto", "net": {}})
    with pytest.raises(ConfigError, match="ImageNet's statistics are of 1 or 3 channels"):
        trained(folder, tmp_path / "other", 4, normalize="imagenet")


def test_a_network_of_six_channels_takes_arrays(tmp_path: Path) -> None:
    """As a bundle from Python; its own number of channels alone, and no file."""
    from tesela.imaging.spec import ImageSpec
    from tesela.models.bundle import describe, write_bundle

    model = ts.create_model("vit_nano", num_classes=2, channels=6, seed=0, width=16, depth=1, heads=2).eval()
    torch.nn.init.normal_(model.head.linear.weight, generator=torch.Generator().manual_seed(0))  # type: ignore[union-attr, arg-type]
    spec = ImageSpec(height=8, width=8, channels=6, mean=(0.4,) * 6, std=(0.3,) * 6)
    write_bundle(tmp_path / "b", model, describe(model, name="six", labels=["a", "b"], image=spec))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 6)).astype(np.uint8)
    batch = torch.from_numpy((pixels.transpose(0, 3, 1, 2) / 255 - 0.4).astype(np.float32) / 0.3)
    with torch.no_grad():
        wanted = model(batch).softmax(1).max(1)
    answers = ts.predict(tmp_path / "b", pixels)
    assert [answer.scores[0].index for answer in answers] == wanted.indices.tolist()
    for answer, probability in zip(answers, wanted.values.tolist(), strict=True):
        assert abs(answer.scores[0].probability - probability) < 1e-4
    right = ts.evaluate(tmp_path / "b", (pixels, wanted.indices.numpy()))
    assert right["accuracy"] == 1.0
    Image.fromarray(pixels[0, ..., :3]).save(tmp_path / "a.png")
    (failed,) = ts.predict(tmp_path / "b", tmp_path / "a.png")
    assert failed.failure is not None and "none of 6" in failed.failure.message
