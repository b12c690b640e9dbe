"""``tesela export``: the folder, the numbers printed, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.runtime.bundles import digits_run, held_out

from tesela.cli.main import run


def test_onnx_beside_the_bundle_of_a_run_with_real_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(digits_run(), tmp_path / "run")
    (tmp_path / "images").mkdir()
    for index, image in enumerate(held_out(4)[0]):
        (tmp_path / "images" / f"{index}.png").write_bytes(image)
    assert (
        run(["export", str(tmp_path / "run"), "--to", "onnx", "--data", str(tmp_path / "images"), "--json"])
        == 0
    )
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert Path(result["bundle"]) == tmp_path / "run" / "onnx"
    assert (result["images"], result["contract"]["count"], result["same_label"]) == ("real", 4, 1.0)
    assert 0 <= result["max_abs_probability"] <= 1e-4
    assert f"{result['max_abs_logits']:.2e} in a logit" in captured.err
    assert (
        run(["predict", str(tmp_path / "run" / "onnx"), str(tmp_path / "images"), "--backend", "onnxruntime"])
        == 0
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "onx"], "error: unknown format 'onx'"),
        (["--to", "onnx", "--precision", "int7"], "error: unknown precision 'int7'"),
        (
            ["--to", "onnx", "--precision", "bf16", "--weights", "int8"],
            "error: --weights int8 goes with arithmetic in fp32, not in bf16",
        ),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", str(digits_run()), *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == message
    assert any(word in lines[1] for word in ("onnx", "int8", "--weights"))


def test_a_missing_run_is_a_usage_error(tmp_path: Path) -> None:
    assert run(["export", str(tmp_path / "absent"), "--to", "onnx"]) == 2
