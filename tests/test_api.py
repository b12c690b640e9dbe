"""The Python face: the same result as the command line, and names that stay functions whatever was
imported before."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tesela as ts
from tesela.core.errors import UnknownNameError, UsageError
from tesela.imaging.preprocess import preprocess

SHORT: dict[str, Any] = {"recipe": "digits", "epochs": 2, "precision": "fp32", "attention": "fused"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ts.train("digits", out=tmp_path_factory.mktemp("api") / "run", **SHORT).path


def images(count: int) -> list[np.ndarray]:
    from sklearn.datasets import load_digits

    return list((load_digits().images[:count] * 255 / 16).astype(np.uint8)[..., None])


def test_training_from_python_equals_the_command_line(run: Path, tmp_path: Path) -> None:
    """Same seed, same recipe, same arithmetic: the weights are equal to the bit."""
    words = [
        sys.executable,
        "-m",
        "tesela",
        "train",
        "digits",
        "--recipe",
        "digits",
        "--epochs",
        "2",
        "--precision",
        "fp32",
        "--attention",
        "fused",
        "--out",
        str(tmp_path / "run"),
        "--json",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    ours, theirs = ts.load(run).state_dict(), ts.load(answer["run"]).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert answer["accuracy"] == ts.evaluate(run)["accuracy"]


def test_load_predict_and_export_agree(run: Path, tmp_path: Path) -> None:
    pictures = images(8)
    model = ts.load(run)
    with torch.inference_mode():
        expected = model(torch.from_numpy(preprocess(pictures, model.info.image))).softmax(1)
    ts.export(run, to="onnx", out=tmp_path / "onnx")
    for source in (run, tmp_path / "onnx"):
        for row, prediction in zip(expected, ts.predict(source, pictures), strict=True):
            assert prediction.best is not None
            assert prediction.best.index == int(row.argmax())
            assert prediction.best.probability == pytest.approx(float(row.max()), abs=1e-4)


def test_names_stay_functions_after_their_rooms_were_imported(run: Path) -> None:
    """Importing ``tesela.attribution`` binds a module to the name; it can be called all the same."""
    code = (
        "import tesela.attribution.methods.rollout, tesela.training.loop, tesela.exporters.onnx, tesela as "
        "ts, torch\n"
        f"model = ts.load({str(run)!r})\n"
        "print(tuple(ts.explain(model, torch.zeros(2, 1, 8, 8), target=[0, 1]).map.shape))\n"
        "print(callable(ts.train), callable(ts.export))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(2, 2, 8, 8)", "True True"]


@pytest.mark.parametrize(
    "verb",
    [
        *("train", "evaluate", "explain", "predict", "export", "load", "create_model", "create_segmenter"),
        *("inspect", "compare", "bench"),
    ],
)
def test_verbs_are_plain_functions_with_signature_and_help(verb: str) -> None:
    """Also after their second use, as in a notebook: the name is a function, never a module."""
    for _ in range(2):
        importlib.import_module("tesela.attribution.explain")
        function = getattr(ts, verb)
        assert inspect.isfunction(function)
        parameters = inspect.signature(function).parameters
        assert parameters and all(
            one.annotation is not inspect.Parameter.empty for one in parameters.values()
        )
        text = inspect.getdoc(function) or ""
        assert "Args:" in text and all(f"{name.removesuffix('_')}" in text for name in parameters)
        assert verb in dir(ts)


def test_bad_calls_are_named(run: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown format 'onx'"):
        ts.export(run, to="onx")
    with pytest.raises(UsageError, match="resume needs the run's folder"):
        ts.train(resume=True)
    with pytest.raises(UsageError, match="no/such"):
        ts.load("no/such")


def test_a_resumed_run_gives_its_result(run: Path) -> None:
    """A finished run, resumed from Python, gives the result that its folder states."""
    found = ts.train(resume=True, out=run)
    stated = json.loads((run / "result.json").read_text())
    assert found.accuracy == stated["accuracy"] and found.path == run
