"""Promises of a run: every image of an epoch, the best weights, the same data, honest probabilities."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.special import softmax
from tests.training.digit_runs import fingerprint, rows, signal_after, tiny

import tesela as ts
from tesela.core.errors import DataError, InterruptedRunError
from tesela.data.config import DataConfig
from tesela.data.open import open_source
from tesela.imaging.preprocess import preprocess
from tesela.runs.folder import Run
from tesela.tasks.classification.objective import CrossEntropy, class_weights
from tesela.training.run import resumed_config, train

PLAIN: dict[str, Any] = {
    "augment": {"crop_padding": 0, "mixup": 0.0},
    "net": {"width": 16, "depth": 2, "heads": 2, "dropout": 0.0, "drop_path": 0.0},
    "ema": {"decay": 0.0},
    "clip_norm": 0.0,
    "epochs": 1,
    "optim": {"name": "sgd", "lr": 0.1, "weight_decay": 0.0},
}


def draw_folder(root: Path, count: int, *, seed: int = 0) -> Path:
    """Red and blue images, ``count`` of each."""
    generator = np.random.default_rng(seed)
    for channel, name in ((0, "red"), (2, "blue")):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image = generator.integers(0, 90, (16, 16, 3)).astype(np.uint8)
            image[..., channel] += 60
            Image.fromarray(image).save(root / name / f"{number}.png")
    return root


def test_accumulated_batches_of_any_size_are_one_batch(tmp_path: Path) -> None:
    """One step over 13 batches, the last of 8 images, equals one step over all 200 images."""
    whole = train(tiny(tmp_path / "whole", batch_size=200, accumulate=1, **PLAIN))
    parts = train(tiny(tmp_path / "parts", batch_size=16, accumulate=20, **PLAIN))
    assert whole.steps == parts.steps == 1
    expected, found = (
        load_file(tmp_path / name / "bundle" / "model.safetensors") for name in ("whole", "parts")
    )
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)


def test_the_last_step_of_an_epoch_takes_what_is_left(tmp_path: Path) -> None:
    """13 batches in groups of 5: 3 steps an epoch, as many images as two passes have."""
    result = train(tiny(tmp_path / "run", batch_size=16, accumulate=5, epochs=2, log_steps=1))
    assert result.steps == 6 and result.epochs == 2


def test_resuming_with_other_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says how many images there were and are; with the old images back the run ends as if undisturbed."""
    data, run = draw_folder(tmp_path / "data", 30), Run(tmp_path / "run")
    settings: dict[str, Any] = {"data": {"source": str(data), "subset": None}, "net": {}, "epochs": 2}
    settings |= {"image_size": 16, "model": "vit_nano"}
    train(tiny(tmp_path / "undisturbed", **settings))
    signal_after(monkeypatch, "loop.after_step", 2)
    with pytest.raises(InterruptedRunError):
        train(tiny(run.path, **settings))
    monkeypatch.undo()
    moved = (data / "red" / "3.png").rename(tmp_path / "3.png")
    with pytest.raises(DataError, match=r"data has changed .*48 train, 6 val, 6 test then, 4[78] train"):
        train(resumed_config(run.path), resume=True)
    Image.new("RGB", (16, 16), (9, 9, 9)).save(data / "red" / "3.png")
    with pytest.raises(DataError, match=r"data has changed .*as then, but not the same files"):
        train(resumed_config(run.path), resume=True)
    moved.rename(data / "red" / "3.png")
    train(resumed_config(run.path), resume=True)
    assert fingerprint(run) == fingerprint(Run(tmp_path / "undisturbed"))


def test_scores_on_changed_data_are_marked(tmp_path: Path) -> None:
    data = draw_folder(tmp_path / "data", 30)
    settings: dict[str, Any] = {"data": {"source": str(data), "subset": None}, "net": {}, "epochs": 1}
    run = train(tiny(tmp_path / "run", image_size=16, **settings))
    assert "data_changed" not in ts.evaluate(run.path)
    (data / "red" / "3.png").unlink()
    assert ts.evaluate(run.path)["data_changed"] is True


def test_a_run_is_used_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data that was named relative to the folder of the training is found from anywhere."""
    draw_folder(tmp_path / "here" / "data", 30)
    monkeypatch.chdir(tmp_path / "here")
    settings: dict[str, Any] = {"data": {"source": "data", "subset": None}, "net": {}, "epochs": 1}
    before = train(tiny(Path("run"), image_size=16, **settings))
    monkeypatch.chdir(tmp_path)
    assert ts.evaluate("here/run")["accuracy"] == before.accuracy


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    """A learning rate that ruins the model late: the bundle is of the best epoch, of equal ones the later."""
    run = Run(tmp_path / "run")
    schedule = {"name": "step", "warmup": 0.0, "step_factor": 1000.0, "step_epochs": 4}
    late: dict[str, Any] = {"schedule": schedule, "ema": {"decay": 0.0}}
    train(tiny(run.path, epochs=6, keep="best", **late))
    scores = [row["val_accuracy"] for row in rows(run, "epoch")]
    best = max(place for place, score in enumerate(scores) if score == max(scores))
    assert best < 5, "the case needs a best epoch that is not the last"
    assert json.loads((run.bundle / "config.json").read_text())["provenance"]["best_step"] == 7 * (best + 1)
    train(tiny(tmp_path / "last", epochs=6, keep="last", **late))
    kept, plain = ts.evaluate(run.path, split="val"), ts.evaluate(tmp_path / "last", split="val")
    assert kept["accuracy"] == max(scores) > plain["accuracy"] == scores[-1]


def test_probabilities_are_calibrated_and_the_same_everywhere(tmp_path: Path) -> None:
    """The temperature lowers the log loss on validation; torch, ONNX and HTTP agree on probabilities."""
    from starlette.testclient import TestClient

    from tesela.runtime.predictor import Predictor
    from tesela.serve.app import create_app

    wanted = {**PLAIN, "optim": {"lr": 1e-2}, "epochs": 12, "accumulate": 1}
    plain = train(tiny(tmp_path / "plain", **wanted))
    run = train(tiny(tmp_path / "run", calibrate=True, **wanted))
    before, after = ts.evaluate(plain.path, split="val"), ts.evaluate(run.path, split="val")
    assert after["nll"] < before["nll"] and after["accuracy"] == before["accuracy"]
    info = json.loads((run.path / "bundle" / "config.json").read_text())
    weights = [
        load_file(folder / "bundle" / "model.safetensors")["head.linear.weight"]
        for folder in (plain.path, run.path)
    ]
    torch.testing.assert_close(weights[1] * info["provenance"]["temperature"], weights[0])
    items = open_source("digits", config=DataConfig(source="digits")).splits["test"]
    picture = tmp_path / "digit.png"
    Image.fromarray(items.read(0, channels=1)[..., 0]).save(picture)
    model = ts.load(run.path)
    with torch.no_grad():
        logits = model(torch.from_numpy(preprocess([picture], model.info.image))).numpy()
    expected = pytest.approx(softmax(logits[0].astype(np.float64)).tolist(), abs=1e-5)
    ts.export(run.path, to="onnx", out=tmp_path / "onnx")
    for source in (run.path, tmp_path / "onnx"):
        scores = ts.predict(source, [picture], top=10)[0].scores
        assert [score.probability for score in sorted(scores, key=lambda score: score.index)] == expected
    with TestClient(create_app({"digits": Predictor(run.path)})) as client:
        answer = client.post(
            "/v1/classify?top=10", content=picture.read_bytes(), headers={"Content-Type": "image/png"}
        ).json()
    found = {row["index"]: row["probability"] for row in answer["top"]}
    assert [found[index] for index in range(10)] == expected


@pytest.mark.parametrize("name", ["vit_nano", "deit_ti16"])
def test_scaling_a_head_scales_its_logits(name: str) -> None:
    """All of them, biases included."""
    model = ts.create_model(name, num_classes=4).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.normal_()
        size = model.config.image_size
        images = torch.randn(2, model.config.channels, *size)
        before = model(images)
        model.head.scale(0.4)  # type: ignore[operator]
        torch.testing.assert_close(model(images), 0.4 * before)


def test_without_enough_validation_images_nothing_is_calibrated(tmp_path: Path) -> None:
    run = train(tiny(tmp_path / "run", calibrate=True, epochs=1, data={"val_fraction": 0.005}))
    info = json.loads((run.path / "bundle" / "config.json").read_text())
    assert info["provenance"]["temperature"] is None


def test_weights_of_unequal_classes() -> None:
    """By the definition, with a mean of 1 over the images; none where classes are about equal."""
    assert class_weights([50, 50, 99], "auto") is None and class_weights([1, 2], "none") is None
    root = np.array([100, 25]) ** -0.5
    assert class_weights([100, 25], "auto") == pytest.approx((root * 125 / (root @ [100, 25])).tolist())
    assert class_weights([100, 25], "inverse") == pytest.approx([125 / 200, 125 / 50])
    assert class_weights([4, 0, 16], "sqrt")[1] == class_weights([4, 1, 16], "sqrt")[1] * 20 / 21 * (  # type: ignore[index]
        (2 + 1 + 4) / (2 + 4)
    )


def test_the_weighted_loss_is_a_mean_of_weighted_losses() -> None:
    """Reference: the definition, for class numbers and for probabilities of mixed images."""
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    targets, weights = torch.tensor([0, 1, 2, 2, 1, 0]), torch.tensor([0.5, 1.0, 2.5])
    objective = CrossEntropy(weights=weights.tolist())
    each = -logits.log_softmax(1)
    expected = sum(float(weights[t] * each[row, t]) for row, t in enumerate(targets.tolist())) / 6
    assert float(objective.cross_entropy(logits, targets)) == pytest.approx(expected, rel=1e-6)
    soft = torch.softmax(torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), 1)
    expected = float((weights * soft * each).sum() / 6)
    assert float(objective.cross_entropy(logits, soft)) == pytest.approx(expected, rel=1e-6)


def test_unequal_classes_are_weighted_and_the_plan_says_so(tmp_path: Path) -> None:
    import io

    from rich.console import Console

    data = draw_folder(tmp_path / "data", 30)
    for number in range(8, 30):
        (data / "blue" / f"{number}.png").unlink()
    text = io.StringIO()
    settings: dict[str, Any] = {"data": {"source": str(data), "subset": None}, "net": {}, "epochs": 1}
    train(tiny(tmp_path / "run", image_size=16, **settings), console=Console(file=text, width=120))
    assert "balance" in text.getvalue() and "6 to 24 training images" in text.getvalue()


def test_the_majority_baseline_stands_beside_the_accuracy() -> None:
    from tesela.metrics.classification import ClassificationScores

    scores = ClassificationScores(["a", "b"])
    scores.update(np.array([[0.9, 0.1]] * 4), np.array([0, 0, 0, 1]))
    assert scores.result()["majority"] == 0.75 == scores.result()["accuracy"]
    assert math.isclose(scores.result()["balanced_accuracy"], 0.5)


def test_a_run_that_does_not_fit_on_the_disk_leaves_its_folder_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before the first step, it can be started again in the same folder."""
    from tesela.core.errors import StorageError
    from tesela.training.planning import plan

    monkeypatch.setattr(plan, "free_bytes", lambda _: 10)
    with pytest.raises(StorageError, match="no space for the run"):
        train(tiny(tmp_path / "run", epochs=1))
    assert Run(tmp_path / "run").is_free()
    monkeypatch.undo()
    assert train(tiny(tmp_path / "run", epochs=1)).steps == 7
