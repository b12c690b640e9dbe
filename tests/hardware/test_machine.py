"""Facts about the machine against the system's own answers and files made for the test."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import psutil
import torch

from tesela.hardware import machine


def test_processor_of_a_written_file(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: Fast One\nflags\t\t: fpu avx2 amx_bf16 sse\n", encoding="utf-8"
    )
    found = machine.processor(tmp_path / "cpuinfo")
    assert (found["name"], found["features"]) == ("Fast One", ["AVX2", "AMX bf16"])
    (tmp_path / "arm").write_text("processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n", encoding="utf-8")
    assert machine.processor(tmp_path / "arm")["features"] == ["NEON", "NEON dot product", "NEON int8 matrix"]
    assert machine.processor(tmp_path / "absent")["features"] == []


def test_cores_and_memory_equal_psutil() -> None:
    assert machine.cores() == len(psutil.Process().cpu_affinity() or [os.cpu_count()])
    total = machine.memory()["total"]
    assert total is not None
    assert total <= psutil.virtual_memory().total * 1.01


def test_versions_and_requirements_come_from_the_metadata() -> None:
    assert machine.version("torch") == metadata.version("torch") == torch.__version__
    assert machine.version("no-such-distribution") is None
    assert "torch" in machine.requirements()["train"]
    assert "onnxruntime" in machine.requirements()[""]
    assert "torch" not in machine.requirements()[""]
    assert machine.requirements("no-such-distribution") == {}


def test_compiler_prefers_the_named_one(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    tool = tmp_path / "mycc"
    tool.write_text("#!/bin/sh\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("CXX", str(tool))
    assert machine.compiler() == str(tool)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.compiler() is None
    assert machine.accelerators() == []
