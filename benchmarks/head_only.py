"""Head-only tuning of a ViT-S/16 at 224 px on the CPU.

Time of an epoch after the first, tesela beside transformers' Trainer.

    python benchmarks/head_only.py CIFAR10 --accelerate FOLDER [--images 320] [--epochs 6] [--weights FOLDER]

The data are CIFAR-10's cats, dogs, ships and lorries, enlarged to 256 px and written as JPEG files, so many
for training and as many for testing. Both sides begin with the same weights: those of a Hugging Face folder
with --weights, else random ones, whose features tell the classes apart well above chance. Both train a new
head with the body frozen: batches of 32, AdamW at 3e-3 falling in a straight line, no augmentation. The
Trainer decodes and resizes each image anew in every epoch, as its users do; tesela is `tesela train --from
WEIGHTS --recipe head_only` without the flips. accelerate, which the Trainer needs, lies in FOLDER: pip
install --target FOLDER --no-deps accelerate. Each side is a process of its own. Goal: at least 10 times
faster, with the same accuracy. Last result: see LOG.md.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

SIDE, BATCH, RATE = 224, 32, 3e-3
CLASSES = {"cat": 3, "dog": 5, "ship": 8, "truck": 9}


def write_images(data: Path, out: Path, count: int) -> None:
    """JPEG files of 256 px in class folders, ``count`` for each of train and test."""
    import pyarrow.parquet as pq
    from PIL import Image

    for split, file in (("train", "train-00000-of-00001.parquet"), ("test", "test-00000-of-00001.parquet")):
        table = pq.read_table(data / file).slice(0, 8 * count + 200)
        left = dict.fromkeys(CLASSES, count // len(CLASSES))
        for number, row in enumerate(table.to_pylist()):
            label = next((name for name, place in CLASSES.items() if place == row["label"]), None)
            if label is not None and left[label]:
                left[label] -= 1
                folder = out / split / label
                folder.mkdir(parents=True, exist_ok=True)
                picture = (
                    Image.open(io.BytesIO(row["img"]["bytes"]))
                    .convert("RGB")
                    .resize((256, 256), Image.Resampling.BICUBIC)
                )
                picture.save(folder / f"{number:05d}.jpg", quality=92)


def write_weights(out: Path) -> None:
    """A ViT-S/16 of transformers with random weights, large enough for the features to differ between
    images."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        intermediate_size=1536,
        num_labels=10,
        initializer_range=0.06,
    )
    ViTForImageClassification(config).save_pretrained(out)
    view = {
        "do_resize": True,
        "size": {"height": SIDE, "width": SIDE},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
    }
    means = {
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "image_processor_type": "ViTImageProcessor",
    }
    (out / "preprocessor_config.json").write_text(json.dumps({**view, **means}))


class Folder:
    """A folder of class folders as a Trainer's data set.

    An image is decoded, resized and normalised when it is asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.files = [
            (path, place)
            for place, label in enumerate(sorted(CLASSES))
            for path in sorted((folder / label).glob("*.jpg"))
        ]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        import numpy as np
        import torch
        from PIL import Image

        path, label = self.files[index]
        pixels = np.asarray(
            Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32
        )
        return {"pixel_values": torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1), "labels": label}


def side_of_trainer(data: Path, weights: Path, epochs: int) -> dict[str, float]:
    """Seconds of an epoch after the first, and accuracy, of transformers' Trainer with a frozen body."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments, ViTForImageClassification

    class Clock(TrainerCallback):  # type: ignore[misc]
        ends: ClassVar[list[float]] = []

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.perf_counter())

    model = ViTForImageClassification.from_pretrained(
        weights, num_labels=len(CLASSES), ignore_mismatched_sizes=True
    )
    for parameter in model.vit.parameters():
        parameter.requires_grad_(False)
    torch.nn.init.zeros_(model.classifier.weight)
    torch.nn.init.zeros_(model.classifier.bias)
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            output_dir=out,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=BATCH,
            num_train_epochs=epochs,
            learning_rate=RATE,
            weight_decay=0.0,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=model, args=arguments, train_dataset=Folder(data / "train"), callbacks=[Clock()]
        )
        trainer.train()
        answer = trainer.predict(Folder(data / "test"))
    accuracy = float((answer.predictions.argmax(1) == answer.label_ids).mean())
    epoch = statistics.median(after - before for before, after in itertools.pairwise(Clock.ends))
    return {"epoch_seconds": epoch, "accuracy": accuracy}


def side_of_tesela(data: Path, weights: Path, epochs: int) -> dict[str, float]:
    """The same of `tesela train`, with the time that the features took."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        steps = len(list((data / "train").rglob("*.jpg"))) // BATCH
        words = [
            "--from",
            str(weights),
            "--recipe",
            "head_only",
            "--augment.hflip",
            "0",
            "--epochs",
            str(epochs),
            "--optim.lr",
            str(RATE),
        ]
        words += [
            "--optim.weight-decay",
            "0",
            "--schedule.name",
            "linear",
            "--schedule.warmup",
            "0",
            "--batch-size",
            str(BATCH),
        ]
        words += [
            "--data.val-fraction",
            "0",
            "--log-steps",
            str(steps),
            "--no-report",
            "--no-tensorboard",
            "--out",
            str(out),
            "--json",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "tesela", "train", str(data), *words],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        answer = json.loads(done.stdout.splitlines()[-1])
        ends = [row["elapsed"] for row in map(json.loads, (out / "timing.jsonl").read_text().splitlines())]
        choices = json.loads((out / "choices.json").read_text())
    epoch = statistics.median(after - before for before, after in itertools.pairwise(ends))
    features = choices["feature_seconds"] * len(list((data / "train").rglob("*.jpg"))) / BATCH
    return {
        "epoch_seconds": epoch,
        "accuracy": answer["accuracy"],
        "features_seconds": features,
        "whole_seconds": answer["seconds"],
    }


SIDES = {"transformers": side_of_trainer, "tesela": side_of_tesela}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "data", type=Path, help="folder with CIFAR-10 as Parquet; with --side the folder of JPEG files"
    )
    parser.add_argument("--accelerate", help="folder with accelerate, which the Trainer needs")
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--weights", type=Path, help="a Hugging Face folder with a ViT of 224 px")
    parser.add_argument("--side", choices=sorted(SIDES))
    options = parser.parse_args()
    if options.side:
        print(json.dumps(SIDES[options.side](options.data, options.weights, options.epochs)))
        return
    with tempfile.TemporaryDirectory() as folder:
        images, weights = Path(folder) / "images", options.weights or Path(folder) / "weights"
        write_images(options.data, images, options.images)
        if options.weights is None:
            write_weights(weights)
        found: dict[str, dict[str, float]] = {}
        for name in SIDES:
            path = os.pathsep.join(
                filter(
                    None,
                    (os.environ.get("PYTHONPATH"), options.accelerate if name == "transformers" else None),
                )
            )
            words = [
                sys.executable,
                __file__,
                str(images),
                "--weights",
                str(weights),
                "--side",
                name,
                "--epochs",
                str(options.epochs),
            ]
            done = subprocess.run(
                words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False
            )
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
            found[name] = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{name:<13} {found[name]['epoch_seconds']:8.3f} s an epoch after the first, accuracy "
                f"{found[name]['accuracy']:.4f}",
                flush=True,
            )
    ratio = found["transformers"]["epoch_seconds"] / found["tesela"]["epoch_seconds"]
    print(json.dumps({**found, "over_transformers": round(ratio, 1), "goal": 10}))


if __name__ == "__main__":
    main()
