"""Latency dial: which size is taken, what it is said to cost, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.runtime.bundles import digits, digits_onnx, digits_run, png
from tests.training.digit_runs import tiny

import tesela as ts
from tesela.cli.main import run as command
from tesela.core.errors import UsageError
from tesela.evaluation import dial
from tesela.evaluation.dial import open_within, smaller_sizes
from tesela.models.bundle import load_bundle, read_info
from tesela.runtime.predictor import Predictor
from tesela.training.run import train


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a millisecond for each pixel: 6.4 ms at 8 x 8."""
    monkeypatch.setattr(
        dial, "_milliseconds", lambda found: found.info.image.height * found.info.image.width / 10
    )


def test_the_largest_size_that_is_fast_enough(tmp_path: Path) -> None:
    """With the score on validation images of the run's own data at both sizes."""
    train(tiny(tmp_path / "run", net={}, epochs=2))
    own = read_info(tmp_path / "run" / "bundle").image.size
    pixels = own[0] * own[1] / 10
    predictor, curve = open_within(tmp_path / "run", max_ms=0.7 * pixels)
    taken = predictor.info.image.size
    assert curve.sizes[0] == own
    assert curve.sizes[-1] == taken != own
    assert curve.milliseconds[-1] <= 0.7 * pixels < curve.milliseconds[-2]
    wanted = ts.evaluate(tmp_path / "run", split="val")
    assert (curve.measure, curve.images) == ("accuracy", min(wanted["images"], dial.SCORED))
    if wanted["images"] <= dial.SCORED:
        assert curve.whole == pytest.approx(wanted["accuracy"])
    assert 0 <= curve.taken <= 1
    assert f"accuracy {curve.taken:.4f} instead of {curve.whole:.4f}" in curve.line()


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
    assert curve.taken == pytest.approx(
        np.mean([one == other for one, other in zip(before, after, strict=True)])
    )
    assert "of 30 images at hand" in curve.line()


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
