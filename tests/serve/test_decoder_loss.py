"""Decoders that are killed come back, however short the deadlines of the requests are."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import numpy as np
from tests.runtime.bundles import SPEC, held_out

from tesela.imaging.limits import DEFAULT_LIMITS
from tesela.imaging.preprocess import fitted_view
from tesela.serve.config import ServeConfig
from tesela.serve.engine.decoder import DecodedView
from tesela.serve.engine.decoding import Decoders, is_alive
from tesela.serve.errors import RefusedError

IMAGE = held_out(1)[0][0]


async def ask(decoders: Decoders, seconds: float) -> DecodedView | None:
    """The view, or None where it was refused because of its deadline."""
    try:
        return await decoders.view(IMAGE, SPEC, deadline=time.monotonic() + seconds)
    except RefusedError as error:
        assert error.code == "deadline"
        return None


def test_short_deadlines_do_not_keep_decoders_from_starting() -> None:
    """Starting takes longer than the 0.2 s that a request has; requests come all the while, and after a
    time they are answered, each time that all processes have been killed."""

    async def scenario() -> None:
        decoders = Decoders(ServeConfig(decoders=2))
        await decoders.start()
        wanted = fitted_view(IMAGE, SPEC, limits=DEFAULT_LIMITS)[0]
        for _ in range(2):
            killed = set(decoders._started)
            assert killed
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            while any(map(is_alive, killed)):
                await asyncio.sleep(0.01)
            until = time.monotonic() + 60
            while (found := await ask(decoders, 0.2)) is None:
                assert time.monotonic() < until
            assert np.array_equal(found[0], wanted)
        many = await asyncio.gather(*(ask(decoders, 60) for _ in range(8)))
        assert all(one is not None and np.array_equal(one[0], wanted) for one in many)
        assert len(decoders._started) <= 3
        await decoders.stop()

    asyncio.run(scenario())


#: Ends its event loop while decoders start, some seconds after they have been asked to.
ENDS = """
import asyncio, os, signal, sys
from tesela.serve.config import ServeConfig
from tesela.serve.engine.decoding import Decoders

async def serve(seconds):
    decoders = Decoders(ServeConfig(decoders=1))
    await decoders.start()
    for pid in decoders._started:
        os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(0.05)
    for _ in range(2):
        decoders._start_one()
    await asyncio.sleep(seconds)
    await decoders.stop()

if __name__ == "__main__":
    for seconds in (0, 0.0005, 0.001, 0.002, 0.005, 0.02):
        asyncio.run(serve(seconds))
"""


def test_decoders_that_are_starting_do_not_hold_up_the_end() -> None:
    """An event loop that is cancelled while a process starts would wait for ever."""
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", ENDS],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0
    assert "unclosed" not in done.stderr


def test_an_image_is_decoded_although_all_processes_that_waited_have_ended() -> None:
    """One after another is found to be dead; the image is not to blame."""

    async def scenario() -> None:
        decoders = Decoders(ServeConfig(decoders=2))
        await decoders.start()
        assert len(decoders._started) == 3  # one for images that take long, before there is any
        for pid in decoders._started:
            os.kill(pid, signal.SIGKILL)
        found = await decoders.view(IMAGE, SPEC, deadline=time.monotonic() + 60)
        assert np.array_equal(found[0], fitted_view(IMAGE, SPEC, limits=DEFAULT_LIMITS)[0])
        await decoders.stop()

    asyncio.run(scenario())
