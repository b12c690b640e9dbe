"""The positions study of the paper's appendix on CIFAR-10.

Which positions, and where they are added, at a fixed budget of steps.

    python benchmarks/positions.py CIFAR10 --out runs/positions [--seeds 3] [--epochs 5 | --minutes 2] [--jobs
    2]

CIFAR10 is the folder of Parquet files. A small ViT (width 96, 4 blocks, 3 heads, 64 patches of 4 x 4) is
trained for each variant and seed through ``tesela train`` with the same settings but for ``net.position`` and
``net.position_at``; the seed draws weights, order and augmentation, and all variants share it. Every run is a
folder in --out: finished ones are read and not repeated, interrupted ones are resumed to the same bits, so
the command can be given again. Prints one markdown table of test accuracies, mean +- deviation over seeds.
With --epochs (the default) all runs make the same number of steps; --minutes gives each run the same time
instead. Last result (one epoch over 30,000 images, 3 seeds): the table in docs/positions.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROWS = {
    "none": "none (bag of patches)",
    "learned": "1-D, learned in raster order",
    "learned2d": "2-D, rows and columns",
    "sincos2d": "2-D, sine and cosine",
    "relative": "relative",
    "rotary": "rotary",
}
COLUMNS = {"input": "at the input", "block": "anew at each block", "shared": "shared by all blocks"}
SETTINGS = {
    "model": "vit_mnist",
    "net.width": "96",
    "net.depth": "4",
    "net.heads": "3",
    "net.pool": "mean",
    "batch_size": "64",
    "optim.name": "muon",
    "optim.lr": "4e-3",
    "optim.beta2": "0.99",
    "optim.weight_decay": "0.05",
    "schedule.warmup": "0.1",
    "data.val_fraction": "0.02",
    "augment.hflip": "0.5",
    "augment.crop_padding": "4",
    "tensorboard": "false",
    "report": "false",
}


class Trial(NamedTuple):
    """One run."""

    position: str
    at: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.position}-{self.at}-{self.seed}"


def trials(seeds: int) -> list[Trial]:
    """All runs, seed by seed, so that an interrupted study has whole rounds."""
    added = ("learned", "learned2d", "sincos2d")
    # sine and cosine have no table: anew at each block and shared by all are the same network
    pairs = [
        (position, at)
        for position in ROWS
        for at in COLUMNS
        if at == "input" or (position in added and (position, at) != ("sincos2d", "block"))
    ]
    return [Trial(position, at, seed) for seed in range(seeds) for position, at in pairs]


def run(trial: Trial, chosen: argparse.Namespace) -> float:
    """The accuracy of one run, made, taken up or read.

    Raises:
        RuntimeError: the training failed; its last words are the message.
    """
    out = chosen.out / trial.name
    result = out / "result.json"
    if not result.exists():
        budget = ["--minutes", str(chosen.minutes)] if chosen.minutes else ["--epochs", str(chosen.epochs)]
        words = [sys.executable, "-m", "tesela", "train", "--quiet", "--out", str(out)]
        if (out / "config.yaml").exists():
            words.append("--resume")
        else:
            settings = SETTINGS | {
                "seed": str(trial.seed),
                "net.position": trial.position,
                "net.position_at": trial.at,
            }
            words += [str(chosen.data), *budget, *(f"{key}={value}" for key, value in settings.items())]
            words += [f"data.subset={chosen.subset}"] if chosen.subset else []
            words += [f"precision={chosen.precision}"]
        threads = str(max(1, (os.cpu_count() or 1) // chosen.jobs))
        done = subprocess.run(
            words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": threads}
        )
        if done.returncode:
            raise RuntimeError(f"{trial.name}: {done.stderr.strip()[-500:]}")
    found = json.loads(result.read_text(encoding="utf-8"))
    print(
        f"{trial.name}: {found['accuracy']:.4f}, {found['steps']} steps, {found['seconds']:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    return float(found["accuracy"])


def cell(scores: list[float]) -> str:
    """Mean and deviation in per cent."""
    if not scores:
        return ""
    spread = f" ± {100 * statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    return f"{100 * statistics.mean(scores):.2f}{spread}"


def table(scores: dict[Trial, float]) -> str:
    """Positions down, places across, as in the paper's appendix D.4."""
    lines = ["| positions | " + " | ".join(COLUMNS.values()) + " |", "|---|" + "---|" * len(COLUMNS)]
    for position, title in ROWS.items():
        cells = [
            cell([score for trial, score in scores.items() if (trial.position, trial.at) == (position, at)])
            for at in COLUMNS
        ]
        lines.append("| " + " | ".join([title, *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--positions", default=",".join(ROWS), help="rows of the table, separated by commas")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--subset", type=int, default=None, help="training images, all where not given")
    parser.add_argument(
        "--precision",
        default="auto",
        help="measured anew by each run where auto; give one for equal arithmetic",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        help="runs at the same time; each gets its share of the cores",
    )
    chosen = parser.parse_args()
    wanted = [trial for trial in trials(chosen.seeds) if trial.position in chosen.positions.split(",")]
    with ThreadPoolExecutor(chosen.jobs) as pool:
        scores = dict(zip(wanted, pool.map(lambda trial: run(trial, chosen), wanted), strict=True))
    print(table(scores))


if __name__ == "__main__":
    main()
