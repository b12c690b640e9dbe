"""Distillation on CIFAR-10: a compact ViT taught by a CNN beside the same ViT trained alone.

    python benchmarks/distillation.py CIFAR10 [--epochs 20] [--teacher-epochs 60] [--subset N] [--seeds 0,1,2]
                                              [--out FOLDER]

The CNN teacher is trained in the same study and on the same images, once for each seed. The student is
trained twice from the same initial weights and for the same number of epochs, with the labels alone and with
the teacher. All three are exported to ONNX in fp32 and int8 and timed with one image. Prints a table of
score, size and latency of both, and the gain in points; int8 is kept whatever its contract says (--force),
and its own score stands beside it. A run that is there already is not repeated: kill it and start it again.
Goal: the taught student at least one point above the student alone. Last result: see LOG.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

CROPS = ("--augment.hflip", "0.5", "--augment.crop-padding", "4")
#: SGD as for residual networks of this size (arXiv 1512.03385, section 4.2), with Nesterov's momentum.
SGD = ("--optim.name", "sgd", "--optim.lr", "0.1", "--optim.nesterov", "--optim.weight-decay", "5e-4")
TEACHER = ("--model", "resnet20_small", *CROPS, "--batch-size", "128", *SGD)
STUDENT = ("--model", "vit_lite7_p4", *CROPS)


def tesela(*words: str) -> dict[str, Any]:
    """The JSON that a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tesela", *words, "--json"], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"tesela {' '.join(words)} ended with {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def trained(out: Path, *words: str) -> dict[str, Any]:
    """The result of a run, taken up where it stands or begun."""
    if (out / "config.yaml").is_file():
        return tesela("train", "--out", str(out), "--resume")
    return tesela("train", *words, "--out", str(out))


def shipped(run: Path) -> dict[str, float]:
    """Megabytes of the ONNX graphs, milliseconds of one image in them, and the score of the int8 one."""
    found: dict[str, float] = {}
    for precision, board in (("fp32", run / "board"), ("int8", run / "board-int8")):
        if not board.exists():
            words = ["--precision", precision, "--force", "--out", str(board)]
            tesela("export", str(run), "--to", "onnx", *words)
        timed = tesela("bench", str(board), "--batch", "1")["results"]
        found[f"{precision} milliseconds"] = min(
            row["milliseconds"] for row in timed if row["precision"] == precision
        )
        found[f"{precision} megabytes"] = sum(file.stat().st_size for file in board.glob("model.onnx*")) / 1e6
    contract = json.loads((run / "board-int8" / "config.json").read_text())["provenance"]["contract"]
    found["int8 accuracy"] = contract["program"]["scores"]["accuracy"]
    found["int8 agreement"] = contract["program"]["agreement"]
    return found


def main() -> None:
    """Train all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("data", help="CIFAR-10 as Parquet files")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--teacher-epochs", type=int, help="three times --epochs by default")
    parser.add_argument("--subset", type=int, help="training images; all by default")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=Path("runs/distillation"))
    arguments = parser.parse_args()
    common = [arguments.data, "--no-report"]
    common += ["--data.subset", str(arguments.subset)] if arguments.subset else []
    found: dict[str, list[dict[str, Any]]] = {"teacher": [], "alone": [], "soft": [], "hard": []}
    for seed in arguments.seeds.split(","):
        folder, words = arguments.out / f"seed-{seed}", [*common, "--seed", seed]
        longer = ("--epochs", str(arguments.teacher_epochs or 3 * arguments.epochs))
        found["teacher"].append(trained(folder / "teacher", *words, *TEACHER, *longer))
        words += ["--epochs", str(arguments.epochs)]
        found["alone"].append(trained(folder / "alone", *words, *STUDENT))
        for kind in ("soft", "hard"):
            taught = ("--teacher", str(folder / "teacher"), "--distillation", kind)
            found[kind].append(trained(folder / kind, *words, *STUDENT, *taught))
    table = []
    for name, runs in found.items():
        values = [run["accuracy"] for run in runs]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        row = {
            "run": name,
            "accuracy": statistics.mean(values),
            "deviation": spread,
            "parameters": runs[0]["parameters"],
            "seconds": statistics.mean(run["seconds"] for run in runs),
            **shipped(Path(runs[0]["run"])),
        }
        table.append(row)
        print(
            f"{name:8} {100 * row['accuracy']:6.2f} ± {100 * spread:.2f} %  {row['parameters']:>11,} weights"
            f"  {row['fp32 megabytes']:7.1f} MB  {row['fp32 milliseconds']:7.2f} ms  {row['seconds']:8.0f} s"
            f"  int8 {100 * row['int8 accuracy']:.2f} % on validation images, the same class for "
            f"{row['int8 agreement']:.2%}, {row['int8 megabytes']:.1f} MB, {row['int8 milliseconds']:.2f} ms"
        )
    alone = next(row["accuracy"] for row in table if row["run"] == "alone")
    gains = {row["run"]: 100 * (row["accuracy"] - alone) for row in table if row["run"] in ("soft", "hard")}
    print(json.dumps({"table": table, "gain_points": gains, "ok": max(gains.values()) >= 1}))


if __name__ == "__main__":
    main()
