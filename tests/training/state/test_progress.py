"""Means of what was logged since the last row."""

from __future__ import annotations

from tesela.training.state.progress import Sums


def test_means_are_weighted_and_begin_again() -> None:
    """Reference: the weighted mean by hand; nothing of the first window is in the second."""
    meter = Sums()
    meter.add(3, {"loss": 2.0})
    meter.add(1, {"loss": 6.0})
    assert meter.means() == {"loss": 3.0}
    meter.clear()
    meter.add(2, {"loss": 5.0})
    assert meter.means() == {"loss": 5.0}
