"""Score and serve on a local cluster of two nodes with Ray and compare with one machine.

    RAY_USAGE_STATS_ENABLED=0 python scripts/check_ray.py RUN --images 400
    RAY_USAGE_STATS_ENABLED=0 python scripts/check_ray.py RUN --part serving --seconds 30 --kills 2

Two nodes run on this machine. Scoring: the same images are scored by the local engine and by Ray; one of the
nodes is killed while Ray is at work. No row may be missing, there twice, or have another answer. Serving:
replicas are killed while clients ask; no accepted request may be lost, no answer differ from that of one
server, none of what was inside be lost at SIGTERM, and no process stay. The last line is JSON. Ray has to be
importable, by ``pip install "tesela[ray]"``.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image


def make_images(folder: Path, count: int) -> None:
    """Random pictures, every fiftieth damaged."""
    draw = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        path = folder / f"{number:06d}.png"
        Image.fromarray(draw.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
        if number % 50 == 7:
            path.write_bytes(path.read_bytes()[:60])


def rows_of(out: Path) -> list[dict[str, Any]]:
    """All rows, part after part."""
    parts = sorted(out.glob("part-*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text(encoding="utf-8").splitlines()]


def answer(row: dict[str, Any]) -> tuple[Any, ...]:
    """What has to be equal: the image, the label, the reason."""
    return row["image"], row.get("label"), (row["error"] or {}).get("code")


class Server:
    """``tesela serve`` in a process of its own."""

    def __init__(self, run: str, backend: str, *words: str, address: str = "") -> None:
        command = [sys.executable, "-m", "tesela", "serve", run, "--port", "0", "--json", *words]
        command += ["--backend", backend, "--precision", "fp32"]
        environment = {**os.environ, **({"RAY_ADDRESS": address} if address else {})}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the server ended with {self.process.wait()}")
        self.host = json.loads(line)["address"].removeprefix("http://")

    def ask(self, path: str, image: bytes) -> tuple[int, bytes]:
        """Status and body."""
        connection = http.client.HTTPConnection(self.host, timeout=120)
        try:
            connection.request("POST", path, image, {"content-type": "image/png"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def end(self) -> int:
        """Exit code after SIGTERM."""
        self.process.terminate()
        return self.process.wait(120)


def same(found: Any, wanted: Any) -> bool:
    """Whether two bodies are equal, numbers to 1e-5: the size of a batch changes their last digits."""
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(same(found[name], wanted[name]) for name in wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(wanted, float):
        return abs(float(found) - wanted) <= 1e-5
    return bool(found == wanted)


class Load:
    """Clients that ask without a pause, each for all questions in turn."""

    def __init__(self, server: Server, questions: list[tuple[str, bytes]], wanted: list[bytes]) -> None:
        self._server, self._questions, self._wanted = server, questions, wanted
        self._stop = threading.Event()
        self.signalled = float("inf")
        self.counts = dict.fromkeys(("equal", "refused", "other_answers", "lost"), 0)
        self.faults: list[str] = []
        self.longest = 0.0
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(8)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait for the last answers."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        while not self._stop.is_set():
            number = (number + 1) % len(self._questions)
            begun = time.monotonic()
            try:
                status, body = self._server.ask(*self._questions[number])
            except (OSError, http.client.HTTPException) as error:
                if begun > self.signalled:  # it listens no more
                    return
                self._count("lost", repr(error))
                continue
            self.longest = max(self.longest, time.monotonic() - begun)
            if status == 200:
                equal = same(json.loads(body), json.loads(self._wanted[number]))
                self._count("equal" if equal else "other_answers", "" if equal else repr(body[:200]))
            elif status == 503 and json.loads(body)["code"] == "overloaded":
                self._count("refused", "")  # at the door
            else:
                self._count("lost", f"{status} {body[:200]!r}")

    def _count(self, kind: str, fault: str) -> None:
        self.counts[kind] += 1
        self.faults += [fault] if fault else []


def replicas_here() -> list[psutil.Process]:
    """Processes of replicas on the nodes that this script has started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "ServeReplica" in " ".join(process.cmdline()):
                found.append(process)
    return found


def check_serving(asked: argparse.Namespace, address: str) -> tuple[dict[str, Any], bool]:
    """Facts, and whether all is as it has to be."""
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder) / "images", 20)
        images = [path.read_bytes() for path in sorted((Path(folder) / "images").glob("*"))]
    questions = [("/v1/classify?top=5", image) for number, image in enumerate(images) if number != 7]
    plain = Server(asked.run, asked.backend, "--decoders", "1")
    wanted = [plain.ask(*question)[1] for question in questions]
    plain.end()
    begun = time.monotonic()
    words = ("--decoders", "1", "--engine", "ray", "--replicas", "2")
    server = Server(asked.run, asked.backend, *words, address=address)
    started = time.monotonic() - begun
    load = Load(server, questions, wanted)
    killed = 0
    decoders: list[psutil.Process] = []
    for _ in range(asked.kills):
        time.sleep(asked.seconds / (asked.kills + 1))
        for process in replicas_here()[:1]:
            decoders += process.children()
            process.kill()
            killed += 1
    time.sleep(asked.seconds / (asked.kills + 1))
    alive = len(replicas_here())
    load.signalled = time.monotonic()
    code = server.end()
    load.stop()
    time.sleep(2)
    facts = {
        **load.counts,
        "kills": killed,
        "replicas_before_the_end": alive,
        "seconds_to_start": round(started, 1),
        "longest_answer": round(load.longest, 2),
        "exit_code": code,
        "decoders_left": sum(process.is_running() for process in decoders),
        "replicas_left": len(replicas_here()),
        "faults": load.faults[:5],
    }
    bad = ("lost", "other_answers", "exit_code", "decoders_left", "replicas_left")
    return facts, killed == asked.kills and load.counts["equal"] > 0 and not any(facts[name] for name in bad)


def main() -> int:
    """Exit code 1 if a row differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--part", choices=("scoring", "serving"), default="scoring")
    parser.add_argument("--seconds", type=float, default=30.0, help="of load, when serving")
    parser.add_argument("--kills", type=int, default=2, help="of replicas, when serving")
    asked = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster_utils = importlib.import_module("ray.cluster_utils")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    other = cluster.add_node(num_cpus=1)
    if asked.part == "serving":
        told_by_load, right = check_serving(asked, cluster.address)
        cluster.shutdown()
        sys.stdout.write(json.dumps(told_by_load) + "\n")
        return int(not right)
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make_images(place / "images", asked.images)

        def command(engine: str) -> list[str]:
            words = ["predict", asked.run, str(place / "images"), "--out", str(place / f"{engine}.jsonl")]
            words += ["--parts", str(asked.rows), "--engine", engine, "--threads", "1", "--json"]
            words += ["--backend", asked.backend, "--precision", "fp32"]
            return [sys.executable, "-m", "tesela", *words]

        subprocess.run(command("local"), check=False, stdout=subprocess.PIPE)
        begin = time.monotonic()
        scoring = subprocess.Popen(command("ray"), env=environment, stdout=subprocess.PIPE, text=True)
        while scoring.poll() is None and not list((place / "ray.jsonl").glob("part-*")):
            time.sleep(0.02)
        before = len(list((place / "ray.jsonl").glob("part-*")))
        cluster.remove_node(other, allow_graceful=False)
        told, _ = scoring.communicate()
        seconds = time.monotonic() - begin
        local, found = rows_of(place / "local.jsonl"), rows_of(place / "ray.jsonl")
        wrong = sum(answer(one) != answer(two) for one, two in zip(local, found, strict=False))
        facts = {
            "images": asked.images,
            "parts_before_kill": before,
            "parts": len(list((place / "ray.jsonl").glob("part-*"))),
            "missing": asked.images - len({row["image"] for row in found}),
            "twice": len(found) - len({row["image"] for row in found}),
            "other_answers": wrong,
            "equal_to_the_bit": local == found,
            "exit_code": scoring.returncode,
            "seconds": round(seconds, 1),
            "told": json.loads(told.splitlines()[-1]) if told.strip() else None,
        }
    cluster.shutdown()
    sys.stdout.write(json.dumps(facts) + "\n")
    return int(bool(facts["missing"] or facts["twice"] or wrong or scoring.returncode != 1))


if __name__ == "__main__":
    raise SystemExit(main())
