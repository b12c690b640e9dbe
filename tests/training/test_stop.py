"""Signals: the first asks, the second aborts; an interruptible block breaks off at once."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tesela.training.stop import Stop, StopRequested


def test_outside_an_interruptible_block_the_request_is_noted() -> None:
    """Work goes on until it looks."""
    stop = Stop()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert stop.requested
        assert stop.signal is signal.SIGTERM


def test_inside_one_it_is_raised() -> None:
    """Reading data or validating is broken off."""
    stop = Stop()
    with stop.listening(), pytest.raises(StopRequested), stop.interruptible():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)


def test_a_request_that_came_before_the_block_breaks_it_off_too() -> None:
    """No signal is lost between two blocks."""
    stop = Stop()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        with pytest.raises(StopRequested), stop.interruptible():
            pytest.fail("the block was entered")


def test_the_second_signal_aborts() -> None:
    """Somebody is impatient."""
    stop = Stop()
    with stop.listening(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)


def test_handlers_are_put_back() -> None:
    """The library leaves the process as it found it."""
    before = signal.getsignal(signal.SIGTERM)
    with Stop().listening():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
