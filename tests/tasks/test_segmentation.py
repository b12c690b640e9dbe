"""Segmentation from a folder to masks: losses, training, resume, scores, predictions, server."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file
from starlette.testclient import TestClient

import tesela as ts
from tesela.attribution.draw.heatmap import stretched
from tesela.cli.main import run as command
from tesela.cli.verbs.explain import view_regions
from tesela.core.errors import ConfigError, DataError
from tesela.imaging.decode import decode
from tesela.imaging.mask import decode_mask, mask_palette
from tesela.imaging.preprocess import preprocess
from tesela.imaging.spec import ImageSpec
from tesela.metrics.segmentation import SegmentationScores
from tesela.models.bundle import BundleInfo
from tesela.models.factory import create_segmenter
from tesela.runtime.predictor import Predictor
from tesela.serve.app import create_app
from tesela.serve.config import ServeConfig
from tesela.tasks.segmentation.mask import mask_of

SIZE = 32, 48
SHORT: dict[str, Any] = {
    "model": "segformer_b0",
    "net": {"widths": [8, 16, 24, 32], "heads": [1, 2, 3, 4], "reductions": [4, 2, 1, 1]},
    "epochs": 30,
    "batch_size": 8,
    "optim": {"lr": 3e-3},
    "augment": {"hflip": 0.5, "zoom": 0.2, "translation": 0.1},
    "precision": "fp32",
    "attention": "fused",
    "threads": 1,
    "tensorboard": False,
}


def draw(root: Path, split: str, count: int, *, seed: int) -> None:
    """Photographs of a red and a green box on a dark ground, with their masks; the top two rows are void."""
    generator = np.random.default_rng(seed)
    for kind in ("images", "masks"):
        (root / split / kind).mkdir(parents=True)
    for number in range(count):
        mask = np.zeros(SIZE, np.uint8)
        image = generator.integers(0, 80, (*SIZE, 3))
        for label, colour in ((1, (210, 40, 40)), (2, (40, 210, 60))):
            height, width = generator.integers(10, 18, 2)
            top, left = generator.integers(0, SIZE[0] - height), generator.integers(0, SIZE[1] - width)
            mask[top : top + height, left : left + width] = label
            image[top : top + height, left : left + width] = colour
        mask[:2] = 255
        Image.fromarray(image.astype(np.uint8)).save(root / split / "images" / f"{number:02d}.png")
        Image.fromarray(mask).save(root / split / "masks" / f"{number:02d}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("boxes")
    draw(root / "data", "train", 24, seed=0)
    draw(root / "data", "val", 6, seed=1)
    draw(root / "data", "test", 6, seed=2)
    (root / "data" / "classes.csv").write_text(
        "value,name,color,ignored\n0,ground,#202020,\n1,red,#d02020,\n2,green,#20d020,\n255,void,,yes\n"
    )
    return root


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    result = ts.train(place / "data", out=place / "run", **SHORT)
    assert result.task == "segment" and (result.scores["mean_iou"] or 0) > 0.6
    return place / "run"


def masks(place: Path, split: str = "test") -> list[NDArray[np.uint8]]:
    return [decode_mask(file) for file in sorted((place / "data" / split / "masks").glob("*.png"))]


# ---- a run


def test_scores_are_those_of_the_predicted_masks(place: Path, run: Path) -> None:
    """Reference: the masks that ``predict`` writes, counted against the files."""
    out = place / "masks"
    assert command(["predict", str(run), str(place / "data" / "test" / "images"), "--out", str(out)]) == 0
    scores = SegmentationScores(["ground", "red", "green"])
    for number, stored in enumerate(masks(place)):
        scores.update(decode_mask(out / f"{number:02d}.png"), stored)
    result, stated = scores.result(), json.loads((run / "evaluation.json").read_text())
    for name in ("mean_iou", "pixel_accuracy", "dice", "boundary_iou"):
        assert stated[name] == pytest.approx(result[name], abs=2e-3)
    assert stated["labels"] == ["ground", "red", "green"] and stated["colors"][1] == "#d02020"
    assert mask_palette(out / "00.png")[1] == (0xD0, 0x20, 0x20)
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    mask = decode_mask(out / "00.png")
    counts = {name: int((mask == index).sum()) for index, name in enumerate(stated["labels"])}
    assert {area["label"]: area["pixels"] for area in rows[0]["areas"]} == {
        name: count for name, count in counts.items() if count
    }
    assert decode(out / "overlays" / "00.png").shape == (*SIZE, 3)


def test_masks_have_their_images_own_sizes(place: Path, run: Path, tmp_path: Path) -> None:
    """An image three times as large gets a mask three times as large that says nearly the same."""
    source = place / "data" / "test" / "images" / "01.png"
    large = Image.open(source).resize((SIZE[1] * 3, SIZE[0] * 3), Image.Resampling.BICUBIC)
    large.save(tmp_path / "large.png")
    small, big = Predictor(run).predict([source, tmp_path / "large.png"])
    assert big.mask.shape == (SIZE[0] * 3, SIZE[1] * 3)
    assert (big.mask[1::3, 1::3] == small.mask).mean() > 0.97
    assert small.areas[0].share == pytest.approx(small.areas[0].pixels / (SIZE[0] * SIZE[1]))


def test_masks_are_scored_at_the_images_own_sizes(place: Path, run: Path) -> None:
    """Images and masks of twice the size: every stored pixel that counts is counted, against what is
    predicted at that size."""
    for kind, how in (("images", Image.Resampling.BICUBIC), ("masks", Image.Resampling.NEAREST)):
        for split in ("train", "test"):
            (place / "twice" / split / kind).mkdir(parents=True)
            for file in sorted((place / "data" / "test" / kind).glob("*.png")):
                with Image.open(file) as stored:
                    picture = stored.resize((2 * SIZE[1], 2 * SIZE[0]), how)
                if kind == "masks":
                    picture.putpixel((5, 40), 255)  # an ignored pixel that the view does not show
                picture.save(place / "twice" / split / kind / file.name)
    (place / "twice" / "classes.csv").write_text((place / "data" / "classes.csv").read_text())
    stated = ts.evaluate(run, data=str(place / "twice"))
    images = sorted((place / "twice" / "test" / "images").glob("*.png"))
    scores = SegmentationScores(["ground", "red", "green"])
    for result, file in zip(Predictor(run).predict(images), images, strict=True):
        scores.update(result.mask, decode_mask(place / "twice" / "test" / "masks" / file.name))
    expected = scores.result()
    assert stated["pixels"] == expected["pixels"] == 6 * (4 * SIZE[0] * SIZE[1] - 4 * 2 * SIZE[1] - 1)
    for name in ("mean_iou", "boundary_iou"):
        assert stated[name] == pytest.approx(expected[name], abs=2e-3)


def test_windows_and_flips_at_test_time(run: Path) -> None:
    plain = ts.evaluate(run)
    every: list[dict[str, Any]] = [{"flip": True}, {"windows": True}, {"windows": True, "flip": True}]
    for ways in every:
        found = ts.evaluate(run, **ways)
        assert abs(found["mean_iou"] - plain["mean_iou"]) < 0.1
        assert "evaluations" in str(found["folder"])
    assert json.loads((run / "evaluation.json").read_text())["mean_iou"] == plain["mean_iou"]


def test_the_report_shows_masks_classes_and_epochs(run: Path) -> None:
    page = (run / "report.html").read_text()
    for words in (
        "Mean IoU",
        "Boundary IoU",
        "Block artefacts",
        "Worst images",
        "Over the epochs",
        "#d02020",
    ):
        assert words in page
    assert page.count('alt="predicted mask of') >= 6
    with Image.open(run / "epochs.gif") as animation:
        assert animation.n_frames == 30  # type: ignore[attr-defined]
    assert not (run / "frames").exists()


def test_resumes_to_the_same_bits_after_sigkill(place: Path, run: Path) -> None:
    """Reference: the undisturbed run; killed after steps 30 and 50."""
    words = [sys.executable, "-m", "tesela", "train"]
    config = ["--config", str(run / "config.yaml"), "--out", str(place / "killed"), "--no-report"]

    def train(*more: str, code: int, **variables: str) -> None:
        done = subprocess.run(
            [*words, *more], env={**os.environ, **variables}, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr[-2000:]

    train(str(place / "data"), *config, code=-9, TESELA_FAILPOINT="loop.after_step=kill@30")
    again = ("--out", str(place / "killed"), "--resume")
    train(*again, code=-9, TESELA_FAILPOINT="loop.after_step=kill@20")
    train(*again, code=0)
    first, second = (load_file(folder / "bundle" / "model.safetensors") for folder in (run, place / "killed"))
    assert all((first[name] == second[name]).all() for name in first)
    assert (run / "metrics.jsonl").read_bytes() == (place / "killed" / "metrics.jsonl").read_bytes()
    assert (run / "epochs.gif").read_bytes() == (place / "killed" / "epochs.gif").read_bytes()


def test_an_exported_graph_gives_the_same_masks(place: Path, run: Path, tmp_path: Path) -> None:
    ts.export(run, to="onnx", out=tmp_path / "onnx")
    images = sorted((place / "data" / "test" / "images").glob("*.png"))
    ours, theirs = (
        Predictor(run, backend="torch").predict(images),
        Predictor(tmp_path / "onnx").predict(images),
    )
    for one, other in zip(ours, theirs, strict=True):
        assert (one.mask == other.mask).mean() > 0.999
    expected, found = ts.evaluate(run), ts.evaluate(tmp_path / "onnx", data=str(place / "data"))
    for name in ("mean_iou", "pixel_accuracy", "boundary_iou", "block_artefacts", "parameters"):
        assert found[name] == pytest.approx(expected[name], abs=2e-3), name


def test_is_served_with_a_mask_and_a_legend(place: Path, run: Path) -> None:
    image = place / "data" / "test" / "images" / "00.png"
    wanted = Predictor(run).predict([image])[0]
    with TestClient(create_app({"boxes": Predictor(run)})) as client:
        answer = client.post(
            "/v1/segment", content=image.read_bytes(), headers={"Content-Type": "image/png"}
        ).json()
        assert "/v1/segment" in client.get("/openapi.json").json()["paths"]
    mask = np.array(Image.open(io.BytesIO(base64.b64decode(answer["mask"]))))
    assert np.array_equal(mask, wanted.mask)
    assert {area["label"] for area in answer["areas"]} <= {"ground", "red", "green"}
    assert all(area["color"].startswith("#") for area in answer["areas"])


def test_a_served_segmenter_is_explained_for_a_class_and_for_a_region(place: Path, run: Path) -> None:
    """Reference: the library on the same view, and the command line's region."""
    file = place / "data" / "test" / "images" / "00.png"
    model = ts.load(run)
    batch = torch.from_numpy(preprocess([file], model.info.image))
    with Image.open(file) as opened:
        size = opened.size[::-1]
    region = view_regions((2, 3, 20, 12), [size], model.info.image)
    with TestClient(create_app({"boxes": Predictor(run)}, config=ServeConfig(decoders=1))) as client:

        def ask(**params: str) -> Any:
            headers = {"Content-Type": "image/png"}
            return client.post("/v1/explain", content=file.read_bytes(), params=params, headers=headers)

        assert client.get("/v1/models").json()["models"][0]["explainable"]
        assert "gradient_rollout" in client.get("/v1/models/boxes").json()["methods"]
        for params, options in (
            ({}, {}),
            ({"target": "red"}, {"target": "red"}),
            ({"target": "2", "region": "2,3,20,12"}, {"target": 2, "region": region}),
            ({"method": "gradient_input"}, {"method": "gradient_input"}),
        ):
            body, wanted = ask(**params).json(), ts.explain(model, batch, **options)
            index = int(wanted.targets[0, 0])
            assert (body["method"], body["target"]["index"]) == (wanted.method, index)
            assert body["target"]["probability"] == pytest.approx(float(wanted.probabilities[0, 0]), abs=1e-4)
            np.testing.assert_allclose(body["tokens"], stretched(wanted.tokens[0, 0].numpy()), atol=1e-3)
            means = model(batch).softmax(1).mean((0, 2, 3)).sort(descending=True)
            assert [one["index"] for one in body["top"]] == means.indices.tolist()
            np.testing.assert_allclose(
                [one["probability"] for one in body["top"]], means.values.detach(), atol=1e-4
            )
        for wrong in ({"region": "2,3,20"}, {"region": "5000,3,20,12"}, {"region": "1,1,0,1"}):
            assert ask(**wrong).json()["code"] == "bad_parameter"


def test_a_mask_of_a_large_image_comes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 7 pixels give the mask of the whole, for any way of fitting."""
    logits = np.random.default_rng(0).normal(size=(5, 12, 9)).astype(np.float32)
    for resize in ("squash", "crop", "pad"):
        spec = ImageSpec(height=12, width=9, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3, resize=resize)
        info = BundleInfo(
            architecture="vit", name="x", model={}, num_classes=5, labels=list("abcde"), image=spec
        )
        whole = mask_of(logits, (60, 40), info)
        with monkeypatch.context() as change:
            change.setattr("tesela.tasks.segmentation.mask.PART", 7)
            assert (mask_of(logits, (60, 40), info) == whole).mean() > 0.999
        assert len(np.unique(whole)) == 5


def test_the_backbone_of_a_classifier_gets_a_decoder(place: Path, tmp_path: Path) -> None:
    """From a classifier's bundle to a segmenter with a new decoder; the backbone keeps its weights."""
    base = ts.train(
        "digits", model="vit_nano", epochs=1, out=tmp_path / "base", image_size=32, report=False,
        threads=1, tensorboard=False, net={"width": 16, "depth": 2, "heads": 2, "patch_size": [8, 8]},
        resize="squash",
    )  # fmt: skip
    options: dict[str, Any] = {
        "tune": "head",
        "epochs": 1,
        "report": False,
        "threads": 1,
        "tensorboard": False,
    }
    with pytest.raises((ConfigError, DataError)):
        ts.train(place / "data", from_=str(base.path), resize="crop", out=tmp_path / "no", **options)
    found = ts.train(place / "data", from_=str(base.path), out=tmp_path / "run", **options)
    before, after = (load_file(path / "bundle" / "model.safetensors") for path in (base.path, found.path))
    body = [name for name in before if name.startswith("blocks.")]
    assert body and all((before[name] == after[name]).all() for name in body)
    assert any(name.startswith("head.detail") for name in after)


def test_what_does_not_fit_is_named(place: Path, tmp_path: Path) -> None:
    data = str(place / "data")
    assert command(["train", data, "--task", "classify", "--out", str(tmp_path / "a")]) == 1
    assert command(["train", "digits", "--task", "segment", "--out", str(tmp_path / "b")]) == 1
    assert command(["train", "digits", "--decoder.name", "light", "--out", str(tmp_path / "c")]) == 2
    with pytest.raises(ConfigError, match="needs whole images"):
        ts.train(data, resize="crop", out=tmp_path / "d", model="segformer_b0")


# ---- explanation


def test_a_region_rests_on_its_own_patches_where_nothing_else_can_speak() -> None:
    """A ViT whose attention and MLP add nothing: the logits of a patch depend on its own token alone."""
    model = create_segmenter("vit_ti16", num_classes=3, decoder="linear", image_size=64, depth=2, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "attention.out" in name or "mlp.contract" in name:
                parameter.zero_()
        model.head.linear.weight.normal_()  # type: ignore[operator, union-attr]
    region = torch.zeros(64, 64)
    region[16:32, 32:48] = 1
    found = ts.explain(model.eval(), torch.randn(1, 3, 64, 64), [1], region=region)
    assert found.method == "gradient_rollout"
    tokens = found.tokens[0, 0]
    assert tokens[1, 2] == pytest.approx(1) and tokens.sum() == pytest.approx(1)


def test_maps_of_a_trained_segmenter_lie_on_the_object(place: Path, run: Path) -> None:
    """The mean of a map inside of the predicted region is twice that of the whole image."""
    model = ts.load(run)
    images = sorted((place / "data" / "test" / "images").glob("*.png"))
    batch = torch.from_numpy(preprocess(images, model.info.image))
    found = ts.explain(model, batch, [1, 2])
    classes, ratios = model(batch).argmax(1), []
    for image in range(len(images)):
        for place_of, label in enumerate((1, 2)):
            inside = classes[image] == label
            heat = found.map[image, place_of].clamp(min=0)
            if inside.sum() > 40:
                ratios.append(float(heat[inside].mean() / heat.mean()))
    assert np.mean(ratios) > 2


def test_explain_takes_a_region(place: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(place / "data" / "test" / "images" / "00.png")
    words = ["explain", str(run), image, "--target", "red", "--out", str(place / "why")]
    assert command([*words, "--region", "4,4,12,12", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["explained"] == 1 and (place / "why" / "00.figure.png").is_file()
    assert command([*words, "--region", "400,4,12,12"]) == 2
    assert command([*words, "--region", "4,4"]) == 2
    assert "LEFT,TOP,WIDTH,HEIGHT" in capsys.readouterr().err
