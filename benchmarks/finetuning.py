"""Fine-tuning of a real ViT-S/14 on photographs of ants and bees: accuracy against minutes, over seeds.

    python benchmarks/finetuning.py SHARED --accelerate FOLDER --out F.json [--seeds 5] [--minutes 2]

SHARED holds ``weights/dinov2_s14`` and ``data/ants_bees``. For each seed 60 % of each class are for
training and the rest for testing. tesela trains by its recipes, `head_only`, `lora` and `finetune`;
transformers' Trainer trains a new head, or all weights, with its usual settings (AdamW, bf16, 5e-5 for all
weights and 3e-3 for a head, a straight line to zero) and the augmentation of `finetune` without
RandAugment. Each training of all weights or adapters, and each of the Trainer, has so many minutes of all
cores; each is a process of its own, and sides alternate. accelerate, which the Trainer needs, lies in
FOLDER: pip install --target FOLDER --no-deps accelerate. What is in F.json already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SIDE, BATCH = 224, 16
RECIPES = ("head_only", "lora", "finetune")
WAYS = (*RECIPES, "trainer head", "trainer all")
SUFFIXES = {".jpg", ".jpeg"}


def write_split(data: Path, out: Path, seed: int) -> None:
    """60 % of each class for training and the others for testing, as links."""
    draw = np.random.default_rng(seed)
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        order, many = draw.permutation(len(files)), round(0.6 * len(files))
        for place, number in enumerate(order):
            target = out / ("train" if place < many else "test") / folder.name / files[number].name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(files[number].resolve())


class Folder:
    """A folder of class folders as a Trainer's data set, decoded when it is asked for.

    Args:
        folder: with a folder for each class.
        mean: of each channel.
        std: likewise.
        seed: of the random crops and mirror images; the middle is cut out without.
    """

    def __init__(self, folder: Path, mean: list[float], std: list[float], *, seed: int | None = None) -> None:
        self.files = [
            (path, label)
            for label, place in enumerate(sorted(folder.iterdir()))
            for path in sorted(place.iterdir())
        ]
        self._mean, self._std = np.array(mean, np.float32), np.array(std, np.float32)
        self._draw = None if seed is None else np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        import torch
        from PIL import Image

        path, label = self.files[index]
        image = Image.open(path).convert("RGB")
        box = self._box(*image.size)
        pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box), np.float32) / 255
        if self._draw is not None and self._draw.random() < 0.5:
            pixels = pixels[:, ::-1]
        pixels = np.ascontiguousarray(((pixels - self._mean) / self._std).transpose(2, 0, 1), np.float32)
        return {"pixel_values": torch.from_numpy(pixels), "labels": label}

    def _box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part that becomes the view: 7/8 of the shorter side, or a random one."""
        if self._draw is None:
            side = min(width, height) * SIDE / 256
            left, top = (width - side) / 2, (height - side) / 2
            return left, top, left + side, top + side
        area = width * height * self._draw.uniform(0.5, 1.0)
        ratio = np.exp(self._draw.uniform(np.log(3 / 4), np.log(4 / 3)))
        wide, high = min(width, (area * ratio) ** 0.5), min(height, (area / ratio) ** 0.5)
        left, top = self._draw.uniform(0, width - wide), self._draw.uniform(0, height - high)
        return left, top, left + wide, top + high


def by_trainer(data: Path, weights: Path, *, seed: int, minutes: float, whole: bool) -> dict[str, float]:
    """Accuracy and seconds of transformers' Trainer."""
    import torch
    from transformers import Dinov2ForImageClassification, Trainer, TrainerCallback, TrainingArguments

    torch.manual_seed(seed)
    view = json.loads((weights / "preprocessor_config.json").read_text())
    model: Any = Dinov2ForImageClassification.from_pretrained(
        weights, num_labels=2, dtype=torch.float32, ignore_mismatched_sizes=True
    )
    if not whole:
        for parameter in model.dinov2.parameters():
            parameter.requires_grad_(False)
    given = view["image_mean"], view["image_std"]
    begun, steps = time.perf_counter(), 0

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Sees how long a step takes, then ends in time."""

        def on_step_end(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            del arguments
            if time.perf_counter() - begun > 60 * minutes or (probing and state.global_step >= 4):
                control.should_training_stop = True

    def trainer(most: int, out: str) -> Any:
        arguments = TrainingArguments(
            output_dir=out,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=BATCH,
            max_steps=most,
            learning_rate=5e-5 if whole else 3e-3,
            weight_decay=0.0,
            bf16=True,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=seed,
        )
        images = Folder(data / "train", *given, seed=seed)
        return Trainer(model=model, args=arguments, train_dataset=images, callbacks=[Clock()])

    with tempfile.TemporaryDirectory() as out:
        probing, kept = True, {name: one.clone() for name, one in model.state_dict().items()}
        trainer(4, out).train()
        each = (time.perf_counter() - begun) / 4
        model.load_state_dict(kept)
        probing, begun = False, time.perf_counter()
        steps = max(4, int(60 * minutes / each))
        done = trainer(steps, out)
        done.train()
        seconds = time.perf_counter() - begun
        answer = done.predict(Folder(data / "test", *given))
    accuracy = float((answer.predictions.argmax(1) == answer.label_ids).mean())
    epochs = done.state.global_step * BATCH / len(done.train_dataset)
    return {"accuracy": accuracy, "seconds": seconds, "epochs": round(epochs, 1)}


def by_tesela(data: Path, weights: Path, *, recipe: str, seed: int, minutes: float) -> dict[str, float]:
    """The same of ``tesela train``, with the features of ``head_only``."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["--from", str(weights), "--recipe", recipe, "--seed", str(seed), "--data.val-fraction", "0"]
        words += ["--batch-size", str(BATCH), "--no-report", "--no-tensorboard", "--json"]
        words += [] if recipe == "head_only" else ["--minutes", str(minutes)]
        done = subprocess.run(
            [sys.executable, "-m", "tesela", "train", str(data), *words, "--out", str(Path(folder) / "run")],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        answer = json.loads(done.stdout.splitlines()[-1])
        return {"accuracy": answer["accuracy"], "seconds": answer["seconds"], "epochs": answer["epochs"]}


def measured(way: str, data: Path, weights: Path, *, seed: int, minutes: float) -> dict[str, float]:
    """One training."""
    if way in RECIPES:
        return by_tesela(data, weights, recipe=way, seed=seed, minutes=minutes)
    return by_trainer(data, weights, seed=seed, minutes=minutes, whole=way.endswith("all"))


def table(found: dict[str, dict[str, Any]]) -> str:
    """Mean and deviation over seeds."""
    lines = ["| way | accuracy | seconds | epochs | seeds |", "|---|---|---|---|---|"]
    for way in WAYS:
        rows = [row for key, row in found.items() if key.rpartition(" ")[0] == way]
        if rows:
            scores = [100 * row["accuracy"] for row in rows]
            spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
            means = {name: statistics.mean(row[name] for row in rows) for name in ("seconds", "epochs")}
            lines.append(
                f"| {way} | {statistics.mean(scores):.2f} ± {spread:.2f} % | {means['seconds']:.0f} "
                f"| {means['epochs']:.1f} | {len(rows)} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shared", type=Path)
    parser.add_argument("--accelerate", help="folder with accelerate, which the Trainer needs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--one", help="a way and a seed, in a process of its own: its figures as JSON")
    options = parser.parse_args()
    weights, photographs = (
        options.shared / "weights" / "dinov2_s14",
        options.shared / "data" / "ants_bees",
    )
    if options.one:
        way, _, seed = options.one.rpartition(" ")
        folder = Path(tempfile.mkdtemp())
        try:
            write_split(photographs, folder, int(seed))
            row = measured(way, folder, weights, seed=int(seed), minutes=options.minutes)
        finally:
            shutil.rmtree(folder)
        print(json.dumps(row))
        return
    found: dict[str, dict[str, Any]] = json.loads(options.out.read_text()) if options.out.exists() else {}
    for seed in range(options.seeds):
        for way in options.ways:
            key = f"{way} {seed}"
            if key in found:
                continue
            path = os.pathsep.join(
                filter(None, (os.environ.get("PYTHONPATH"), options.accelerate if "trainer" in way else None))
            )
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--one", key],
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
                check=False,
            )
            if done.returncode:
                raise SystemExit(f"{key} failed:\n{done.stderr[-3000:]}")
            found[key] = json.loads(done.stdout.splitlines()[-1])
            options.out.write_text(json.dumps(found, indent=1) + "\n")
            print(key, found[key], flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
