"""Evaluation of exported graphs: the scores of the model that they were made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.training.digit_runs import tiny

import tesela as ts
from tesela.core.errors import UsageError, WeightsError
from tesela.training.run import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    train(tiny(folder / "run", net={}, epochs=2))
    ts.export(folder / "run", to="onnx", out=folder / "onnx")
    (folder / "onnx" / "model.safetensors").unlink(missing_ok=True)
    return folder


def test_an_exported_classifier_has_the_same_scores(run: Path) -> None:
    expected, found = ts.evaluate(run / "run"), ts.evaluate(run / "onnx", data="digits")
    for name in ("accuracy", "confusion", "parameters", "images", "labels"):
        assert found[name] == expected[name], name
    for name in ("nll", "ece", "brier"):
        assert found[name] == pytest.approx(expected[name], abs=1e-5), name


def test_what_an_exported_model_lacks_is_said(run: Path) -> None:
    with pytest.raises(UsageError, match="does not say what it was trained on"):
        ts.evaluate(run / "onnx")
    with pytest.raises(WeightsError, match=r"model.safetensors is missing"):
        ts.evaluate(run / "onnx", data="digits", backend="torch")
    with pytest.raises(WeightsError, match=r"has no model.onnx"):
        ts.evaluate(run / "run", backend="onnxruntime")
