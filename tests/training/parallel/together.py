"""Several processes that train one model, started as a launcher starts them."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.training.digit_runs import TINY

from tesela.core.errors import TeselaError
from tesela.runs.folder import Run
from tesela.training.config import TrainConfig, layered
from tesela.training.run import train

#: No dropout: its draws belong to a rank. One row for each step.
PLAIN: dict[str, Any] = {
    "net": {"width": 16, "depth": 2, "heads": 2},
    "log_steps": 1,
    "batch_size": 16,
    "accumulate": 2,
    "epochs": 8,  # of 7 steps
    "optim": {"lr": 1e-3},  # the default; adamw lets differences of rounding grow with it
}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def together(count: int, call: Callable[[int], None], **environment: str) -> list[int]:
    """Exit codes of ``count`` processes that call the function with their rank, as torchrun would.

    A tesela error is an exit with its code.
    """
    port, context = free_port(), multiprocessing.get_context("fork")

    def one(rank: int) -> None:
        os.environ.update(
            environment,
            RANK=str(rank),
            WORLD_SIZE=str(count),
            LOCAL_RANK=str(rank),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        try:
            call(rank)
        except TeselaError as error:
            sys.stdout.write(f"rank {rank}: {error.message} | {error.hint}\n")
            sys.stdout.flush()
            os._exit(error.exit_code)

    processes = [context.Process(target=one, args=(rank,)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
        if process.exitcode is None:
            process.kill()
    return [int(process.exitcode if process.exitcode is not None else -9) for process in processes]


def trained(config: TrainConfig, count: int, *, resume: bool = False, **environment: str) -> list[int]:
    """Exit codes of ``count`` processes that train one run."""

    def one(rank: int) -> None:
        del rank
        train(config, resume=resume)

    return together(count, one, **environment)


def curve(run: Run) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl."""
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


def largest_difference(one: Run, other: Run) -> float:
    """Between the numbers of two runs' rows, which must be of the same steps."""
    first, second = curve(one), curve(other)
    assert [sorted(row) for row in first] == [sorted(row) for row in second]
    return max(
        abs(float(row[name]) - float(again[name]))
        for row, again in zip(first, second, strict=True)
        for name in row
        if isinstance(row[name], (int, float))
    )


def plain(out: Path, **changes: Any) -> TrainConfig:
    """The small run without dropout, with changes."""
    base = {name: value for name, value in TINY.items() if name != "net"}
    own = {name: value for name, value in PLAIN.items() if name != "net" or "model" not in changes}
    return layered(base, own, {"out": str(out)}, changes)
