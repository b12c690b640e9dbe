"""Speed measurement: repeated timings with spread, and a matrix product as the limit.

Machines are shared and noisy: the median and the quartiles of many short runs are kept, never one time or a
mean.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tesela.core.errors import MissingExtraError


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Seconds per call.

    Attributes:
        median: half of the calls were faster.
        low: first quartile.
        high: third quartile.
        p99: 99 of 100 calls were faster.
        calls: how many were timed.
    """

    median: float
    low: float
    high: float
    p99: float
    calls: int


def measure_speed(
    call: Callable[[], Any], *, seconds: float = 2.0, least: int = 5, most: int = 1000, warm_up: int = 2
) -> Speed:
    """Time ``call`` for about ``seconds``, at least ``least`` times, after ``warm_up`` calls."""
    for _ in range(warm_up):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or (time.perf_counter() < end and len(times) < most):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    low, median, high, p99 = map(float, np.quantile(times, [0.25, 0.5, 0.75, 0.99]))
    return Speed(median=median, low=low, high=high, p99=p99, calls=len(times))


def matrix_rate(
    precision: str = "fp32",
    *,
    size: int = 1536,
    seconds: float = 0.5,
    engine: str = "torch",
    threads: int | None = None,
) -> float:
    """Operations per second of a square matrix product (2 n^3), the practical limit here.

    Args:
        precision: ``fp32``, or ``bf16`` and ``int8`` with torch.
        size: rows and columns n.
        seconds: about how long to measure.
        engine: ``torch``, or ``numpy`` for machines without it.
        threads: threads for torch; its own number if None.
    """
    timing = measure_speed(_product(precision, size, engine, threads), seconds=seconds, least=3)
    return 2.0 * size**3 / timing.low


def _product(precision: str, size: int, engine: str, threads: int | None) -> Callable[[], Any]:
    values = np.random.default_rng(0).standard_normal((2, size, size), dtype=np.float32)
    if engine == "numpy":
        if precision != "fp32":
            raise MissingExtraError(f"a matrix product in {precision}", "train")
        left, right, out = values[0], values[1], np.empty((size, size), np.float32)
        return lambda: np.matmul(left, right, out=out)
    import torch

    from tesela.hardware.device import thread_count

    if precision == "int8":
        from tesela.hardware.torch_private import int8_product

        whole = torch.from_numpy((values * 40).clip(-127, 127).astype(np.int8))

        def multiply_whole() -> None:
            with thread_count(threads):
                int8_product(whole[0], whole[1])

        return multiply_whole
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    first, second = torch.from_numpy(values[0]).to(kind), torch.from_numpy(values[1]).to(kind)
    result = torch.empty(size, size, dtype=kind)

    def multiply() -> None:
        with thread_count(threads):
            torch.mm(first, second, out=result)

    return multiply
