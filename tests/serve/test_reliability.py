"""The figures of the server under load at a small size: ratios and counts, never times of a clock."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from benchmarks.reliability import ending, endurance, overload, sockets
from benchmarks.reliability.load import NO_ANSWER, Load, answered, refused
from benchmarks.reliability.plan import SIZES, Plan
from benchmarks.reliability.table import missed, page
from benchmarks.reliability.target import ROOT, Cores

FIGURES = ROOT / "docs" / "reliability.json"
SMALL = replace(
    SIZES["ci"], capacity_seconds=0.5, overload_seconds=3, ending_seconds=2, sockets=150, requests=600
)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plan]:
    cores = frozenset(os.sched_getaffinity(0))
    yield Plan(
        target="tesela",
        size=SMALL,
        model="vit_nano",
        folder=tmp_path_factory.mktemp("bundles"),
        peers=None,
        cores=Cores(cores, cores),
    )
    os.sched_setaffinity(0, cores)


def test_deadlines_signals_and_kills(plan: Plan) -> None:
    late = asyncio.run(ending.deadlines(plan))
    assert late["computed_late"] == 0
    assert late["failures"] == 0
    stopped = asyncio.run(ending.terminate(plan, 2))
    assert stopped["accepted"] > 0
    assert (stopped["accepted_lost"], stopped["exit_code"]) == (0, 0)
    killed = asyncio.run(ending.kill_workers(plan))
    assert killed["workers"] >= 2
    assert (killed["hung"], killed["failed"]) == (0, 0)


def test_overload_is_refused_in_due_form_and_leaves_nothing_behind(plan: Plan) -> None:
    """At five times what it can do everybody is answered or refused with Retry-After; memory keeps to its
    bound, and two seconds later nobody is refused."""

    async def measured() -> dict[str, Any]:
        with plan.start() as server:
            load = plan.load(server)
            alone = await overload.unloaded(load, 0.5)
            most = await overload.capacity(load, 0.5)
            await load.close()
            return await overload.overloaded(plan, server, 5 * most, alone)

    found = asyncio.run(measured())
    assert found["refused"] > 0
    assert found["goodput"] > 0
    assert (found["without_retry_after"], found["other"]) == (0, 0)
    assert found["memory_mib"] <= 64
    assert found["after"] > 0
    assert found["after_failures"] == 0


def test_slow_sockets_keep_nobody_from_an_answer(plan: Plan) -> None:
    found = asyncio.run(sockets.measure(plan))
    assert found["sockets"] == 150
    assert found["requests"] > 10
    assert found["failures"] == 0


def test_mixed_requests_leave_nothing_behind(plan: Plan) -> None:
    found = asyncio.run(endurance.measure(plan))
    assert not {"500", "0", "-1"} & set(found["statuses"])
    assert {"200", "404", "415", "422"} <= set(found["statuses"])
    assert found["descriptors"] <= 4
    assert found["threads"] <= 2


def test_the_load_counts_from_the_time_that_is_due() -> None:
    """A server that answers one request in 0.1 s on one connection: of ten that are due every 0.02 s the last
    has waited for nine others."""

    async def scenario() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while await reader.readline():
                    await reader.readuntil(b"\r\n\r\n")
                    await asyncio.sleep(0.1)
                    writer.write(b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\nno")
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        load = Load(address, [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], patience=5, most=1)
        shots = await load.open_loop(50, 0.19)
        assert len(shots) == len(refused(shots)) == 10
        assert all(shot.retry_after for shot in shots)
        assert shots[-1].seconds >= 10 * 0.1 - 9 * 0.02 - 0.01
        assert answered(shots) == []
        hasty = Load(address, [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], patience=0.03, most=1)
        left = await hasty.open_loop(20, 0.1)
        assert {shot.status for shot in left} == {NO_ANSWER}
        await load.close()
        await hasty.close()
        await asyncio.sleep(0.3)
        server.close()
        await server.wait_closed()

    asyncio.run(scenario())


def test_the_page_is_written_from_the_figures() -> None:
    found = json.loads(FIGURES.read_text("utf-8"))
    assert (ROOT / "docs" / "reliability.md").read_text("utf-8") == page(found), (
        "run: python -m benchmarks.reliability.table docs/reliability.json docs/reliability.md"
    )


def test_rows_that_are_missed_are_named() -> None:
    found = {"load": {"tesela": {"overload": {"5": {"goodput_share": 0.9, "memory_mib": 10}}}}}
    assert missed(found) == ["5 C: answers in time, of C"]
