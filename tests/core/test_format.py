"""Numbers as text. Reference: by hand."""

from __future__ import annotations

import pytest

from tesela.core.format import byte_size, compact, duration, number, percent


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.24, "0.2 s"),
        (4.12, "4.1 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.7, "1 min"),
        (95, "1 min 35 s"),
        (120, "2 min"),
        (3599.7, "1 h"),
        (3605, "1 h"),
        (7260, "2 h 01 min"),
        (86_400 * 2, "48 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "unknown"),
        (-1, "unknown"),
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 KB"),
        (2_000_000, "2.0 MB"),
        (549_000_000, "549 MB"),
        (25_300_000_000, "25.3 GB"),
        (3_000_000_000_000, "3.0 TB"),
    ],
)
def test_byte_sizes(count: int | None, text: str) -> None:
    assert byte_size(count) == text


def test_percentages() -> None:
    assert [percent(0.125), percent(1.0), percent(0.98765, 1), percent(0.5, 2)] == [
        "12.5 %",
        "100 %",
        "98.8 %",
        "50.00 %",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.5, "0.5"), (5e-4, "5e-4"), (1.5e-5, "1.5e-5"), (20, "20"), (3e6, "3e6")]
)
def test_axis_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(86_567_656, "86.6M"), (4.2e9, "4.2G"), (950, "950"), (0.0512, "0.0512")]
)
def test_compact_numbers_have_three_digits(value: float, text: str) -> None:
    assert compact(value) == text
