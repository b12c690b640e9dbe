"""Facts of the machine: processor, memory, disk, accelerator, compiler, packages.

Read from the system without torch.

Every fact may be unknown (None) where the system does not tell it; nothing here raises for that reason.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

#: Flags of x86 and arm64 processors that decide which kernels run, with the name a person knows.
FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 bf16",
    "amx_bf16": "AMX bf16",
    "amx_int8": "AMX int8",
    "asimd": "NEON",
    "asimddp": "NEON dot product",
    "bf16": "NEON bf16",
    "i8mm": "NEON int8 matrix",
    "sve": "SVE",
}


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """Model, logical cores that this process may use, and the features out of ``FEATURES`` that it has."""
    text = ""
    with contextlib.suppress(OSError):
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    present = set(flags.group(1).split()) if flags else set()
    return {
        "name": name.group(1).strip() if name else platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": cores(),
        "features": [title for flag, title in FEATURES.items() if flag in present],
    }


def cores() -> int:
    """Logical cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> dict[str, int | None]:
    """Bytes of memory in all and available, the smaller of the machine's and the control group's."""
    total: int | None = None
    available: int | None = None
    with contextlib.suppress(OSError, ValueError):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError):
        found = re.search(
            r"^MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(encoding="utf-8"), re.MULTILINE
        )
        available = int(found.group(1)) * 1024 if found else None
    with contextlib.suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="utf-8"))
        total = min(total or limit, limit)
        available = min(available or limit, max(limit - used, 0))
    return {"total": total, "available": available}


def accelerators() -> list[dict[str, Any]]:
    """The GPUs that ``nvidia-smi`` knows: name, memory in bytes and driver; empty if there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    question = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(question, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [
        [cell.strip() for cell in line.split(",")] for line in answer.splitlines() if line.count(",") == 2
    ]
    return [
        {"name": name, "memory": int(size) * 2**20 if size.isdigit() else None, "driver": driver}
        for name, size, driver in rows
    ]


def compiler() -> str | None:
    """The path of a C++ compiler: ``$CXX``, else c++, g++, clang++ or cl."""
    named = os.environ.get("CXX", "").split()
    for candidate in (*named[:1], "c++", "g++", "clang++", "cl"):
        found = shutil.which(candidate)
        if found:
            return found
    return None


def version(distribution: str) -> str | None:
    """The installed version of a distribution; None where it is not installed. Nothing is imported."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def requirements(distribution: str = "tesela") -> dict[str, list[str]]:
    """Distribution names that each extra brings, from the installed metadata; the base is under ``""``."""
    try:
        lines = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    for line in lines:
        name = re.match(r"[A-Za-z0-9._-]+", line)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", line)
        if name and name.group(0).lower() != distribution:
            found.setdefault(extra.group(1) if extra else "", []).append(name.group(0))
    return found
