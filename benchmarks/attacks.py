"""Attacks on a server, each beside a client that asks for something ordinary.

    python benchmarks/attacks.py runs/demo --seconds 10 --out attacks.json

For each attack: the 99th percentile of the ordinary client's times calm and during it (50 requests a second,
counted from the moment at which each was due), the memory of the server's processes above the calm state, how
the attackers were answered and how late. Four kinds: files that ask for passes over their pixels, files that
ask for memory (``scripts/hostile_images.py``), sockets, and content types. Exit code 1 if a bound is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.hostile_images import PASSES, SIZES, hostile_file, jpeg, png
from scripts.hostile_sockets import SOCKETS

#: Bounds: times the calm percentile, bytes above the calm state, seconds of an answer.
SLOWER, MEMORY, DEADLINE = 2.0, 256 << 20, 20.0
#: Milliseconds below which a percentile counts as that many: timers and schedulers are no finer.
LEAST = 5.0
#: Requests a second of the ordinary client, and its connections.
RATE, CONNECTIONS = 50, 5
#: Attackers that send one file at once, and again after their answer and a pause in seconds: what is measured
#: is what a file costs, not what a flood of requests does.
ATTACKERS, PAUSE = 6, 1.0
#: Content types with what belongs to them; all are images and are answered.
TYPES: dict[str, tuple[str | None, Callable[[], bytes]]] = {
    "image/jpg": ("image/jpg", jpeg),
    "none": (None, jpeg),
    "empty": ("", jpeg),
    "image/pjpeg": ("image/pjpeg", jpeg),
    "with a parameter": ("IMAGE/JPEG; charset=binary", jpeg),
    "of another format": ("image/png", jpeg),
    "image/*": ("image/*", lambda: png((64, 64))),
    "image/x-png": ("image/x-png", lambda: png((64, 64))),
    "application/octet-stream": ("application/octet-stream", lambda: png((64, 64))),
}


@dataclass(slots=True)
class Target:
    """A server under attack, and how its attackers fared."""

    address: str
    stopped: threading.Event = field(default_factory=threading.Event)
    answers: list[tuple[float, int]] = field(default_factory=list)

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.address)
        return str(parts.hostname), int(parts.port or 80)


def post(place: tuple[str, int], body: bytes, kind: str | None, *, timeout: float = 60.0) -> int:
    """The status of an image that is sent."""
    connection = http.client.HTTPConnection(*place, timeout=timeout)
    try:
        headers = {} if kind is None else {"Content-Type": kind}
        connection.request("POST", "/v1/classify", body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def send_file(target: Target, data: bytes) -> None:
    """Send a file from several clients until the attack stops; every third leaves without its answer."""

    def attack(leaves: bool) -> None:
        while not target.stopped.is_set():
            began = time.monotonic()
            with contextlib.suppress(OSError, http.client.HTTPException):
                status = post(target.place, data, "image/jpeg", timeout=0.5 if leaves else 60.0)
                target.answers.append((time.monotonic() - began, status))
            target.stopped.wait(PAUSE)

    together([lambda leaves=number % 3 == 2: attack(leaves) for number in range(ATTACKERS)])  # type: ignore[misc]


def together(calls: list[Callable[[], None]]) -> None:
    """Run calls in a thread each, and wait for all."""
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def ordinary(address: str, image: bytes, seconds: float, rate: float = RATE) -> list[float]:
    """Seconds of ordinary requests from when each was due; a failed one counts as ten seconds."""
    place, found = Target(address).place, []
    start, count = time.monotonic() + 0.05, int(seconds * rate)

    def ask(first: int) -> None:
        connection = http.client.HTTPConnection(*place, timeout=10)
        for number in range(first, count, CONNECTIONS):
            due = start + number / rate
            time.sleep(max(0.0, due - time.monotonic()))
            for attempt in range(2):
                try:
                    connection.request("POST", "/v1/classify", image, {"Content-Type": "image/png"})
                    answer = connection.getresponse()
                    answer.read()
                    found.append(time.monotonic() - due if answer.status == 200 else 10.0)
                    break
                except (OSError, http.client.HTTPException):  # a kept connection may have been closed
                    connection.close()
                    if attempt:
                        found.append(10.0)
        connection.close()

    together([lambda first=first: ask(first) for first in range(CONNECTIONS)])  # type: ignore[misc]
    return found


def percentile(seconds: list[float], share: float = 0.99) -> float:
    """Of a list of seconds, in milliseconds."""
    values = sorted(seconds)
    return round(values[min(len(values) - 1, int(len(values) * share))] * 1000, 2)


def memory_of(process: int) -> int:
    """Bytes of a process and all below it, shared pages by their part."""
    total = 0
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            total += int(line.split()[1]) * 1024 if line.startswith("Pss:") else 0
        for task in Path(f"/proc/{process}/task").iterdir():
            total += sum(memory_of(int(word)) for word in (task / "children").read_text().split())
    return total


class Peak(threading.Thread):
    """The most memory that a process and all below it take while this runs."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._process, self._done, self.most = process, threading.Event(), memory_of(process)

    def run(self) -> None:
        """Look ten times a second."""
        while not self._done.wait(0.1):
            self.most = max(self.most, memory_of(self._process))

    def end(self) -> int:
        """The most bytes."""
        self._done.set()
        self.join()
        return self.most


def measured(
    address: str, process: int, image: bytes, attack: Callable[[Target], None], *, seconds: float
) -> dict[str, Any]:
    """One attack: the ordinary client calm and during it, memory, and the attackers' answers."""
    spawn = get_context("spawn")
    with spawn.Pool(1) as pool:
        ordinary(address, image, 0.5)
        calm = pool.apply(ordinary, (address, image, seconds))
        before = memory_of(process)
        target, peak = Target(address), Peak(process)
        peak.start()
        attackers = threading.Thread(target=attack, args=(target,), daemon=True)
        attackers.start()
        time.sleep(min(0.5, seconds / 4))
        during = pool.apply(ordinary, (address, image, seconds))
        target.stopped.set()
        attackers.join(90)
        most = peak.end()
    calm_ms, during_ms = percentile(calm), percentile(during)
    latest = max((one for one, _ in target.answers), default=0.0)
    statuses = Counter(str(status) for _, status in target.answers)
    return {
        "calm_p99_ms": calm_ms,
        "attack_p99_ms": during_ms,
        "slower": round(max(during_ms, LEAST) / max(calm_ms, LEAST), 2),
        "memory_mib": round((most - before) / 2**20, 1),
        "latest_answer_s": round(latest, 2),
        "answers": dict(sorted(statuses.items())),
    }


def broken(row: dict[str, Any]) -> list[str]:
    """The bounds that a row breaks."""
    found = []
    if row.get("slower", 0) > SLOWER:
        found.append(f"others {row['slower']} times slower")
    if row.get("memory_mib", 0) * 2**20 > MEMORY:
        found.append(f"{row['memory_mib']} MiB more")
    if row.get("latest_answer_s", 0) > DEADLINE + 1:
        found.append(f"an answer after {row['latest_answer_s']} s")
    if any(status.startswith("5") and status != "503" for status in row.get("answers", {})):
        found.append("an answer 5xx")
    return found


def prepared(name: str) -> tuple[str, Callable[[Target], None]]:
    """The kind of an attack, and the attack, whose file is there before anything is measured."""
    if name in SOCKETS:
        return "sockets", lambda target: SOCKETS[name](target.place, target.stopped)
    data = hostile_file(name)
    return "passes" if name in PASSES else "sizes", lambda target: send_file(target, data)


def attack_server(
    run: Path,
    image: bytes,
    *,
    seconds: float,
    wanted: Callable[[str], bool] = lambda _: True,
    words: tuple[str, ...] = (),
) -> dict[str, dict[str, Any]]:
    """Name -> figures, of a server of a run or bundle that is started for it.

    Args:
        run: what is served.
        image: what the ordinary client sends.
        seconds: of each measurement.
        wanted: says by its name whether an attack is made.
        words: more words for ``tesela serve``.
    """
    command = [sys.executable, "-m", "tesela", "serve", str(run), "--port", "0", "--json", *words]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    found: dict[str, dict[str, Any]] = {}
    try:
        address = json.loads(server.stdout.readline())["address"]
        for name in (*PASSES, *SIZES, *SOCKETS):
            if wanted(name):
                kind, attack = prepared(name)
                row = measured(address, server.pid, image, attack, seconds=seconds)
                found[name] = {"kind": kind, **row, "broken": broken(row)}
                print(name, json.dumps(found[name]), flush=True)
        for name, (content_type, content) in TYPES.items():
            if wanted(name):
                status = post(Target(address).place, content(), content_type)
                wrong = [] if status == 200 else ["not answered"]
                found[f"content type: {name}"] = {
                    "kind": "types",
                    "answers": {str(status): 1},
                    "broken": wrong,
                }
        return found
    finally:
        server.terminate()
        server.wait(60)
        server.stdout.close()


def main() -> int:
    """Attack a server and say what gave way."""
    parser = argparse.ArgumentParser(description="A server under attack.")
    parser.add_argument("run", type=Path, help="run or bundle of a classifier")
    parser.add_argument(
        "--image", type=Path, help="what the ordinary client sends; a small drawing by default"
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", default="", help="a part of the names of the attacks that are made")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    image = given.image.read_bytes() if given.image else png((16, 16))
    found = attack_server(given.run, image, seconds=given.seconds, wanted=lambda name: given.only in name)
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print("| attack | others' p99, calm | during it | memory | latest answer | answers |")
    print("|---|---|---|---|---|---|")
    for name, row in found.items():
        answers = " ".join(f"{count} x {status}" for status, count in row["answers"].items())
        if "slower" in row:
            print(
                f"| {name} | {row['calm_p99_ms']} ms | {row['attack_p99_ms']} ms | {row['memory_mib']} MiB "
                f"| {row['latest_answer_s']} s | {answers} |"
            )
        else:
            print(f"| {name} | | | | | {answers} |")
    faults = {name: row["broken"] for name, row in found.items() if row["broken"]}
    print(json.dumps({"attacks": len(found), "broken": faults}))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
