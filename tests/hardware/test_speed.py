"""Timings on calls whose length is known, and the matrix product's count of operations."""

from __future__ import annotations

import time

import pytest

from tesela.hardware.speed import matrix_rate, measure_speed


def test_median_of_a_call_of_known_length() -> None:
    timing = measure_speed(lambda: time.sleep(0.005), seconds=0.05, least=5)
    assert timing.calls >= 5
    assert 0.005 <= timing.low <= timing.median <= timing.high <= timing.p99
    assert timing.median < 0.05


def test_warm_up_calls_do_not_count() -> None:
    times = iter([0.2, 0.2] + [0.0] * 100)
    assert measure_speed(lambda: time.sleep(next(times)), seconds=0.0, least=5).high < 0.1


@pytest.mark.parametrize(
    ("engine", "precision"), [("torch", "fp32"), ("torch", "bf16"), ("torch", "int8"), ("numpy", "fp32")]
)
def test_rate_is_of_a_computer(engine: str, precision: str) -> None:
    """Any machine that runs this multiplies matrices at 10^7 to 10^15 operations per second."""
    assert 1e7 < matrix_rate(precision, size=256, seconds=0.02, engine=engine) < 1e15
