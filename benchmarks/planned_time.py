"""Planned against real time of trainings, and the time to the first line.

    python benchmarks/planned_time.py CIFAR10 --out FOLDER [--minutes 1,3,10]

Six runs: from scratch for 1, 3 and 10 minutes, the head alone for 1, fine-tuning for 3 and 10. The number of
epochs that takes so long is found with the plan of a run of one epoch; then the run is made without a time
budget, and what its plan said is held against what it took. Last result: see LOG.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

KINDS = {
    "from scratch": ["--recipe", "cifar10_compact"],
    "head only": ["--recipe", "head_only"],
    "fine-tuning": ["--recipe", "finetune"],
}
RUNS = (
    ("from scratch", 0),
    ("from scratch", 1),
    ("from scratch", 2),
    ("head only", 0),
    ("fine-tuning", 1),
    ("fine-tuning", 2),
)


def train(
    data: str, kind: str, out: Path, *, epochs: int, source: Path, subset: int
) -> tuple[float, float, float]:
    """Planned and real seconds of a run, and seconds to its first line."""
    shutil.rmtree(out, ignore_errors=True)
    start = [] if kind == "from scratch" else ["--from", str(source)]
    words = [sys.executable, "-m", "tesela", "train", data, *KINDS[kind], *start]
    words += ["--epochs", str(epochs), "--data.subset", str(subset), "--out", str(out)]
    begin = time.monotonic()
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.readline()
        first = time.monotonic() - begin
        process.stderr.read()
    real = time.monotonic() - begin
    return json.loads((out / "choices.json").read_text())["planned_seconds"], real, first


def epochs_for(data: str, kind: str, out: Path, *, seconds: float, source: Path, subset: int) -> int:
    """Epochs that take about so long, by the plans of runs of one and of three."""
    one, three = (train(data, kind, out, epochs=n, source=source, subset=subset)[0] for n in (1, 3))
    return max(1, round(1 + (seconds - one) / max((three - one) / 2, 1e-3)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", default="1,3,10")
    parser.add_argument("--subset", type=int, default=2000)
    options = parser.parse_args()
    minutes = [float(word) for word in options.minutes.split(",")]
    source = options.out / "source"
    if not (source / "bundle").is_dir():
        train(options.data, "from scratch", source, epochs=1, source=source, subset=options.subset)
    print("| run | planned | real | off | first line |\n|---|---|---|---|---|")
    for kind, place in RUNS:
        settings = {"source": source, "subset": options.subset}
        wanted = 60 * minutes[min(place, len(minutes) - 1)]
        epochs = epochs_for(options.data, kind, options.out / "probe", seconds=wanted, **settings)
        planned, real, first = train(options.data, kind, options.out / "run", epochs=epochs, **settings)
        print(
            f"| {kind}, {epochs} epochs | {planned:.0f} s | {real:.0f} s | {planned / real - 1:+.0%} | "
            f"{first:.2f} s |",
            flush=True,
        )


if __name__ == "__main__":
    main()
