"""Calibration error and log loss of runs with and without their temperature.

    python benchmarks/calibration.py RUN [RUN ...]

A run's predictions.npz holds the calibrated probabilities of its test images, p ~ exp(z / T); without the
temperature they are p ** T, normalised. Last result: see LOG.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from tesela.metrics.classification import ClassificationScores
from tesela.models.bundle import read_info
from tesela.runs.folder import Run


def scores(probabilities: Any, targets: Any) -> dict[str, Any]:
    """All scores of probabilities (N, K) for true classes (N,)."""
    found = ClassificationScores([str(label) for label in range(probabilities.shape[1])])
    found.update(probabilities, targets)
    return found.result()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    print("| run | images | accuracy | temperature | ECE before | after | log loss before | after |")
    print("|---|---|---|---|---|---|---|---|")
    for folder in parser.parse_args().runs:
        run = Run(folder)
        arrays = np.load(run.predictions)
        after, targets = arrays["probabilities"].astype(np.float64), arrays["targets"]
        temperature = read_info(run.bundle).provenance["temperature"]
        before = np.maximum(after, 1e-300) ** temperature
        before /= before.sum(1, keepdims=True)
        plain, fitted = scores(before, targets), scores(after / after.sum(1, keepdims=True), targets)
        print(
            f"| {folder.name} | {plain['images']:,} | {fitted['accuracy']:.4f} | {temperature:.3f} | "
            f"{plain['ece']:.2%} | {fitted['ece']:.2%} | {plain['nll']:.4f} | {fitted['nll']:.4f} |"
        )


if __name__ == "__main__":
    main()
