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


THREADS = """
import sys, threading
from pathlib import Path
import numpy as np
from tesela.hardware.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
ended = threading.Event()

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20

def work(done):
    blocks = [np.ones(100_000, np.uint8) for _ in range(300)]  # smaller than what the system gives whole
    del blocks
    done.set()
    ended.wait()

before = resident()
threads = []
for _ in range(8):
    done = threading.Event()
    threads.append(threading.Thread(target=work, args=(done,)))
    threads[-1].start()
    done.wait()
print(resident() - before)
ended.set()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_what_a_thread_freed_serves_the_next() -> None:
    """Eight threads that take 29 MB one after another need them once."""
    kept = subprocess.run(
        [sys.executable, "-c", THREADS, "keep"], capture_output=True, text=True, check=True
    ).stdout
    assert 20 < int(kept) < 2 * 29
