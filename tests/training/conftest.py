"""Shared by the tests of training."""

from __future__ import annotations

import pytest
from tests.training.digit_runs import tiny

from tesela.runs.folder import Run
from tesela.training.run import train


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nobody disturbed."""
    run = Run(tmp_path_factory.mktemp("runs") / "reference")
    train(tiny(run.path))
    return run
