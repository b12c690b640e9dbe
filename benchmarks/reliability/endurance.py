"""Memory, descriptors and threads over very many mixed requests: R16."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any

import numpy as np
from benchmarks.reliability.load import request_bytes
from benchmarks.reliability.material import photographs
from benchmarks.reliability.plan import Plan
from benchmarks.reliability.target import Target

CLIENTS = 8
#: Samples of the memory; the first third is the warming up.
SAMPLES = 60


def mixture() -> list[bytes]:
    """A hundred requests: images, forms, explanations, damaged images, wrong addresses and parameters."""
    images = photographs(32)
    boundary = b"----tesela"
    parts = [
        b"--" + boundary + b'\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" + image + b"\r\n"
        for image in images[:3]
    ]
    form = b"".join(parts) + b"--" + boundary + b"--\r\n"
    kind = "multipart/form-data; boundary=----tesela"
    some = [request_bytes("/v1/classify", image) for image in images] * 8
    some += [request_bytes("/v1/classify?top=3", form, kind=kind)] * 6
    some += [request_bytes("/v1/classify", images[0][: len(images[0]) // 2])] * 6
    some += [request_bytes("/v1/classify", b"<html>")] * 4
    some += [request_bytes(f"/v1/classify?model={index}", images[0]) for index in range(4)]
    some += [request_bytes(f"/{index}", method="GET") for index in range(4)]
    some += [request_bytes("/v1/models", method="GET"), request_bytes("/healthz", method="GET")] * 3
    some += [request_bytes("/metrics", method="GET"), request_bytes("/v1/classify?top=x", images[0])]
    some += [request_bytes("/v1/explain", images[0]), request_bytes("/v1/heads", images[1])]
    some += [request_bytes("/v1/classify", b"a" * 200_000), request_bytes("/v1/explain", b"")]
    order = np.random.default_rng(0).permutation(len(some))
    return [some[index] for index in order]


async def leavers(server: Target) -> None:
    """Clients that go away in the middle of a body, some a second."""
    data = request_bytes("/v1/classify", photographs(32)[0])
    loop = asyncio.get_running_loop()
    while True:
        with contextlib.suppress(OSError):
            transport, _ = await loop.create_connection(asyncio.Protocol, *server.address)
            transport.write(data[: len(data) // 2])
            try:
                await asyncio.sleep(0.2)
            finally:
                transport.abort()


async def measure(plan: Plan) -> dict[str, Any]:
    """The figures of R16."""
    total = plan.size.requests
    memory: list[tuple[int, float]] = []
    counts: list[tuple[int, int]] = []
    done: Counter[int] = Counter()
    with plan.start(model="vit_nano") as server:
        load = plan.load(server, model="vit_nano", patience=10)
        load.requests = mixture()
        leaving = asyncio.create_task(leavers(server))
        while (number := sum(done.values())) < total:
            shots = await load.closed_loop(CLIENTS, max(0.5, total / SAMPLES / 400))
            done.update(shot.status for shot in shots)
            load.shots.clear()
            if number * SAMPLES // total != sum(done.values()) * SAMPLES // total:
                memory.append((sum(done.values()), server.memory() / 2**20))
                counts.append((server.descriptors(), server.threads()))
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await load.close()
    warm = memory[len(memory) // 3 :]
    slope = float(np.polyfit([number for number, _ in warm], [mib for _, mib in warm], 1)[0])
    middle = counts[len(counts) // 3]
    return {
        "requests": sum(done.values()),
        "statuses": {str(status): number for status, number in sorted(done.items())},
        "mib_per_100k": slope * 1e5,
        "descriptors": min(number for number, _ in counts[-5:]) - middle[0],
        "threads": min(number for _, number in counts[-5:]) - middle[1],
    }
