"""Schemathesis over the OpenAPI document of a running server, with all of its checks: R17."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.reliability.plan import Plan
from benchmarks.reliability.target import ROOT

#: What a schema cannot say about bytes that are no image, and about numbers that depend on the model.
SETTINGS = """[checks.positive_data_acceptance]
expected-statuses = ["2xx", "304", 400, 404, 409, 413, 415, 422, 503]
"""
PROGRAM = "from schemathesis.cli import schemathesis; schemathesis()"
DOCUMENT = ROOT / "docs" / "openapi.json"


def measure(plan: Plan) -> dict[str, Any]:
    """The figures of R17; tesela only, for peers have another document."""
    environment = {**os.environ}
    if plan.peers is not None:
        environment["PYTHONPATH"] = str(plan.peers)
    with tempfile.TemporaryDirectory() as folder, plan.start(model="vit_nano", segments=True) as server:
        report = Path(folder) / "report.json"
        settings = Path(folder) / "settings.toml"
        settings.write_text(SETTINGS)
        command = [sys.executable, "-c", PROGRAM, "--config-file", str(settings), "run", str(DOCUMENT)]
        command += ["--checks", "all", "--seed", "1"]
        command += ["--url", "http://{}:{}".format(*server.address), "--continue-on-failure", "--no-color"]
        command += ["--max-examples", str(plan.size.examples), "--request-timeout", "30"]
        command += ["--phases", "examples,coverage,fuzzing", "--report-json-path", str(report)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=folder, env=environment
        )
        if not report.exists():
            raise RuntimeError(f"schemathesis did not run: {done.stdout[-500:]}{done.stderr[-1500:]}")
        found = json.loads(report.read_text())
    cases, phases = found["test_cases"], [one["status"] for one in found["phases"].values()]
    return {
        "examples": plan.size.examples,
        "operations": found["operations"]["tested"],
        "cases": cases["generated"],
        "failures": cases["with_failures"] + cases["errored"] + len(found["errors"]),
        "kinds": [f"{one['title']}: {', '.join(one['operations'])}" for one in found["failures"]],
        "complete": found["complete"] and "error" not in phases,
        "seconds": found["running_time"],
    }
