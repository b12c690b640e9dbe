"""Evaluation without torch against evaluation with it: the same scores of classifiers and segmenters."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.runtime.bundles import digits_onnx, png
from tests.runtime.test_predictor import ROOT, WITHOUT_TORCH

import tesela as ts
from tesela.core.errors import DataError, UnknownNameError, UsageError
from tesela.evaluation.program import evaluate_program


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of digits, with one file that is no image."""
    from tests.runtime.bundles import LABELS, digits

    folder = tmp_path_factory.mktemp("data")
    images, targets = digits()
    for split, numbers in (("train", range(20)), ("test", range(1500, 1560))):
        for number in numbers:
            path = folder / split / LABELS[targets[number]] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(images[number]))
    (folder / "test" / "one" / "broken.png").write_bytes(b"no image")
    return folder


def test_scores_of_a_classifier(data: Path) -> None:
    """Reference: ``ts.evaluate``, which counts in torch."""
    wanted = ts.evaluate(digits_onnx(), data=str(data), top=3)
    found = evaluate_program(digits_onnx(), str(data), top=3, batch_size=7, backend="onnxruntime")
    assert found["images"] == 60
    for name in ("accuracy", "confusion", "parameters", "labels", "split", "data", "task", "precision"):
        assert found[name] == wanted[name], name
    for name in ("nll", "ece", "brier"):
        assert found[name] == pytest.approx(wanted[name], abs=1e-5), name
    assert [bad["code"] for bad in found["unreadable"]] == [bad["code"] for bad in wanted["unreadable"]]
    assert len(found["unreadable"]) == 1


def test_what_is_refused(data: Path) -> None:
    with pytest.raises(UsageError, match="does not say what it was trained on"):
        evaluate_program(digits_onnx(), None)
    with pytest.raises(UnknownNameError, match="split"):
        evaluate_program(digits_onnx(), str(data), split="tset")
    with pytest.raises(UsageError, match="no option 'windows'"):
        evaluate_program(digits_onnx(), str(data), windows=True)
    (data.parent / "other" / "test" / "cat").mkdir(parents=True)
    (data.parent / "other" / "test" / "cat" / "a.png").write_bytes(
        (data / "test/one/broken.png").read_bytes()
    )
    with pytest.raises(DataError):
        evaluate_program(digits_onnx(), str(data.parent / "other"))


def test_the_command_line_without_torch(data: Path) -> None:
    """In a process in which torch cannot be imported."""
    code = WITHOUT_TORCH.partition("import json")[0] + "from tesela.cli.main import main; main(sys.argv[2:])"
    command = [sys.executable, "-c", code, "blocked", "evaluate", str(digits_onnx()), str(data), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1, done.stderr  # for the broken image
    wanted = ts.evaluate(digits_onnx(), data=str(data))
    assert json.loads(done.stdout.splitlines()[-1])["accuracy"] == wanted["accuracy"]
