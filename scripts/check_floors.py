"""Floors of dependencies with known faults below them, and an audit of what is installed.

    python scripts/check_floors.py

Each floor must stand in pyproject.toml, and constraints.txt and this environment must keep to it; exit code
1 otherwise. ``pip-audit`` is run where it is installed and its database can be reached, and else said to be
left out: an audit that could not be made is no clean one.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
#: Package -> the first version without a known fault, and the fault.
FLOORS = {
    "pillow": (
        "13.0.0",
        "a JPEG whose rows are wider than its tile writes beyond a buffer (CVE-2026-112403, CVE-2026-112398)",
    ),
    "starlette": ("0.49.1", "a Range header costs quadratic time where files are served (CVE-2025-62727)"),
    "python-multipart": (
        "0.0.31",
        "with a negative Content-Length a form is read into memory whole (GHSA-v9pg-7xvm-68hf)",
    ),
    "torch": ("2.10", "loading with weights_only corrupts memory by a crafted pickle (CVE-2026-24747)"),
}


def declared() -> dict[str, Version]:
    """The lower bounds of pyproject.toml, the least where a package stands in several places."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    found: dict[str, Version] = {}
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        for bound in requirement.specifier:
            if bound.operator == ">=":
                version = Version(bound.version)
                found[requirement.name.lower()] = min(found.get(requirement.name.lower(), version), version)
    return found


def constrained() -> dict[str, Version]:
    """The versions of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = (re.match(r"([\w.-]+)==([\w.+!-]+)", line) for line in lines)
    return {pair[1].lower(): Version(pair[2]) for pair in pairs if pair}


def installed(name: str) -> Version | None:
    """The version in this environment."""
    try:
        return Version(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return None


def faults() -> list[str]:
    """Every floor that is not kept."""
    bounds, pins, found = declared(), constrained(), []
    for name, (text, reason) in FLOORS.items():
        floor = Version(text)
        here = {"pyproject.toml": bounds.get(name), "constraints.txt": pins.get(name, floor)}
        here["this environment"] = installed(name) or floor
        found += [
            f"{place} has {name} {version}, below {floor}: {reason}"
            for place, version in here.items()
            if version is None or version < floor
        ]
    return found


def audit() -> str:
    """What pip-audit says: ``clean``, ``vulnerable`` with its findings, or ``not made`` with the reason."""
    if shutil.which("pip-audit") is None:
        return "not made: pip-audit is not installed"
    command = ["pip-audit", "--progress-spinner", "off", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return verdict(json.loads(done.stdout))
    except ValueError:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        return f"not made: {reason[0]}"


def verdict(report: dict[str, Any]) -> str:
    """What a report of pip-audit amounts to; packages that its database does not know were not audited."""
    packages = [one for one in report["dependencies"] if one["name"].lower() != "tesela"]
    found = [(one, fault) for one in packages for fault in one.get("vulns", [])]
    lines = [
        f"{one['name']} {one['version']}: {fault['id']}, mended in {' or '.join(fault['fix_versions'])}"
        for one, fault in found
    ]
    unknown = [one["name"] for one in packages if "skip_reason" in one]
    if lines:
        return "vulnerable:\n" + "\n".join(lines)
    if unknown or not packages:
        return f"not made: {len(unknown)} of {len(packages)} packages were not found: {', '.join(unknown)}"
    return "clean"


def main() -> int:
    """Print what was found."""
    found, audited = faults(), audit()
    print(json.dumps({"floors": {name: floor for name, (floor, _) in FLOORS.items()}, "faults": found}))
    print(f"audit {audited}")
    return int(bool(found) or audited.startswith("vulnerable"))


if __name__ == "__main__":
    sys.exit(main())
