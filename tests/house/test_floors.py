"""Floors of dependencies with known faults below them stand, and the check notices where they do not."""

from __future__ import annotations

from typing import Any

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


KNOWN = {"name": "pillow", "version": "12.3.0", "vulns": []}
FAULTY = {**KNOWN, "vulns": [{"id": "CVE-2026-112403", "fix_versions": ["13.0.0"], "description": ""}]}
UNKNOWN = {"name": "pillow", "skip_reason": "Dependency not found on PyPI and could not be audited"}
OWN = {"name": "tesela", "skip_reason": "distribution marked as editable"}


@pytest.mark.parametrize(
    ("packages", "said"),
    [
        ([KNOWN, OWN], "clean"),
        ([FAULTY, OWN], "vulnerable:\npillow 12.3.0: CVE-2026-112403, mended in 13.0.0"),
        ([UNKNOWN, {**KNOWN, "name": "numpy"}], "not made: 1 of 2 packages were not found: pillow"),
        (
            [UNKNOWN, {**FAULTY, "name": "numpy"}],
            "vulnerable:\nnumpy 12.3.0: CVE-2026-112403, mended in 13.0.0",
        ),
        ([OWN], "not made: 0 of 0 packages were not found: "),
    ],
)
def test_an_audit_that_found_no_packages_is_not_clean(packages: list[Any], said: str) -> None:
    """Shapes of pip-audit's own report."""
    assert check_floors.verdict({"dependencies": packages, "fixes": []}) == said
