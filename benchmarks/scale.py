"""Memory of shared-out weights, and the start of a training on very many images in shards.

    python benchmarks/scale.py memory [--model vit_l16] [--ranks 2]
    python benchmarks/scale.py start [--images 200000] [--seconds 60]

``memory``: two steps of AdamW by several processes (gloo), with the whole weights in each of them
(DistributedDataParallel) and shared out (FSDP2); the most resident bytes of a rank above those before the
model was made, beside what ``tesela plan`` says for them. Images are small, so that weights, gradients and
moments are nearly all.

``start``: class folders of so many images are packed into shards by ``tesela data pack``, and ``tesela
train`` begins on them: seconds from its start to its first step, and its resident memory from then on. The
last line of each is JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PICTURES, CLASSES = 400, 10
#: Pixels of an image's side for the memory of weights.
SIDE = 32


def resident(name: str, process: str = "self") -> int:
    """Bytes of a process, now (VmRSS) or at most (VmHWM)."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    found = re.search(rf"^{name}:\s*(\d+) kB", status, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def peak_of_ranks(model: str, ranks: int, *, sharded: bool) -> int:
    """The most bytes that a rank had on top while it trained."""
    import torch
    from tests.training.parallel.together import together

    from tesela.data.batch import Batch
    from tesela.hardware.distributed import joined
    from tesela.hardware.launch import launched
    from tesela.models.factory import create_model
    from tesela.tasks.classification.objective import CrossEntropy
    from tesela.tasks.objective import Draw
    from tesela.training.optim.optimizer import OptimConfig, build_optimizers
    from tesela.training.parallel.sharded import ShardedStep, shard
    from tesela.training.parallel.step import ParallelStep

    with tempfile.TemporaryDirectory() as folder:

        def one(rank: int) -> None:
            with joined(launched(), cuda=False) as those:
                torch.set_num_threads(1)
                ctypes.CDLL(None).mallopt(-3, 65536)  # M_MMAP_THRESHOLD: what is freed goes back at once
                before = resident("VmRSS")
                network = create_model(model, num_classes=10, image_size=SIDE, seed=0)
                objective = CrossEntropy()
                roots = {"roots": [shard(network, objective)]} if sharded else {}
                made = build_optimizers(network, OptimConfig(), objective=objective)
                Path("/proc/self/clear_refs").write_text("5")  # the most bytes are counted from here
                kind: Any = ShardedStep if sharded else ParallelStep
                step = kind(
                    network,
                    objective,
                    made,
                    device=torch.device("cpu"),
                    precision="fp32",
                    clip_norm=0.0,
                    ranks=those,
                    **roots,
                )
                images = torch.randn(1, 3, SIDE, SIDE)
                for number in range(2):
                    numbers = torch.zeros(1, dtype=torch.long)
                    batch = Batch(images=images, targets=numbers, indices=numbers)
                    loss = step.loss(batch, Draw(seed=0, step=number))
                    step.backward(loss, share=1.0 / ranks)
                    for part in made.parts:
                        part.step()
                    made.zero_grad()
                Path(folder, str(rank)).write_text(str(resident("VmHWM") - before))

        if any(together(ranks, one)):
            raise SystemExit("a rank failed")
        return max(int(Path(folder, str(rank)).read_text()) for rank in range(ranks))


def memory(asked: argparse.Namespace) -> dict[str, Any]:
    """Both ways, beside the plan."""
    import tesela as ts

    found: dict[str, Any] = {"model": asked.model, "ranks": asked.ranks}
    for name, sharded in (("ddp", False), ("fsdp", True)):
        found[name] = peak_of_ranks(asked.model, asked.ranks, sharded=sharded)
        print(f"{name}: {found[name] / 2**20:.0f} MiB of a rank at most", flush=True)
    planned = ts.plan(
        asked.model,
        devices=f"{asked.ranks}xcpu",
        batch=asked.ranks,
        image_size=SIDE,
        num_classes=10,
        precision="fp32",
    )
    for kind, demand in planned.demand.items():
        found[f"planned_{kind}"] = demand.peak
        found[f"planned_of_{kind}"] = round(demand.peak / found[kind], 3)
    found["fsdp_of_ddp"] = round(found["fsdp"] / found["ddp"], 3)
    return found


def make_images(folder: Path, count: int) -> None:
    """Class folders of links to small random pictures."""
    from PIL import Image

    draw, originals = np.random.default_rng(0), folder.with_name("originals")
    originals.mkdir()
    for number in range(PICTURES):
        Image.fromarray(draw.integers(0, 256, (32, 32, 3), np.uint8)).save(originals / f"{number}.jpg")
    for number in range(count):
        place = folder / f"class{number % CLASSES}"
        if number < CLASSES:
            place.mkdir(parents=True)
        (place / f"{number:07d}.jpg").symlink_to(originals / f"{number % PICTURES}.jpg")


def start(asked: argparse.Namespace) -> dict[str, Any]:
    """Pack, then train for some seconds."""
    with tempfile.TemporaryDirectory() as place:
        images, packed, run = Path(place, "images"), Path(place, "packed"), Path(place, "run")
        make_images(images, asked.images)
        begun = time.monotonic()
        words = [sys.executable, "-m", "tesela", "data", "pack", str(images), "--to", "tar"]
        subprocess.run([*words, "--out", str(packed)], check=True, stdout=subprocess.DEVNULL)
        packing = time.monotonic() - begun
        words = [
            sys.executable,
            "-m",
            "tesela",
            "train",
            str(packed),
            "--model",
            "vit_nano",
            "--epochs",
            "50",
        ]
        words += [
            "--image-size",
            "32",
            "--log-steps",
            "1",
            "--no-report",
            "--no-tensorboard",
            "--out",
            str(run),
        ]
        begun, first, seen = time.monotonic(), 0.0, list[int]()
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        metrics = run / "metrics.jsonl"
        while process.poll() is None and (not first or time.monotonic() - begun < first + asked.seconds):
            if not first and metrics.exists() and metrics.stat().st_size:
                first = time.monotonic() - begun
            if first:
                seen.append(resident("VmRSS", str(process.pid)))
            time.sleep(0.2)
        if process.poll() is not None:
            raise SystemExit(process.stderr.read() if process.stderr else "")
        process.terminate()
        process.wait(60)
        rows = sum(json.loads(line)["kind"] == "step" for line in metrics.read_text().splitlines())
        third = max(1, len(seen) // 3)
        return {
            "images": asked.images,
            "packing_seconds": round(packing, 1),
            "first_step_seconds": round(first, 1),
            "steps": rows,
            "resident_megabytes": max(seen) // 10**6,
            "growth_megabytes": (max(seen[-third:]) - max(seen[third : 2 * third])) // 10**6,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("memory", "start"))
    parser.add_argument("--model", default="vit_l16")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    asked = parser.parse_args()
    print(json.dumps(memory(asked) if asked.part == "memory" else start(asked)))


if __name__ == "__main__":
    main()
