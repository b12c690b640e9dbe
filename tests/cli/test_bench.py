"""``tesela bench``: rows that fit together, for a run, an export and a name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.runtime.bundles import digits_onnx, digits_run

from tesela.cli.main import run
from tesela.models.bundle import load_bundle, read_info
from tesela.runtime.choice import ways


def measured(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert run(["bench", *words, "--seconds", "0.02", "--json"]) == 0
    result: dict = json.loads(capsys.readouterr().out)
    return result


def test_a_run_with_its_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each row's figures belong together.

    Images/s = batch / time, share = operations / time / the matrix product's rate.
    """
    info = read_info(digits_run() / "bundle")
    shutil.copytree(digits_run(), tmp_path / "run")
    shutil.copytree(digits_onnx(), tmp_path / "run" / "onnx")
    result = measured(capsys, str(tmp_path / "run"), "--batch", "1,3")
    rows = result["results"]
    variants = [(way.backend, way.precision) for way in ways(digits_run() / "bundle", info)]
    for way in ways(digits_onnx(), read_info(digits_onnx())):
        variants.append((way.backend, way.precision))
    assert {("torch", "fp32"), ("onnxruntime", "fp32")} <= set(variants)
    assert [(row["batch"], row["backend"], row["precision"]) for row in rows] == [
        (size, *variant) for size in (1, 3) for variant in variants
    ]
    config = load_bundle(digits_run() / "bundle")[0].config
    assert result["flops"] == config.flops(10)
    for row in rows:
        seconds = row["milliseconds"] / 1e3
        assert row["milliseconds_low"] <= row["milliseconds"] <= row["milliseconds_high"]
        assert row["milliseconds_high"] <= row["milliseconds_p99"]
        assert row["same_label"] >= 0.9
        # Python and NumPy alone take about 40 MB, torch 200 more
        assert 40e6 < row["resident_bytes"] < 2e9
        assert row["images_per_second"] == pytest.approx(row["batch"] / seconds)
        limit = result["matrix_product"][row["precision"]]
        assert row["share_of_matrix_product"] == pytest.approx(
            result["flops"] * row["batch"] / seconds / limit
        )
        assert row["max_abs_probability_difference"] <= (1e-5 if row["precision"] == "fp32" else 0.1)


def test_a_name_and_an_export(capsys: pytest.CaptureFixture[str]) -> None:
    named = measured(capsys, "vit_nano", "--batch", "2", "--threads", "1")
    assert [row["precision"] for row in named["results"]] == ["fp32", "bf16"]
    assert 0 < named["results"][1]["max_abs_probability_difference"] < 0.1
    assert named["image"] == [1, 8, 8] or named["image"] == [3, 8, 8]
    exported = measured(capsys, str(digits_onnx()), "--batch", "2")
    assert exported["results"][0]["backend"] == "onnxruntime"
    assert named["results"][0]["resident_bytes"] is None
    (torch_row, *_) = measured(capsys, str(digits_run()), "--batch", "2")["results"]
    assert exported["results"][0]["resident_bytes"] < torch_row["resident_bytes"] / 1.5


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", str(digits_run()), "--batch", "0"]) == 2
    assert run(["bench", str(digits_run()), "--batch", "one"]) == 2
    assert run(["bench", "vit_nanno"]) == 2
    assert "vit_nano" in capsys.readouterr().err
