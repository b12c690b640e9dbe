"""The allocator setting, against the kernel's own count of page faults.

Large blocks are used again, not fetched again.
"""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys
import numpy as np
from tesela.hardware.allocator import keep_freed_memory
taken = keep_freed_memory() if sys.argv[1] == "keep" else None
for _ in range(3):
    np.ones(40_000_000, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(40_000_000, np.uint8)
print(taken, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_used_again() -> None:
    kept, fetched = (
        subprocess.run(
            [sys.executable, "-c", CODE, mode], capture_output=True, text=True, check=True
        ).stdout.split()
        for mode in ("keep", "default")
    )
    assert kept[0] == "True"
    assert int(kept[1]) < int(fetched[1]) / 10
