"""What is measured on which server, at which size, and how a server is started for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.reliability.load import Load, request_bytes
from benchmarks.reliability.material import MODELS, bundle, photographs, segmenter
from benchmarks.reliability.target import Cores, Target

#: Seconds within which a client wants its answer: the servers' deadline where they have one.
BOUND = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How long and how much.

    Attributes:
        capacity_seconds: of each number of clients.
        steady_seconds: of 0.7 C.
        overload_seconds: of 5 C and of 20 C.
        ending_seconds: of load around a signal or a kill.
        sockets: that are slow.
        requests: of the long run.
        examples: of schemathesis for an operation.
    """

    capacity_seconds: float
    steady_seconds: float
    overload_seconds: float
    ending_seconds: float
    sockets: int
    requests: int
    examples: int

    def of_peer(self) -> Size:
        """The same with a tenth of the long runs, and a quarter of the others."""
        return replace(
            self,
            capacity_seconds=self.capacity_seconds / 4,
            steady_seconds=self.steady_seconds / 10,
            overload_seconds=max(4.0, self.overload_seconds / 4),
            requests=self.requests // 10,
        )


SIZES = {
    "full": Size(
        capacity_seconds=20,
        steady_seconds=600,
        overload_seconds=60,
        ending_seconds=10,
        sockets=2000,
        requests=300_000,
        examples=1000,
    ),
    "ci": Size(
        capacity_seconds=2,
        steady_seconds=6,
        overload_seconds=4,
        ending_seconds=3,
        sockets=300,
        requests=2000,
        examples=10,
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A server and the size of what is done to it.

    Attributes:
        target: of ``target.TARGETS``.
        model: of ``material.MODELS``, for everything that depends on the network's speed.
        folder: where bundles are made.
        peers: folder with the peers' packages.
    """

    target: str
    size: Size
    model: str
    folder: Path
    peers: Path | None
    cores: Cores

    def start(
        self, *, words: Sequence[str] = (), failpoint: str = "", model: str = "", segments: bool = False
    ) -> Target:
        """The running server."""
        bundles = [bundle(self.folder, model or self.model)]
        if segments:
            bundles.append(segmenter(self.folder))
        words = [*words, *(() if "--deadline" in words else ("--deadline", str(BOUND)))]
        return Target(
            self.target, bundles, words=words, peers=self.peers, cores=self.cores, failpoint=failpoint
        )

    def requests(self, model: str = "") -> list[bytes]:
        """Requests of one photograph each."""
        side = MODELS[model or self.model][1]
        return [request_bytes("/v1/classify", photograph) for photograph in photographs(side)]

    def load(self, server: Target, *, model: str = "", patience: float = 2 * BOUND) -> Load:
        """Load on the server."""
        return Load(server.address, self.requests(model), patience=patience)
