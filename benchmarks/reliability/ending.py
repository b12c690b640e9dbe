"""Deadlines, SIGTERM and killed workers under load: R14."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import urllib.request
from typing import Any

from benchmarks.reliability.load import LOST, NO_ANSWER, answered, refused
from benchmarks.reliability.overload import capacity
from benchmarks.reliability.plan import Plan


def counter(text: str, name: str) -> float:
    """The sum of a counter in Prometheus' text form."""
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))


async def deadlines(plan: Plan) -> dict[str, Any]:
    """Requests that the model computed though their time was over, while its first batch takes too long.

    Each answer in time is one computed image; so are those of the batch that was held.
    """
    words = ["--deadline", "0.8", "--max-batch", "2"]
    with plan.start(words=words, model="vit_nano", failpoint="serve.batch=sleep:4") as server:
        load = plan.load(server, model="vit_nano")
        shots = await load.open_loop(40, 0.6)
        await load.close()
        with urllib.request.urlopen("http://{}:{}/metrics".format(*server.address), timeout=10) as answer:
            computed = counter(answer.read().decode(), "tesela_batch_images_sum")
    held = computed - len(answered(shots))
    return {
        "requests": len(shots),
        "refused": len(refused(shots)),
        "computed_late": max(0.0, held - 2),  # the batch of at most two that was held had begun in time
        "failures": len(shots) - len(answered(shots)) - len(refused(shots)),
    }


async def terminate(plan: Plan, times: float) -> dict[str, Any]:
    """SIGTERM in the middle of a load: what had been sent before and has no answer was lost."""
    seconds = plan.size.ending_seconds
    with plan.start(model="vit_nano") as server:
        load = plan.load(server, model="vit_nano", patience=10)
        most = await capacity(load, 1.0)
        begin = len(load.shots)
        shooting = asyncio.create_task(load.open_loop(times * most, seconds))
        await asyncio.sleep(seconds / 2)
        at = load.now()
        server.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(server.process.wait), 40)
        ended = load.now() - at
        shots = await shooting
        await load.close()
        code, left = server.process.poll(), len(server.group())
    del shots
    before = [shot for shot in load.shots[begin:] if shot.sent and shot.sent < at - 0.02]
    return {
        "accepted": len(before),
        "accepted_lost": sum(shot.status in (LOST, NO_ANSWER) for shot in before),
        "seconds_to_end": ended,
        "exit_code": code,
        "left_running": left,
    }


async def kill_workers(plan: Plan) -> dict[str, Any]:
    """Each worker process killed with SIGKILL while requests are inside."""
    seconds = plan.size.ending_seconds
    with plan.start(model="vit_nano") as server:
        load = plan.load(server, model="vit_nano", patience=10)
        most = await capacity(load, 1.0)
        workers = server.workers()
        shooting = asyncio.create_task(load.open_loop(0.7 * most, seconds))
        for worker in workers:
            await asyncio.sleep(seconds / 2 / len(workers))
            with contextlib.suppress(OSError):
                os.kill(worker, signal.SIGKILL)
        shots = await shooting
        afterwards = await load.closed_loop(1, 1.0)
        await load.close()
    return {
        "workers": len(workers),
        "hung": sum(shot.status == NO_ANSWER for shot in shots),
        "failed": sum(shot.status not in (200, 429, 503, NO_ANSWER) for shot in shots),
        "alive_after": bool(answered(afterwards)),
    }


async def measure(plan: Plan) -> dict[str, Any]:
    """The figures of R14; the first one needs tesela's failpoints."""
    found: dict[str, Any] = {
        "terminate": {str(times): await terminate(plan, times) for times in (0.7, 5)},
        "kill": await kill_workers(plan),
    }
    if plan.target == "tesela":
        found["deadlines"] = await deadlines(plan)
    return found
