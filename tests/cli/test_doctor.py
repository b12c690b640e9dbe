"""``tesela doctor`` against the machine's own facts, and its advice on machines made up for the test."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import tesela
from tesela.cli.main import run
from tesela.cli.verbs.doctor import advice


def test_json_holds_the_facts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert facts["tesela"] == tesela.__version__
    assert facts["torch"]["version"] == torch.__version__
    assert facts["extras"]["train"]["packages"]["torch"] == torch.__version__
    assert facts["rates"]["fp32"] > 1e8
    assert "matrix product" in captured.err


def facts(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "extras": {"base": {"purpose": "predict", "packages": {"numpy": "2.0"}, "complete": True}},
        "torch": None,
        "gpus": [],
        "rates": {"fp32": 1e11},
        "disk": {"here": 10**11},
        "memory": {"available": 10**10},
        "compiler": "/usr/bin/c++",
    }
    return {**plain, **changes}


def test_advice_is_given_where_something_is_missing_and_only_there() -> None:
    assert advice(facts()) == []
    missing = {
        "serve": {"purpose": "serve pages", "packages": {"uvicorn": None, "fastapi": "1"}, "complete": False}
    }
    assert advice(facts(extras=missing)) == [
        'to serve pages: pip install "tesela[serve]"  (missing: uvicorn)'
    ]
    gpu = [{"name": "A", "memory": 1, "driver": "1"}]
    assert "cannot use it" in advice(facts(gpus=gpu, torch={"cuda": None}))[0]
    assert advice(facts(gpus=gpu, torch={"cuda": "13.0"})) == []
    assert "6.0 times as fast" in advice(facts(rates={"fp32": 1e11, "bf16": 6e11}))[0]
    assert len(advice(facts(disk={"here": 10**9}, memory={"available": 10**9}, compiler=None))) == 3
