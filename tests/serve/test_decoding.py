"""Decoding processes against the library, hostile images, and their own death."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts.hostile_images import flat, hostile_file, jpeg, png, with_scans
from tests.runtime.bundles import SPEC, held_out

from tesela.imaging.limits import DEFAULT_LIMITS
from tesela.imaging.preprocess import fitted_view
from tesela.imaging.spec import ImageSpec
from tesela.serve.config import ServeConfig
from tesela.serve.engine.decoder import GIVES_WAY, DecodedView
from tesela.serve.engine.decoding import Decoders, decoding_cost, is_alive
from tesela.serve.engine.gate import Gate
from tesela.serve.errors import RefusedError

IMAGE = held_out(1)[0][0]
#: Of a model of photographs.
COLOUR = ImageSpec(height=224, width=224, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
#: 10 megapixels in 30 kB, which is above the size of those that are decoded at the same time.
LARGE = png((2500, 4000))


def scenario(work: Callable[[Decoders], Awaitable[None]], **limits: Any) -> None:
    async def run() -> None:
        decoders = Decoders(ServeConfig(**{"decoders": 1, **limits}))
        await decoders.start()
        try:
            await work(decoders)
            assert decoders.inside == 0
        finally:
            await decoders.stop()

    asyncio.run(run())


def soon(seconds: float = 300.0) -> float:
    return time.monotonic() + seconds


async def refusal(decoders: Decoders, data: bytes) -> str:
    with pytest.raises(RefusedError) as caught:
        await decoders.view(data, SPEC, deadline=soon())
    return caught.value.code


def children() -> list[int]:
    """Decoders that this process has started and that live; other tests may have left processes too."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for word in (task / "children").read_text().split():
            if b"anyio.to_process" in Path(f"/proc/{word}/cmdline").read_bytes():
                found.append(int(word))
    return found


def peak_memory(process: int) -> int:
    """Bytes of memory that a process has used at most."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), 0)


class Copies(threading.Thread):
    """Looks at the copies of the decoders: how many there are at once, their niceness and their memory."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._done = threading.Event()
        self.peaks: dict[int, int] = {}
        self.nice: set[int] = set()
        self.most = 0

    def run(self) -> None:
        """Look every few milliseconds."""
        while not self._done.wait(0.002):
            found = copies()
            self.most = max(self.most, len(found))
            for process in found:
                with contextlib.suppress(OSError):
                    self.peaks[process] = max(self.peaks.get(process, 0), peak_memory(process))
                    self.nice.add(os.getpriority(os.PRIO_PROCESS, process))

    def __enter__(self) -> Copies:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


def copies() -> list[int]:
    """Copies of the decoders that are alive."""
    found: list[int] = []
    for process in children():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{process}/task/{process}/children").read_text().split()
            found += [int(word) for word in words]
    return found


def test_views_equal_the_librarys() -> None:
    async def work(decoders: Decoders) -> None:
        for data in (IMAGE, jpeg(), LARGE):
            view, size = await decoders.view(data, SPEC, deadline=soon())
            wanted, wanted_size = fitted_view(data, SPEC, limits=DEFAULT_LIMITS)
            assert np.array_equal(view, wanted)
            assert size == wanted_size

    scenario(work)


@pytest.mark.parametrize(
    "name", ["Huffman tables 9,000 times", "EXIF of 5 MB that points to itself", "PNG, profile of 1 GB"]
)
def test_a_file_out_of_proportion_to_its_pixels_gives_way(name: str) -> None:
    """It has 64 x 64 pixels; what else is in it takes a decoder's time."""

    async def work(decoders: Decoders) -> None:
        with Copies() as seen:
            await decoders.view(IMAGE, SPEC, deadline=soon())
            assert not seen.nice
            await decoders.view(hostile_file(name), SPEC, deadline=soon())
        assert GIVES_WAY in seen.nice

    scenario(work)


@pytest.mark.parametrize(("fast", "bytes_of_a_pixel"), [(True, 6), (False, 7)])
def test_a_progressive_image_costs_what_its_reader_takes(
    fast: bool, bytes_of_a_pixel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coefficients of two bytes for 1.5 samples a pixel; beside them simplejpeg has 3 bytes, Pillow 4."""
    monkeypatch.setattr("tesela.imaging.jpeg._decoder", (lambda: object()) if fast else lambda: None)
    cost = decoding_cost(flat((1000, 2000)), SPEC, DEFAULT_LIMITS)
    assert cost.bytes == 2_000_000 * bytes_of_a_pixel + 1000 * (8 + 32) + 2000 * 48


def test_what_a_lenient_reader_would_need_more_memory_for_is_refused() -> None:
    """A progressive JPEG of 40 megapixels has room; with scans that repeat others it is left to Pillow, whose
    pixels have four bytes."""

    async def work(decoders: Decoders) -> None:
        view, size = await decoders.view(flat((5000, 8000)), COLOUR, deadline=soon())
        assert (view.shape, size) == ((224, 224, 3), (5000, 8000))
        assert await refusal(decoders, hostile_file("progressive, 40 megapixels, 7 scans more")) == (
            "too_many_pixels"
        )

    scenario(work)


def test_a_hostile_image_is_refused_while_others_are_answered() -> None:
    async def work(decoders: Decoders) -> None:
        begun = time.monotonic()
        bad = [asyncio.create_task(refusal(decoders, with_scans(jpeg(), 2000))) for _ in range(4)]
        await decoders.view(IMAGE, SPEC, deadline=soon())
        assert {await one for one in bad} == {"too_much_work"}
        assert time.monotonic() - begun < 2

    scenario(work)


def test_a_decoder_that_takes_too_long_is_ended_and_replaced() -> None:
    async def work(decoders: Decoders) -> None:
        await decoders.view(IMAGE, SPEC, deadline=soon())
        before = children()
        decoders._seconds = 0.002
        assert await refusal(decoders, png((1200, 1200))) == "too_much_work"
        decoders._seconds = 20.0
        await decoders.view(IMAGE, SPEC, deadline=soon())
        assert len(set(before) - set(children())) == 1  # a second one may have been started
        assert len(children()) <= 2

    scenario(work)


@pytest.mark.parametrize("data", [LARGE, with_scans(flat((800, 800)), 200)], ids=["large", "scans"])
def test_a_copy_that_takes_too_long_is_ended_and_its_process_stays(data: bytes) -> None:
    """By its own work, which is counted without the machine's other load, or at its deadline."""

    async def work(decoders: Decoders) -> None:
        await decoders.view(IMAGE, SPEC, deadline=soon())
        before = children()
        decoders._seconds = 0.02
        assert await refusal(decoders, data) == "too_much_work"
        decoders._seconds = 20.0
        with pytest.raises(RefusedError, match="deadline"):
            await decoders.view(data, SPEC, deadline=soon(0.03))
        while decoders.inside or copies():
            await asyncio.sleep(0.005)
        await decoders.view(data, SPEC, deadline=soon())
        assert set(before) <= set(children())

    scenario(work)


def test_slow_images_give_way_and_leave_a_process_to_small_ones() -> None:
    """Images that hold every slow place, of many pixels or of many scans, run at a lower priority; a small
    one is answered by a process of the usual one before any of them."""

    async def work(decoders: Decoders) -> None:
        slow = [png((2000, 3000)), with_scans(flat((800, 800)), 300)] * 2
        with Copies() as seen:
            crowd = [asyncio.create_task(decoders.view(data, SPEC, deadline=soon())) for data in slow]
            while not copies():
                await asyncio.sleep(0.001)
            await decoders.view(IMAGE, SPEC, deadline=soon())
            assert not all(one.done() for one in crowd)
            await asyncio.gather(*crowd)
        assert seen.most <= 2
        assert max(seen.nice) == os.getpriority(os.PRIO_PROCESS, 0) + GIVES_WAY
        assert {os.getpriority(os.PRIO_PROCESS, one) for one in children()} == {
            os.getpriority(os.PRIO_PROCESS, 0)
        }

    scenario(work, decoders=2)


def test_slow_images_leave_half_of_the_queue_and_hold_up_nobody() -> None:
    """Of a queue of four places two slow images have none while they are decoded; a third is refused, and a
    small one is let in by a gate that would take them for a long wait."""

    async def work(decoders: Decoders) -> None:
        gate = Gate(4, seconds=10.0)

        async def ask(data: bytes) -> DecodedView:
            with gate.enter():
                return await decoders.view(data, SPEC, deadline=soon(), aside=gate.aside)

        slow = [asyncio.create_task(ask(data)) for data in (LARGE, with_scans(flat((800, 800)), 200))]
        while decoders._slow_inside < 2:
            await asyncio.sleep(0.001)
        assert gate.inside == 0
        with pytest.raises(RefusedError, match="overloaded"):
            await ask(LARGE)
        await ask(IMAGE)
        assert not all(one.done() for one in slow)
        await asyncio.gather(*slow)
        assert gate.inside == 0

        left = asyncio.create_task(ask(LARGE))  # whose client goes away in the middle
        while not copies():
            await asyncio.sleep(0.001)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        assert (gate.inside, decoders._slow_inside) == (0, 1)
        while decoders.inside:
            await asyncio.sleep(0.005)
        assert decoders._slow_inside == 0

    scenario(work, queue=4)


def test_a_copy_ends_with_its_process() -> None:
    async def work(decoders: Decoders) -> None:
        asked = asyncio.create_task(decoders.view(LARGE, SPEC, deadline=soon()))
        while not (found := copies()):
            await asyncio.sleep(0.001)
        for process in children():
            os.kill(process, signal.SIGKILL)
        while any(map(is_alive, found)):
            await asyncio.sleep(0.005)
        await asked  # by another process

    scenario(work)


def test_a_decoder_that_dies_hangs_nobody() -> None:
    async def work(decoders: Decoders) -> None:
        for _ in range(2):
            for process in children():
                os.kill(process, signal.SIGKILL)
            view, _ = await decoders.view(IMAGE, SPEC, deadline=soon())
            assert np.array_equal(view, fitted_view(IMAGE, SPEC, limits=DEFAULT_LIMITS)[0])

    scenario(work)


def test_large_images_wait_for_each_other_and_small_ones_pass_by() -> None:
    """Six at once take the memory of one: 70 MB of pixels beside what a decoder needs to start."""

    async def work(decoders: Decoders) -> None:
        start = max(map(peak_memory, children()))
        with Copies() as seen:
            large = [asyncio.create_task(decoders.view(LARGE, SPEC, deadline=soon())) for _ in range(6)]
            await asyncio.sleep(0.05)
            await decoders.view(IMAGE, SPEC, deadline=soon())
            assert not all(one.done() for one in large)
            await asyncio.gather(*large)
        assert seen.most == 1
        assert max(seen.peaks.values()) - start < 140e6
        assert max(map(peak_memory, children())) - start < 40e6

    scenario(work)


def test_decoded_bytes_and_the_expected_wait_decide_who_is_let_in() -> None:
    cost = decoding_cost(LARGE, SPEC, DEFAULT_LIMITS).bytes
    assert cost == 10_000_000 * 4 + 2500 * (8 + 32) + 4000 * 48

    async def full(decoders: Decoders) -> None:
        first = [asyncio.create_task(decoders.view(LARGE, SPEC, deadline=soon())) for _ in range(2)]
        await asyncio.sleep(0)
        assert await refusal(decoders, LARGE) == "overloaded"
        await decoders.view(IMAGE, SPEC, deadline=soon())
        await asyncio.gather(*first)

    async def late(decoders: Decoders) -> None:
        decoders._rate = 2e-6
        first = asyncio.create_task(decoders.view(LARGE, SPEC, deadline=soon()))
        await asyncio.sleep(0)
        with pytest.raises(RefusedError, match="overloaded") as caught:
            await decoders.view(IMAGE, SPEC, deadline=soon(10))
        assert caught.value.headers == {"Retry-After": "60"}
        await first

    scenario(full, max_decoded=2 * cost + 10_000)
    scenario(late)


#: What colour images of 40 megapixels may add to the memory of all decoders.
MOST_MEMORY = 256 << 20
PLAIN, TALL = "PNG, 40 megapixels, 16-bit RGBA", "PNG, 1 pixel wide, 40 million high"


def test_large_images_keep_within_their_memory() -> None:
    """The most that is allowed of every layout, for a model of colours: answered, or refused by its header;
    no process has more than it may in the end."""

    async def work(decoders: Decoders) -> None:
        start = min(map(peak_memory, children()))
        answered = set()
        seen = Copies()
        seen.start()
        for name in (PLAIN, TALL, "WebP, 40 megapixels", "JPEG, 40 megapixels, CMYK, progressive"):
            try:
                await decoders.view(hostile_file(name), COLOUR, deadline=soon(60))
                answered.add(name)
            except RefusedError as error:
                assert error.code in ("too_many_pixels", "too_much_work")
        seen.__exit__()
        grown = sum(peak_memory(process) - start for process in children())
        assert grown + max(seen.peaks.values()) < MOST_MEMORY
        assert answered == {PLAIN}

    scenario(work)


def test_memory_of_formats_that_hold_several_pictures_is_known_from_the_header() -> None:
    for data, allowed in (
        (flat((2000, 2000), kind="WEBP", lossless=True), 4_000_000 * 16),
        (flat((2000, 2000), mode="CMYK"), 4_000_000 * 12),
        (flat((2000, 2000), subsampling=0), 4_000_000 * 9),
        (flat((2000, 2000), subsampling=2), 4_000_000 * 6),
        (flat((2000, 2000), mode="L"), 4_000_000 * 3),
    ):
        assert decoding_cost(data, SPEC, DEFAULT_LIMITS).bytes == allowed + 2000 * (8 + 32 + 48)


def test_memory_has_a_ceiling() -> None:
    async def work(decoders: Decoders) -> None:
        assert await refusal(decoders, LARGE) == "too_many_pixels"
        await decoders.view(IMAGE, SPEC, deadline=soon())

    import tesela.serve.engine.decoding as module

    room, pixel = module.ROOM, module.PIXEL_ROOM
    module.ROOM, module.PIXEL_ROOM = 40 << 20, 0
    try:
        scenario(work)
    finally:
        module.ROOM, module.PIXEL_ROOM = room, pixel
