"""Some of the attacks of ``benchmarks/attacks.py``, for a second each: the figures need a quiet machine."""

from __future__ import annotations

import pytest
from benchmarks.attacks import DEADLINE, MEMORY, TYPES, attack_server, broken
from tests.runtime.bundles import digits_run, held_out

CHOSEN = (
    "progressive, 30,000 scans, 1 MB",
    "progressive, 2 megapixels, 450 scans, 20 kB",
    "PNG, 40 megapixels",
    "WebP, 40 megapixels",
    "1,100 idle sockets",
    "500 bodies byte by byte",
    "30 bodies of 19 MB without their last byte",
    "100 clients that take no answer",
)
#: Milliseconds that an ordinary request may take on a machine with other work.
PATIENCE = 20_000


def test_others_are_answered_and_memory_stays_within_its_bound() -> None:
    """During each attack ordinary requests are answered, memory keeps to its bound, and attackers get 200,
    a 4xx or 503 before the deadline; images are taken whatever their content type."""
    chosen = {*CHOSEN, *TYPES}
    found = attack_server(digits_run(), held_out(1)[0][0], seconds=1.0, wanted=lambda name: name in chosen)
    assert set(found) == {*CHOSEN, *(f"content type: {name}" for name in TYPES)}
    for name in CHOSEN:
        row = found[name]
        assert row["attack_p99_ms"] < PATIENCE, name
        assert row["memory_mib"] * 2**20 <= MEMORY, name
        assert row["latest_answer_s"] <= DEADLINE + 1, name
        assert all(status == "503" or status < "500" for status in row["answers"]), name
    assert set(found[CHOSEN[0]]["answers"]) <= {"422"}
    assert set(found["WebP, 40 megapixels"]["answers"]) <= {"413"}
    for name in TYPES:
        assert found[f"content type: {name}"]["answers"] == {"200": 1}, name


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ({"slower": 2.1}, "slower"),
        ({"memory_mib": 257.0}, "MiB"),
        ({"latest_answer_s": 22.0}, "after"),
        ({"answers": {"500": 1}}, "5xx"),
    ],
)
def test_broken_bounds_are_named(row: dict[str, float], word: str) -> None:
    (fault,) = broken({"slower": 1.0, "memory_mib": 1.0, "latest_answer_s": 1.0, "answers": {"503": 2}} | row)
    assert word in fault
