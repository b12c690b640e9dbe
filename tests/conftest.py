"""What all tests share.

Where the real data is, and one thread for torch so that parallel workers do not fight.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


def shared_folder() -> Path | None:
    """The folder with real data and golden values.

    ``TESELA_SHARED`` or ``../shared`` beside the repository.
    """
    named = os.environ.get("TESELA_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    return folder if folder.is_dir() else None


@pytest.fixture(autouse=True)
def same_folder() -> Iterator[None]:
    """A test that goes into another folder must come back: later ones start programs from here."""
    before = Path.cwd()
    yield
    assert Path.cwd() == before


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared folder; the test is skipped, loudly, where it is absent."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("no shared data: set TESELA_SHARED to the folder with data/ and golden/")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that ``slow.txt`` lists."""
    lines = Path(__file__).with_name("slow.txt").read_text(encoding="utf-8").splitlines()
    slow = {line for line in lines if line and not line.startswith("#")}
    for item in items:
        test = item.nodeid.split("[")[0]
        if test in slow or test.split("::")[0] in slow:
            item.add_marker(pytest.mark.slow)
