"""Capacity, steady load and overload: R12, R13, and the throughput and overhead of P12."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.reliability.load import Load, Shot, answered, percentile, refused
from benchmarks.reliability.material import bundle
from benchmarks.reliability.plan import BOUND, Plan
from benchmarks.reliability.target import ROOT, Target

#: Numbers of clients among which the capacity is the best.
CLIENTS = (4, 8, 16, 32, 64)
#: Multiples of the capacity.
OVERLOADS = (5, 20)


async def capacity(load: Load, seconds: float) -> float:
    """Answers a second in time, by the best number of clients."""
    found = []
    for clients in CLIENTS:
        shots = await load.closed_loop(clients, seconds)
        begin = min(shot.due for shot in shots)
        found.append(sum(shot.done - begin <= seconds for shot in answered(shots, within=BOUND)) / seconds)
    if not max(found):
        raise RuntimeError("the server answers nobody in time: this machine has too much else to do")
    return max(found)


async def unloaded(load: Load, seconds: float) -> float:
    """Median seconds of a client that is alone."""
    return percentile(answered(await load.closed_loop(1, seconds)), 0.5)


async def overloaded(plan: Plan, server: Target, rate: float, alone: float) -> dict[str, Any]:
    """What becomes of requests at a multiple of the capacity, and of those that begin 2 s after it."""
    seconds, load = plan.size.overload_seconds, plan.load(server)
    before, most, stop = server.memory(), 0, False

    async def watch() -> None:
        nonlocal most
        while not stop:
            most = max(most, server.memory())
            await asyncio.sleep(0.25)

    watching = asyncio.create_task(watch())
    shots = await load.open_loop(rate, seconds, settle=False)
    stop = True
    await watching
    await asyncio.sleep(2.0)
    calm = plan.load(server)
    after = await calm.open_loop(0.5 / alone, max(2.0, seconds / 10))
    await load.settled()
    await load.close()
    await calm.close()
    served, refusals = answered(shots), refused(shots)
    warm = [shot for shot in answered(shots, within=BOUND) if shot.due - shots[0].due >= BOUND]
    return {
        "asked_per_second": rate,
        "goodput": len(warm) / (seconds - BOUND),
        "late_share": 1 - len(answered(shots, within=BOUND)) / len(served) if served else None,
        "refused": len(refusals),
        "refused_p99_ms": percentile(refusals, 0.99) * 1e3 if refusals else None,
        "without_retry_after": sum(not shot.retry_after for shot in refusals),
        "other": len(shots) - len(served) - len(refusals),
        "memory_mib": (most - before) / 2**20,
        "after_p99_times": percentile(after, 0.99) / alone,
        "after": len(after),
        "after_failures": len(after) - len(answered(after)),
    }


async def measure(plan: Plan) -> dict[str, Any]:
    """The figures of R12 and R13."""
    seconds = plan.size.steady_seconds
    with plan.start() as server:
        load = plan.load(server)
        await load.closed_loop(4, min(2.0, plan.size.capacity_seconds))
        alone = await unloaded(load, plan.size.capacity_seconds)
        most = await capacity(load, plan.size.capacity_seconds)
        used = server.processor_seconds()
        steady = await load.open_loop(0.7 * most, seconds)
        used = server.processor_seconds() - used
        chance = await load.open_loop(0.7 * most, seconds / 5, poisson=True)
        await load.close()
        over = {}
        for times in OVERLOADS:
            found = await overloaded(plan, server, times * most, alone)
            over[str(times)] = {**found, "goodput_share": found["goodput"] / most}
    return {
        "unloaded_p50_ms": alone * 1e3,
        "capacity": most,
        "steady": {
            "requests": len(steady),
            "failures": len(steady) - len(answered(steady)),
            "p99_times": percentile(steady, 0.99) / alone,
            "processor_ms": used / len(steady) * 1e3,
            "random_failures": len(chance) - len(answered(chance)),
            "random_p99_times": percentile(chance, 0.99) / alone,
        },
        "overload": over,
    }


def bare(plan: Plan) -> dict[str, float]:
    """The model without a server, on the server's cores: see ``bare.py``."""
    command = [sys.executable, "-m", "benchmarks.reliability.bare", str(bundle(plan.folder, plan.model))]
    command += [plan.model, str(plan.size.capacity_seconds / 4)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(len(plan.cores.server))}
    os.sched_setaffinity(0, plan.cores.server)
    try:
        done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT, env=environment)
    finally:
        os.sched_setaffinity(0, plan.cores.load)
    found: dict[str, float] = json.loads(done.stdout)
    return found


async def throughput(plan: Plan) -> dict[str, Any]:
    """The figures of P12: the server between two runs of the bare model; the better of these counts."""
    first = bare(plan)
    with plan.start() as server:
        load = plan.load(server)
        await load.closed_loop(4, min(2.0, plan.size.capacity_seconds))
        most = await capacity(load, plan.size.capacity_seconds)
        alone = await unloaded(load, plan.size.capacity_seconds)
        await load.close()
    second = bare(plan)
    best = max(first["per_second"], second["per_second"])
    decoding = max(first["decoding_per_second"], second["decoding_per_second"])
    single = min(first["single_seconds"], second["single_seconds"])
    return {
        "bare_per_second": best,
        "server_per_second": most,
        "share": most / best,
        "decoding_per_second": decoding,
        "share_of_decoding": most / decoding,
        "bare_single_ms": single * 1e3,
        "overhead_ms": (alone - single) * 1e3,
    }


def lost(shots: list[Shot]) -> list[Shot]:
    """Requests that were neither served nor refused."""
    return [shot for shot in shots if shot.status not in (200, 429, 503)]
