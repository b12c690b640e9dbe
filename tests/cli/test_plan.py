"""``tesela plan``, through the command line's own entry."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import tesela as ts
from tesela.cli.main import run
from tesela.core.errors import UsageError


def test_eight_devices_in_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    words = "plan vit_l16 --devices 8xh100 --batch 1024 --images 1281167 --epochs 90 --json"
    assert run(words.split()) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out.splitlines()[-1])
    assert found["parameters"] == 304_326_632 and found["ranks"] == 8
    assert found["steps"] == 90 * (1281167 // 1024)
    ddp, fsdp = found["demand"]["ddp"], found["demand"]["fsdp"]
    assert ddp["optimizer"] == 8 * 304_326_632 == 8 * fsdp["optimizer"]
    assert ddp["seconds"] == pytest.approx(found["steps"] * ddp["step"])
    assert "does not fit" not in captured.err and "largest batch" in captured.err


def test_what_does_not_fit_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "vit_h14", "--devices", "t4", "--batch", "64"]) == 0
    out = capsys.readouterr().out
    assert "does not fit" in out


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("vit_l17", "vit_l1"),
        ("vit_l16 --devices 8h100", "--devices 8xh100"),
        ("vit_l16 --devices 8xh100 --batch 100", "--batch 96"),
        ("vit_l16 --devices h100 --batch 0", "--batch 256"),
        ("vit_l16 --devices h100 --network 0", "--network 100"),
        ("vit_l16 --devices h100 --utilization 2", "0.4"),
        ("vit_l16 --devices h100 --images 0", "--images"),
    ],
)
def test_bad_input(words: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", *words.split()]) == 2
    assert hint in capsys.readouterr().err.splitlines()[-1]


def test_a_transformer_is_planned_without_torch() -> None:
    program = (
        "import sys\nfrom tesela.cli.main import run\n"
        "assert run('plan vit_b16 --devices 8xa100'.split()) == 0\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_python_gives_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    for words, options in (
        ("vit_l16 --devices 8xh100 --batch 1024 --images 5000 --epochs 3", {"images": 5000, "epochs": 3}),
        (
            "vit_l16 --devices 8xh100 --batch 1024 --image-size 160x192 --ema",
            {"image_size": (160, 192), "ema": True},
        ),
        ("vit_l16 --devices 8xh100 --batch 1024 --image-size 160", {"image_size": 160}),
    ):
        assert run(["plan", *words.split(), "--json"]) == 0
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
        found = ts.plan("vit_l16", devices="8xh100", batch=1024, **options)
        assert json.loads(json.dumps(found.mapping())) == told
    assert found.demand["ddp"].peak == told["demand"]["ddp"]["peak"] and found.steps is None
    with pytest.raises(UsageError):
        ts.plan("vit_l16", devices="8h100")
