"""Golden fingerprints of small trainings, so that a change of structure can show that it changes no result.

    python scripts/fingerprints.py --write before.json     # before the change
    python scripts/fingerprints.py --check before.json     # after it: exit code 1 and a list where anything
    differs

Each case is one training on real digits (full, head, LoRA, biases, MixUp, moving average, accumulation, early
stopping, a time budget, bf16, two recipes). What is compared: every row of metrics.jsonl, the bytes of every
weight that is shipped, the probabilities and true classes of the evaluation, and its scores. Sums of products
depend on processor and library, so a file holds for one machine.

Odd: clocks decide how many steps a time budget has. Here they tell a tenth of a second for every update of
the weights, and nothing else moves them, so the same number of steps is planned, and refitted, each time.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch.optim.optimizer import register_optimizer_step_post_hook

import tesela as ts

NET = {"width": 16, "depth": 2, "heads": 2, "dropout": 0.1, "drop_path": 0.1}
BASE: dict[str, Any] = {
    "data": {"source": "digits", "subset": 200, "workers": 0},
    "model": "vit_nano",
    "net": NET,
    "optim": {"lr": 3e-3},
    "epochs": 3,
    "batch_size": 20,
    "precision": "fp32",
    "attention": "fused",
    "threads": 1,
    "log_steps": 1,
    "tensorboard": False,
}
#: Name to settings; ``from`` names the case whose model is the start, which is then trained on five of the
#: ten classes.
CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "bf16": {"precision": "bf16"},
    "matmul": {"attention": "matmul", "label_smoothing": 0.1, "optim": {"lr": 1e-2, "name": "muon"}},
    "mixup": {"augment": {"mixup": 0.4, "cutmix": 1.0, "crop_padding": 1}, "label_smoothing": 0.1},
    "geometry": {
        "augment": {"rotation": 5.0, "translation": 0.08, "zoom": 0.05, "erasing": 0.2, "randaugment": 1}
    },
    "ema": {"ema": {"decay": 0.9}},
    "accumulate": {"accumulate": 3, "clip_norm": 0.5},
    "patience": {"patience": 1, "optim": {"lr": 3e-2}, "epochs": 8},
    "minutes": {"minutes": 0.25, "epochs": None},
    "minutes_ema": {"minutes": 0.2, "epochs": None, "ema": {"decay": 0.9}, "accumulate": 2},
    "tuned": {
        "from": "full",
        "tune": "all",
        "optim": {"lr": 1e-3, "layer_decay": 0.75},
        "tune_unfreeze": 1.0,
    },
    "head": {"from": "full", "tune": "head", "augment": {"hflip": 0.5}, "ema": {"decay": 0.9}},
    "head_images": {"from": "full", "tune": "head", "tune_cache": "none", "accumulate": 2},
    "head_minutes": {"from": "full", "tune": "head", "minutes": 0.2, "epochs": None},
    "lora": {"from": "full", "tune": "lora", "lora": {"rank": 2}},
    "lora_ema": {
        "from": "full",
        "tune": "lora",
        "lora": {"rank": 2},
        "ema": {"decay": 0.9},
        "augment": {"mixup": 0.4},
    },
    "bias": {"from": "full", "tune": "bias"},
    "recipe_digits": {"recipe": "digits", "epochs": 2},
    "recipe_finetune": {"from": "full", "recipe": "finetune", "epochs": 2, "image_size": 8},
}


def settings(name: str, place: Path) -> dict[str, Any]:
    """The options of one case."""
    case = dict(CASES[name])
    base = case.pop("from", None)
    options: dict[str, Any] = {**BASE, **case, "out": str(place / name)}
    if "recipe" in case:
        options = {
            **{
                key: BASE[key]
                for key in ("data", "precision", "attention", "threads", "log_steps", "tensorboard")
            },
            **case,
        }
        options["out"] = str(place / name)
    if base is not None:
        options |= {"from": str(place / base), "data": {**BASE["data"], "classes": ["0", "1", "2", "3", "4"]}}
        options.pop("net", None)
        options.pop("model", None)
    return {key: value for key, value in options.items() if value is not None}


def fingerprint(run: Path) -> dict[str, str]:
    """Digest by name of what a run ended with."""
    from safetensors.numpy import load_file

    found = {
        f"weights {name}": digest(tensor.tobytes())
        for name, tensor in load_file(run / "bundle" / "model.safetensors").items()
    }
    found["metrics.jsonl"] = digest((run / "metrics.jsonl").read_bytes())
    with np.load(run / "predictions.npz", allow_pickle=False) as rows:
        for name in ("probabilities", "targets", "indices"):
            found[name] = digest(np.ascontiguousarray(rows[name]).tobytes())
    scores = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    for name, value in scores.items():
        if name not in ("seconds", "images_per_second", "environment", "format", "task"):
            found[f"evaluation {name}"] = json.dumps(rounded(value), sort_keys=True)
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    found |= {
        f"result {name}": json.dumps(result[name])
        for name in ("accuracy", "top5", "parameters", "trainable", "steps", "epochs")
    }
    return found


def rounded(value: Any) -> Any:
    """Scores to 13 digits: the order in which a mean is summed may change the last ones."""
    if isinstance(value, float):
        return float(f"{value:.13g}")
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list) else value


def digest(data: bytes) -> str:
    """The first 16 digits of the SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def count_updates() -> Callable[[], float]:
    """A clock that tells a tenth of a second for every call of an optimizer's step."""
    updates = 0

    def counted(optimizer: Any, arguments: Any, options: Any) -> None:
        nonlocal updates
        del optimizer, arguments, options
        updates += 1

    register_optimizer_step_post_hook(counted)
    return lambda: 1000.0 + 0.1 * updates


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", type=Path, help="file for the fingerprints")
    action.add_argument("--check", type=Path, help="file to compare with")
    parser.add_argument("--cases", default="", help="names, separated by commas; all by default")
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder")
    arguments = parser.parse_args()
    arguments.write, arguments.check = (
        path and path.resolve() for path in (arguments.write, arguments.check)
    )
    clock = count_updates()
    time.monotonic = time.perf_counter = clock
    place = arguments.keep or Path(tempfile.mkdtemp(prefix="tesela-fingerprints-"))
    wanted = arguments.cases.split(",") if arguments.cases else list(CASES)
    found: dict[str, dict[str, str]] = {}
    os.chdir(place)  # so that no name of a folder reaches a file
    for name in wanted:
        ts.train(config=settings(name, Path()))
        found[name] = fingerprint(Path(name))
        print(f"{name:16} {digest(json.dumps(found[name], sort_keys=True).encode())}", flush=True)
    if arguments.keep is None:
        os.chdir("/")
        shutil.rmtree(place)
    if arguments.write is not None:
        arguments.write.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return 0
    known = json.loads(arguments.check.read_text(encoding="utf-8"))
    different = [
        f"{name}: {key}: {known[name].get(key)} became {found[name].get(key)}"
        for name in found
        for key in sorted({*found[name], *known[name]})
        if found[name].get(key) != known[name].get(key)
    ]
    print("\n".join(line[:300] for line in different) or f"{len(found)} trainings are equal, bit for bit")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
