"""Floors of dependencies with known faults below them stand, and the check notices where they do not."""

from __future__ import annotations

import pytest
from packaging.version import Version
from scripts import check_floors


def test_floors_are_kept() -> None:
    assert check_floors.faults() == []


@pytest.mark.parametrize("place", ["declared", "constrained"])
def test_a_lower_floor_is_named(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = getattr(check_floors, place)()
    monkeypatch.setattr(check_floors, place, lambda: known | {"starlette": Version("0.49.0")})
    (fault,) = check_floors.faults()
    assert "starlette 0.49.0" in fault
