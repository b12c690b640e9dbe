"""The Python face on an exported program, in a process in which torch cannot be imported."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.exporters.test_programs import class_folders
from tests.runtime.bundles import LABELS, digits, digits_run, held_out

import tesela as ts
from tesela.evaluation.evaluate import evaluate_run
from tesela.exporters.catalog import export_model
from tesela.exporters.options import ExportOptions

ROOT = Path(__file__).resolve().parents[1]
BLOCKED = "import sys; sys.modules['torch'] = None\nimport json\nimport tesela as ts\n"


@functools.cache
def board() -> Path:
    """A program of the digits with maps and features."""
    out = Path(tempfile.mkdtemp(prefix="tesela-test-")) / "board"
    options = ExportOptions(with_map=True, with_features=True, data=str(class_folders()))
    export_model(digits_run(), to="onnx", out=out, options=options)
    return out


def blocked(code: str, *words: str) -> Any:
    """What code prints as JSON where torch cannot be imported."""
    command = [sys.executable, "-c", BLOCKED + code, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_predict_explain_and_evaluate_are_torchs(tmp_path: Path) -> None:
    """Reference: the same functions on the run in a process with torch."""
    paths = []
    for index, image in enumerate(held_out(3)[0]):
        paths.append(tmp_path / f"{index}.png")
        paths[-1].write_bytes(image)
    code = """
board, data, *images = sys.argv[1:]
labels = [one.best.label for one in ts.predict(board, images)]
vectors = [one.vector for one in ts.predict(board, images, features=True)]
maps = {name: ts.explain(board, images, method=name) for name in ("auto", "rollout")}
scores = ts.evaluate(board, data, split="val")
print(json.dumps({
    "labels": labels, "vectors": vectors, "accuracy": scores["accuracy"], "ece": scores["ece"],
    "targets": maps["auto"].targets.tolist(), "probabilities": maps["auto"].probabilities.tolist(),
    "scores": maps["auto"].scores.tolist(), "rollout": maps["rollout"].map.tolist(),
    "map": maps["auto"].map.tolist(), "torch": "torch" in sys.modules and sys.modules["torch"] is not None,
}))
"""
    found = blocked(code, str(board()), str(class_folders()), *map(str, paths))
    assert not found["torch"]
    assert found["labels"] == [one.best.label for one in ts.predict(digits_run(), paths, precision="fp32")]
    wanted = ts.predict(digits_run(), paths, features=True, backend="torch", precision="fp32")
    np.testing.assert_allclose(found["vectors"], [one.vector for one in wanted], atol=1e-4)
    for name, method in (("map", "presence"), ("rollout", "rollout")):
        torchs = ts.explain(digits_run(), paths, method=method)
        np.testing.assert_allclose(found[name], torchs.map.numpy(), atol=1e-4)
        np.testing.assert_allclose(found["probabilities"], torchs.probabilities.numpy(), atol=1e-4)
        np.testing.assert_allclose(found["scores"], torchs.scores.numpy(), atol=1e-4)
        assert found["targets"] == torchs.targets.tolist()
    scores = evaluate_run(digits_run() / "bundle", data=str(class_folders()), split="val")
    assert found["accuracy"] == scores["accuracy"] and found["ece"] == pytest.approx(scores["ece"], abs=1e-4)


def test_arrays_in_memory_are_scored_and_explained(tmp_path: Path) -> None:
    """(images, targets) as with torch; normalised arrays are the model's input already."""
    code = """
import numpy as np
pixels, targets = np.load(sys.argv[2]), np.load(sys.argv[3])
found = ts.evaluate(sys.argv[1], (pixels, targets))
normal = ((pixels.transpose(0, 3, 1, 2) / 255 - 0.3) / 0.35).astype(np.float32)
same = np.abs(ts.explain(sys.argv[1], normal[:2]).map - ts.explain(sys.argv[1], list(pixels[:2])).map).max()
print(json.dumps([found["accuracy"], found["images"], float(same)]))
"""
    files = (tmp_path / "pixels.npy", tmp_path / "targets.npy")
    pixels, targets = digits()
    np.save(files[0], pixels[1500:1600])
    np.save(files[1], targets[1500:1600])
    accuracy, count, difference = blocked(code, str(board()), *map(str, files))
    right = [
        one.best.label == LABELS[target]
        for one, target in zip(ts.predict(digits_run(), held_out(100)[0]), held_out(100)[1], strict=True)
    ]
    assert (accuracy, count) == (pytest.approx(np.mean(right)), 100) and difference < 1e-5


def test_what_needs_torch_says_what_brings_it() -> None:
    code = """
from tesela.core.errors import TeselaError
said = []
for call in (
    lambda: ts.load(sys.argv[1]),
    lambda: ts.train("digits"),
    lambda: ts.evaluate(sys.argv[1], "digits", precision="bf16"),
    lambda: ts.explain(sys.argv[1], np.zeros((8, 8), np.uint8), target="one"),
    lambda: ts.explain(sys.argv[1], np.zeros((2, 3), np.float32)),
):
    try:
        call()
    except TeselaError as error:
        said.append([error.message, error.hint])
print(json.dumps(said))
"""
    load, train, precision, target, shape = blocked("import numpy as np\n" + code, str(board()))
    for _, hint in (load, train, precision):
        assert hint == 'pip install "tesela[train]"'
    assert "tesela.load" in load[0] and "explains the class that it predicts" in target[0]
    assert "give (B, 1, 8, 8), normalised" in shape[1]
