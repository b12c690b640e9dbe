"""Peak memory of a process that does nothing but compute a model, by batch size.

Each backend is asked in a process of its own, for memory that one took is not given back for the next.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROGRAM = "from tesela.runtime.footprint import answer; answer()"


def resident_bytes(
    bundle: Path, backend: str, precision: str, sizes: Sequence[int], *, threads: int | None
) -> list[int | None]:
    """Peak resident memory at each batch size, ascending; None where the system does not tell it.

    Args:
        bundle: the folder.
        backend: what computes.
        precision: of the arithmetic.
        sizes: batch sizes.
        threads: threads per operator; None leaves the backend's own choice.
    """
    question = [str(bundle), backend, precision, sorted(sizes), threads]
    command = [sys.executable, "-c", PROGRAM, json.dumps(question)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return [None] * len(sizes)
    found: list[int | None] = json.loads(done.stdout.splitlines()[-1])
    return [dict(zip(sorted(sizes), found, strict=True))[size] for size in sizes]


def answer() -> None:
    """The other process: opens the backend, computes each size and writes the peaks to standard output."""
    import numpy as np

    from tesela.runtime.predictor import Predictor

    bundle, backend, precision, sizes, threads = json.loads(sys.argv[1])
    predictor = Predictor(bundle, backend=backend, precision=precision, threads=threads)
    spec, peaks = predictor.info.image, []
    for size in sizes:
        images = np.random.default_rng(0).integers(0, 256, (size, *spec.size, spec.channels), np.uint8)
        predictor.outputs(list(images))
        peaks.append(_peak())
    sys.stdout.write(json.dumps(peaks) + "\n")


def _peak() -> int | None:
    """Peak resident bytes of this process.

    Odd: on Linux ``getrusage`` counts the process that started this one, too.
    """
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
        if found:
            return int(found.group(1)) * 1024
    try:
        import resource
    except ImportError:  # there is none on Windows
        return None
    usage: Any = resource.getrusage(resource.RUSAGE_SELF)
    return int(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)
