"""Latency dial: which size is taken, what it is said to cost, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.runtime.bundles import digits, digits_onnx, digits_run, png
from tests.training.digit_runs import tiny

import tesela as ts
from tesela.cli.main import run as command
from tesela.core.errors import UsageError
from tesela.data.open import open_source
from tesela.evaluation import dial
from tesela.evaluation.dial import open_within, smaller_sizes
from tesela.imaging.preprocess import normalize
from tesela.models.bundle import load_bundle, read_info
from tesela.models.encoder.merged import MergedClassifier
from tesela.runtime.predictor import Predictor
from tesela.training.run import train


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a millisecond for each pixel: 6.4 ms at 8 x 8."""
    monkeypatch.setattr(
        dial, "_milliseconds", lambda found: found.info.image.height * found.info.image.width / 10
    )
    monkeypatch.setattr(dial, "MERGED_SHARES", ())


def test_the_largest_size_that_is_fast_enough(tmp_path: Path) -> None:
    """With the score on validation images of the run's own data at both sizes."""
    train(tiny(tmp_path / "run", net={}, epochs=2))
    own = read_info(tmp_path / "run" / "bundle").image.size
    pixels = own[0] * own[1] / 10
    predictor, curve = open_within(tmp_path / "run", max_ms=0.7 * pixels)
    taken = predictor.info.image.size
    assert curve.points[0].size == own
    assert curve.chosen.size == taken != own
    assert curve.chosen.milliseconds <= 0.7 * pixels < curve.points[0].milliseconds
    wanted = ts.evaluate(tmp_path / "run", split="val")
    assert (curve.measure, curve.images) == ("accuracy", min(wanted["images"], dial.SCORED))
    if wanted["images"] <= dial.SCORED:
        assert curve.whole == pytest.approx(wanted["accuracy"])
    assert curve.chosen.score is not None and 0 <= curve.chosen.score <= 1
    assert f"accuracy {curve.chosen.score:.4f} instead of {curve.whole:.4f}" in curve.line()


def test_without_the_data_images_at_hand_are_compared() -> None:
    """Reference: labels at both sizes, by networks at those sizes."""
    images = list(digits()[0][1500:1530])
    predictor, curve = open_within(digits_run(), max_ms=4.0, sample=images)
    assert predictor.info.image.size == (6, 6)
    small, _ = load_bundle(digits_run() / "bundle", image_size=(6, 6))
    assert small.config.image_size == (6, 6)
    before = [found.best.label for found in Predictor(digits_run()).predict(images)]
    after = [found.best.label for found in predictor.predict(images)]
    assert curve.images == len(images)
    assert curve.chosen.score == pytest.approx(
        np.mean([one == other for one, other in zip(before, after, strict=True)])
    )
    assert "of 30 images at hand" in curve.line()


def test_merging_is_taken_where_it_costs_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every merged token saves 0.6 ms: at 8 x 8 two are enough; what is cheapest by the labels is taken."""

    def clock(found: Predictor) -> float:
        network = found.network
        count = network.count if isinstance(network, MergedClassifier) else 0
        return found.info.image.height * found.info.image.width / 10 - 0.6 * count

    monkeypatch.setattr(dial, "_milliseconds", clock)
    monkeypatch.setattr(dial, "MERGED_SHARES", (0.0625, 0.125, 0.25))  # 1, 2 and 4 of 16 patches
    images = list(digits()[0][1500:1532])
    predictor, curve = open_within(digits_run(), max_ms=5.2, sample=images)
    kinds = [(point.size, point.merged, point.score is not None) for point in curve.points]
    assert kinds == [
        ((8, 8), 0, False), ((6, 6), 0, True), ((8, 8), 1, False), ((8, 8), 2, True)
    ]  # fmt: skip
    scores = {point.merged: point.score for point in curve.points if point.score is not None}
    merged = MergedClassifier(load_bundle(digits_run() / "bundle")[0], 2)
    batch = torch.from_numpy(normalize(np.stack(images), read_info(digits_run() / "bundle").image))
    with torch.no_grad():
        same = (merged(batch).argmax(1) == merged.model(batch).argmax(1)).double().mean()
    assert scores[2] == pytest.approx(float(same))
    assert curve.chosen.score == max(scores.values()) and f"{max(scores.values()):.1%}" in curve.line()
    assert predictor.info.image.size == curve.chosen.size
    assert len([found.best for found in predictor.predict(images)]) == 32


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is well above chance."""
    out = tmp_path_factory.mktemp("dial") / "run"
    settings = {"model": "vit_nano", "net": {"width": 32, "depth": 2, "heads": 2}, "epochs": 12}
    train(tiny(out, data={"source": "digits", "subset": 800}, **settings))
    return out


@pytest.mark.parametrize("merged", [False, True])
def test_the_score_that_is_stated_is_that_of_what_was_taken(
    trained: Path, monkeypatch: pytest.MonkeyPatch, merged: bool
) -> None:
    """Reference: its answers for the validation images, one by one, beside their labels."""

    def clock(found: Predictor) -> float:
        quick = isinstance(found.network, MergedClassifier) if merged else found.info.image.size != own
        return 1.0 if quick else 10.0

    own = read_info(trained / "bundle").image.size
    monkeypatch.setattr(dial, "_milliseconds", clock)
    monkeypatch.setattr(dial, "MERGED_SHARES", (0.25,) if merged else ())
    predictor, curve = open_within(trained, max_ms=2.0)
    assert (curve.chosen.merged > 0, curve.chosen.size == own) == (merged, merged)
    items = open_source("digits").splits["val"]
    assert curve.images == min(len(items), dial.SCORED)
    rows = np.linspace(0, len(items) - 1, curve.images).astype(int)

    def accuracy(of: Predictor) -> float:
        answers = of.predict([items.read(row) for row in rows])
        wanted = [of.info.labels[items.targets[row]] for row in rows]
        return float(np.mean([one.best.label == label for one, label in zip(answers, wanted, strict=True)]))

    assert curve.chosen.score == pytest.approx(accuracy(predictor))
    assert curve.whole == pytest.approx(accuracy(Predictor(trained)))
    assert curve.whole > 0.2 and (curve.chosen.score or 0.0) > 0.2


def test_an_exported_program_and_other_backends_merge_nothing() -> None:
    assert dial.merged_counts(Predictor(digits_onnx()), {}) == []
    own = Predictor(digits_run())
    assert dial.merged_counts(own, {"backend": "onnxruntime"}) == []
    with pytest.raises(UsageError, match="by the torch backend alone"):
        Predictor(digits_onnx(), merged_tokens=1)


def test_nothing_changes_where_the_model_is_fast_enough() -> None:
    predictor, curve = open_within(digits_run(), max_ms=7.0)
    assert predictor.info.image.size == (8, 8)
    assert "the model's own size: 6.4 ms" in curve.line()


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no size answers within 0\.01 ms") as raised:
        open_within(digits_run(), max_ms=0.01)
    assert "--max-ms" in str(raised.value.hint)
    with pytest.raises(UsageError, match="are no time"):
        open_within(digits_run(), max_ms=0.0)
    with pytest.raises(UsageError, match="are no time"):
        open_within(digits_run(), max_ms=float("nan"))


def test_sizes_fit_the_grid() -> None:
    """Multiples of the patch, falling, none twice; a program of any size names its step."""
    info = read_info(digits_run() / "bundle")
    config = load_bundle(digits_run() / "bundle")[0].config
    found = smaller_sizes(info)
    assert found == sorted(set(found), reverse=True)
    assert all(config.grid(size) for size in found)
    assert smaller_sizes(read_info(digits_onnx())) == found
    assert Predictor(digits_onnx(), image_size=found[0]).predict([digits()[0][1500]])[0].best is not None


def test_the_command_line_says_what_it_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(png(digits()[0][1500]))
    assert command(["predict", str(digits_run()), str(tmp_path / "a.png"), "--max-ms", "4"]) == 0
    assert "at 6 x 6 instead of 8 x 8: 3.6 ms an image instead of 6.4" in capsys.readouterr().err
    assert command(["predict", str(digits_run()), str(tmp_path / "a.png"), "--max-ms", "0"]) == 2
