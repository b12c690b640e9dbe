"""``tesela models``: the list, one model, and what is refused; through the command line's own entry."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tesela.cli.main import run
from tesela.models import catalog


def test_the_list_holds_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models"]) == 0
    out = capsys.readouterr().out
    assert (
        all(f" {name} " in out for name in catalog.model_names()) and "86,567,656" in out and "613,710" in out
    )


def test_a_pattern_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "vit_b1*", "--json"]) == 0
    captured = capsys.readouterr()
    (line,) = captured.out.splitlines()
    rows = {row["name"]: row for row in json.loads(line)["models"]}
    assert list(rows) == ["vit_b14", "vit_b16"] and "vit_b16" in captured.err
    assert rows["vit_b16"]["parameters"] == 86_567_656 and rows["vit_b16"]["gflops"] == pytest.approx(
        35.13, abs=0.01
    )
    assert rows["vit_b16"]["image_size"] == [224, 224] and rows["vit_b16"]["family"] == "vit"


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "show", "vit_mnist_article"]) == 0
    out = capsys.readouterr().out
    assert (
        "613,710" in out and "wide" in out and "relu" in out and "4x4 tokens" in out and "block00" not in out
    )


def test_a_family_and_lists_of_stages(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "hybrid"]) == 0
    out = capsys.readouterr().out
    assert "r50_vit_b16" in out and "98,659,112" in out and " vit_b16 " not in out and "cct" not in out
    assert run(["models", "show", "bit_r50x1"]) == 0
    out = capsys.readouterr().out
    assert "25,549,352" in out and "3,4,6,3" in out and "224x224" in out and "3-4-6-3 bottleneck units" in out


@pytest.mark.parametrize(
    ("name", "steps"), [("resnet20_small", 1 + 1 + 9 + 2), ("deit_ti16", 1 + 3 + 12 * 7 + 5)]
)
def test_show_shapes_of_other_families(name: str, steps: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "show", name, "--shapes", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(facts["steps"]) == steps
    assert sum(step["parameters"] for step in facts["steps"]) == facts["parameters"]


def test_show_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(
            ["models", "show", "vit_nano", "--shapes", "--image-size", "8x12", "--num-classes", "3", "--json"]
        )
        == 0
    )
    captured = capsys.readouterr()
    facts = json.loads(captured.out.splitlines()[-1])
    steps = {step["step"]: step for step in facts["steps"]}
    assert steps["images"]["shape"] == [1, 1, 8, 12] and steps["head"]["shape"] == [1, 3]
    assert sum(step["parameters"] for step in facts["steps"]) == facts["parameters"]
    assert "1 x 25 x 64" in captured.err and facts["grid"] == [4, 6]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["models", "nosuchmodel"], "unknown model 'nosuchmodel'", "choose one of"),
        (["models", "show", "vit_s61"], "unknown model 'vit_s61'", "vit_s16"),
        (["models", "show", "vit_s16", "--image-size", "30"], "do not divide", "32x32"),
        (["models", "show", "vit_s16", "--image-size", "large"], "image_size", "whole number"),
    ],
)
def test_refusals(words: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert message in first and second.startswith("hint: ") and hint in second


def test_list_and_configuration_need_no_torch() -> None:
    code = (
        "import sys; from tesela.cli.main import run; run(['models']); run(['models', 'show', 'vit_b16']); "
        "sys.exit('torch' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0
    )
