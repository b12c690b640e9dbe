"""SIGKILL at random instants (R1), the small form of scripts/kill_training.py that fits in a test run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "kill_training.py"


def killed(*words: str) -> dict[str, Any]:
    """What the script counted."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(SCRIPT), "--jobs", "2", *words]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    answer: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("tune", ["all", "head", "lora", "bias"])
def test_killed_fine_tunings_end_with_the_bits_of_an_undisturbed_one(tune: str) -> None:
    """Reference: the SHA-256 of a fine-tuning that nobody disturbed, of checkpoints that hold what is
    trained alone."""
    answer = killed("--kills", "4", "--tune", tune, "--workers", "2")
    assert (answer["runs"], answer["equal"], answer["different"], answer["workers_equal"]) == (4, 4, [], True)


@pytest.mark.parametrize("taught", ["live", "kept"])
def test_killed_distillations_end_with_the_bits_of_an_undisturbed_one(taught: str) -> None:
    """Reference: the SHA-256 of a distillation that nobody disturbed, the teacher's outputs kept or not."""
    answer = killed("--kills", "2", "--taught", taught, "--workers", "2")
    assert (answer["runs"], answer["equal"], answer["different"], answer["workers_equal"]) == (2, 2, [], True)


def test_thirty_killed_trainings_end_with_the_bits_of_an_undisturbed_one() -> None:
    """Reference: the SHA-256 of a run that nobody disturbed; also for 0, 1, 2 and 4 loader workers (R2)."""
    answer = killed("--kills", "30")
    assert (answer["runs"], answer["equal"], answer["different"]) == (30, 30, [])
    assert answer["kills"] >= 30
    assert answer["aimed"] >= 1
    assert answer["workers_equal"] is True


@pytest.mark.parametrize("recipe", ["pretrain_masked", "pretrain_mae", "pretrain_dino"])
def test_killed_pretrainings_end_with_the_bits_of_an_undisturbed_one(recipe: str) -> None:
    """Reference: the SHA-256 of a pre-training left alone, with decoder, teacher and centre."""
    answer = killed("--kills", "2", "--recipe", recipe, "--workers", "2")
    assert (answer["runs"], answer["equal"], answer["different"], answer["workers_equal"]) == (2, 2, [], True)
