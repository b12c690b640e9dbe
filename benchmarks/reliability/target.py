"""A server under measurement: tesela, or a peer, in processes of its own on cores of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
#: Servers, in the order of the table.
TARGETS = ("tesela", "litserve", "fastapi")
_PEERS = {"litserve": "benchmarks.reliability.peers.lit", "fastapi": "benchmarks.reliability.peers.plain"}
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Cores:
    """Processor cores of the server and of the load, so that neither slows the other."""

    server: frozenset[int]
    load: frozenset[int]

    @classmethod
    def shared_out(cls) -> Cores:
        """The last allowed core for the load and the others for the server; all for both if there is one."""
        allowed = sorted(os.sched_getaffinity(0))
        return cls(frozenset(allowed[:-1] or allowed), frozenset(allowed[-1:]))


class Target:
    """A running server; leave the context to end it.

    Args:
        name: of TARGETS.
        bundles: models; peers take the first.
        words: more options of ``tesela serve``.
        peers: folder with the peers' packages.
        cores: of the server; the load's are set for this process.
        failpoint: see ``tesela.core.failpoint``; tesela only.
    """

    def __init__(
        self,
        name: str,
        bundles: Sequence[Path],
        *,
        words: Sequence[str] = (),
        peers: Path | None = None,
        cores: Cores | None = None,
        failpoint: str = "",
    ) -> None:
        self.name = name
        cores = cores or Cores(frozenset(os.sched_getaffinity(0)), frozenset(os.sched_getaffinity(0)))
        environment = {**os.environ, "OMP_NUM_THREADS": str(len(cores.server))}
        environment |= {"TESELA_FAILPOINT": failpoint} if failpoint else {}
        paths = [str(ROOT / "src"), str(ROOT), environment.get("PYTHONPATH", "")]
        if name == "tesela":
            command = [sys.executable, "-m", "tesela", "serve", *map(str, bundles)]
            command += ["--port", "0", "--json", *words]
        else:
            paths = [str(peers), *paths] if peers else paths
            port = free_port()
            command = [sys.executable, "-m", _PEERS[name], str(bundles[0]), str(port)]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        os.sched_setaffinity(0, cores.server)
        try:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE if name == "tesela" else subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=ROOT,
                env=environment,
                start_new_session=True,
            )
        finally:
            os.sched_setaffinity(0, cores.load)
        if name == "tesela":
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError("the server did not start")
            host, _, text = json.loads(line)["address"].removeprefix("http://").rpartition(":")
            self.address = (host, int(text))
        else:
            self.address = ("127.0.0.1", port)
        self.await_health(120)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def await_health(self, seconds: float) -> None:
        """Wait until the server answers.

        Raises:
            RuntimeError: it ended, or did not answer for so long.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                with urllib.request.urlopen("http://{}:{}/healthz".format(*self.address), timeout=5):
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"{self.name} does not answer")

    def end(self, number: int = signal.SIGTERM, *, within: float = 40.0) -> int:
        """The exit code after a signal; what is left of its processes is killed."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait(10)
        for pid in self.group():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def processes(self) -> list[int]:
        """The server's process and all below it."""
        return list(_tree(self.process.pid))

    def group(self) -> list[int]:
        """Processes of its session, also those whose parent has ended."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (place / "stat").read_text().rpartition(")")[2].split()
                if int(words[3]) == self.process.pid and words[0] != "Z":
                    found.append(int(place.name))
        return found

    def workers(self) -> list[int]:
        """Processes below the server's."""
        return self.processes()[1:]

    def memory(self) -> int:
        """Resident bytes of all its processes."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError, IndexError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
        return total

    def processor_seconds(self) -> float:
        """Processor time that all its processes have used."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += sum(map(int, words[11:13]))
        return total / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        """Open files and sockets of the server's process."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def threads(self) -> int:
        """Threads of the server's process."""
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))
