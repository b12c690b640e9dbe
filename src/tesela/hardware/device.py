"""Devices and threads: choice of a device, deterministic arithmetic, the number of threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from tesela.core.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """The device of that name; auto takes a GPU where there is one.

    Raises:
        ConfigError: it is not there.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    if (name == "cuda" and not cuda) or (name == "mps" and not mps):
        raise ConfigError(f"there is no {name} device here", hint="use --device auto; see: tesela doctor")
    return torch.device(name)


@contextlib.contextmanager
def exact_arithmetic(device: torch.device, threads: int) -> Iterator[int]:
    """Fixed threads and deterministic kernels while the block runs; gives the number of threads.

    Args:
        device: only a CPU is made deterministic by force; on a GPU that would cost speed.
        threads: 0 keeps PyTorch's choice.
    """
    memory: Any = torch.utils.deterministic
    before, was, filled = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        memory.fill_uninitialized_memory,
    )
    if threads:
        torch.set_num_threads(threads)
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        memory.fill_uninitialized_memory = False  # a debugging aid that costs time
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(was)
        memory.fill_uninitialized_memory = filled


@contextlib.contextmanager
def thread_count(threads: int | None) -> Iterator[None]:
    """Compute with that many threads inside the block; None changes nothing."""
    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
