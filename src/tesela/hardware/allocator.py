"""Settings of the C allocator: large blocks are kept for reuse, and by all threads.

A training step on a CPU allocates and frees the same hundreds of megabytes each time; by default glibc
returns them to the kernel, which must clear every page again on the next use. Measured in LOG.md. An arena of
each thread would keep from all others what that thread freed, so that memory would grow with the order of
their work. Odd: elsewhere than on glibc nothing happens, and only time is lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_LARGEST = 1 << 30


def keep_freed_memory() -> bool:
    """Raise the thresholds above which freed memory goes back to the system; one arena for all threads.

    True where the C library took it.

    Call it before torch allocates anything: torch then also asks for huge pages, where the kernel gives them.
    """
    # read by torch at its first allocation: large blocks on huge pages
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        if hasattr(library, "gnu_get_libc_version"):
            settings = {_M_MMAP_THRESHOLD: _LARGEST, _M_TRIM_THRESHOLD: 2 * _LARGEST - 1, _M_ARENA_MAX: 1}
            taken = [library.mallopt(name, value) for name, value in settings.items()]
            return all(taken)
    return False


def give_back_freed_memory() -> None:
    """Return what was freed to the system, where it will not be needed again."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
