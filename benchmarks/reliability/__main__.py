"""Measure the servers, write the figures as JSON and the page about them.

python -m benchmarks.reliability --size full --peers FOLDER --out F.json [--page docs/reliability.md]

Peers and schemathesis come from ``pip install --target FOLDER litserve schemathesis``. The last core is the
load's, the others are the servers'. Figures and targets can be chosen; others in the file are kept.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.reliability import contract, ending, endurance, overload, sockets
from benchmarks.reliability.material import MODELS
from benchmarks.reliability.plan import SIZES, Plan
from benchmarks.reliability.table import page
from benchmarks.reliability.target import TARGETS, Cores

FIGURES: dict[str, Callable[[Plan], Any]] = {
    "load": overload.measure,
    "throughput": overload.throughput,
    "ending": ending.measure,
    "sockets": sockets.measure,
    "endurance": endurance.measure,
    "contract": contract.measure,
}
#: Figures that only make sense for tesela.
OWN = ("contract",)


def machine() -> dict[str, Any]:
    """Where this was measured."""
    names = ("torch", "uvicorn", "fastapi", "httptools")
    return {
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        **{name: version(name) for name in names},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Reliability of the server under load, beside peers.")
    parser.add_argument("--size", choices=SIZES, default="ci")
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--model", choices=MODELS, default="vit_s16")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--figures", nargs="+", choices=FIGURES, default=list(FIGURES))
    parser.add_argument("--examples", type=int, help="of schemathesis for an operation")
    parser.add_argument("--requests", type=int, help="of the long run")
    words = parser.parse_args()
    size = SIZES[words.size]
    size = replace(size, examples=words.examples or size.examples, requests=words.requests or size.requests)
    found: dict[str, Any] = json.loads(words.out.read_text()) if words.out.exists() else {}
    found |= {"machine": machine(), "size": words.size, "model": words.model}
    cores = Cores.shared_out()
    with tempfile.TemporaryDirectory() as folder:
        for figure in words.figures:
            for target in words.targets:
                if figure in OWN and target != "tesela":
                    continue
                plan = Plan(
                    target=target,
                    size=size if target == "tesela" else size.of_peer(),
                    model=words.model,
                    folder=Path(folder),
                    peers=words.peers and words.peers.resolve(),
                    cores=cores,
                )
                begun = time.monotonic()
                result = FIGURES[figure](plan)
                if inspect.iscoroutine(result):
                    result = asyncio.run(result)
                found.setdefault(figure, {})[target] = result
                words.out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
                print(f"{figure} of {target}: {time.monotonic() - begun:.0f} s {result}", flush=True)
    if words.page:
        words.page.write_text(page(found), "utf-8")


if __name__ == "__main__":
    main()
