"""SIGKILL at random instants (R1), the small form of scripts/kill_training.py that fits in a test run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "kill_training.py"


def test_thirty_killed_trainings_end_with_the_bits_of_an_undisturbed_one() -> None:
    """Reference: the SHA-256 of a run that nobody disturbed; also for 0, 1, 2 and 4 loader workers (R2)."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(SCRIPT), "--kills", "30", "--jobs", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    answer = json.loads(ended.stdout.splitlines()[-1])
    assert (answer["runs"], answer["equal"], answer["different"]) == (30, 30, [])
    assert answer["kills"] >= 30
    assert answer["aimed"] >= 1
    assert answer["workers_equal"] is True
