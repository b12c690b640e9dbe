"""The run folder's lock, also against SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tesela.core.errors import UsageError
from tesela.runs.folder import Run

HOLD = (
    "import sys, time; from tesela.runs.folder import Run\nwith Run(sys.argv[1]).locked():\n    "
    "print('held', flush=True); time.sleep(60)"
)


def hold(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_training_is_refused_and_a_killed_one_frees_the_folder(tmp_path: Path) -> None:
    """Two processes, then SIGKILL."""
    run = Run(tmp_path / "run")
    process = hold(run.path)
    try:
        with pytest.raises(UsageError, match="another training"), run.locked():
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with run.locked():
            assert run.is_free()
    finally:
        process.kill()
        process.communicate()


def test_two_in_one_process_are_refused_too(tmp_path: Path) -> None:
    """POSIX locks know only processes, so the module keeps a list as well."""
    with Run(tmp_path).locked():
        with pytest.raises(UsageError, match="another training"), Run(tmp_path).locked():
            pass
    with Run(tmp_path).locked():
        pass


def test_free_means_nothing_visible(tmp_path: Path) -> None:
    """A start that died before its first file may be repeated."""
    run = Run(tmp_path / "new")
    assert run.is_free()
    with run.locked():
        assert run.is_free()
    (run.path / "notes.txt").write_text("mine")
    assert not run.is_free()
