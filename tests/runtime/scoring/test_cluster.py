"""Our side of scoring by Ray: the function that is mapped over batches, and what is refused without Ray."""

from __future__ import annotations

import importlib.util
import json
import pickle
from pathlib import Path

import pytest
from tests.runtime.bundles import digits_onnx, held_out

from tesela.cli.main import run
from tesela.core.errors import DataError, StorageError
from tesela.runtime.predictor import Predictor
from tesela.runtime.scoring.cluster import BatchScorer, own_error
from tesela.runtime.stored import written_source


def test_a_batch_has_the_results_of_the_predictor(tmp_path: Path) -> None:
    images, _ = held_out(5)
    files = [tmp_path / f"{number}.png" for number in range(5)]
    for number, content in enumerate(images):
        files[number].write_bytes(b"broken" if number == 3 else content)
    given = {"backend": "onnxruntime", "precision": "fp32", "threads": 1}
    scorer = BatchScorer(str(digits_onnx()), given, {"top": 2})
    row = scorer({"sources": json.dumps([written_source(file) for file in files])})
    found = pickle.loads(pickle.dumps(row))["batch"].results  # as it travels
    wanted = Predictor(digits_onnx(), **given).predict(files, batch=5, top=2)  # type: ignore[arg-type]
    assert [one.to_mapping() for one in found] == [one.to_mapping() for one in wanted]
    assert found[3].failure is not None and len(found[0].scores) == 2


def test_an_error_of_ours_is_found_behind_others() -> None:
    ours = StorageError("s3://bucket/shard is missing", hint="copy it there again")
    outer = RuntimeError("task failed")
    outer.__cause__ = ValueError("wrapped")
    outer.__cause__.__cause__ = ours
    assert own_error(outer) is ours and own_error(RuntimeError("other")) is None
    wrapped = RuntimeError("with a cause that is no __cause__")
    wrapped.cause = DataError("x", hint="y")  # type: ignore[attr-defined]
    assert own_error(wrapped) is wrapped.cause  # type: ignore[attr-defined]


def test_ray_needs_parts_and_its_extra(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.png").write_bytes(held_out(1)[0][0])
    words = ["predict", str(digits_onnx()), str(tmp_path / "one.png"), "--engine", "ray"]
    assert run([*words, "--out", str(tmp_path / "out.jsonl")]) == 2
    assert "add --parts 2000" in capsys.readouterr().err
    if importlib.util.find_spec("ray") is None:
        assert run([*words, "--out", str(tmp_path / "out.jsonl"), "--parts", "5"]) == 2
        assert 'pip install "tesela[ray]"' in capsys.readouterr().err
        assert not (tmp_path / "out.jsonl").exists()
