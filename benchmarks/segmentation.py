"""Segmenters on the same data, budget and seeds: pixel accuracy, mean IoU, size, speed, block artefacts.

    python benchmarks/segmentation.py CAMVID --out FOLDER [--minutes 20] [--seeds 2] [--only "NAME|NAME"]
        [--backbone dinov2_s14]

The plain ViT of article B, each of that article's five proposals, SegFormer-B0, a CNN, its
depthwise-separable version, and a ViT with the light decoder; with ``--backbone`` also that backbone, frozen,
with the light decoder. Every run gets the same minutes, all included;
"more epochs" gets twice as many. Runs that are complete are not repeated, so the table can be made in parts.
Last result: see LOG.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tesela.recipes.camvid import CAMVID

ARTICLE: dict[str, Any] = {
    "task": "segment",
    "model": "vit_seg_article",
    "image_size": [128, 128],
    "normalize": "none",
    "batch_size": 16,
    "optim": {"name": "adam", "lr": 4e-4, "weight_decay": 0.0},
    "schedule": {"name": "step", "step_factor": 0.8, "step_epochs": 12, "warmup": 0.0},
    "augment": {"hflip": 0.5, "color_jitter": 0.4},
    "data": CAMVID,
}
MODERN: dict[str, Any] = {
    "optim": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01},
    "schedule": {"name": "cosine", "warmup": 0.05},
    "augment": {"hflip": 0.5, "zoom": 0.5, "translation": 0.2, "color_jitter": 0.4},
    "normalize": "data",
    "image_size": [240, 320],
    "batch_size": 8,
}
#: A pre-trained backbone, frozen, whose decoder alone is trained.
PRETRAINED = "ViT-S/14 pre-trained, frozen, light decoder"
NETWORKS: dict[str, dict[str, Any]] = {
    "plain ViT (article)": {},
    "MLP head": {"decoder": {"name": "patch", "hidden": 768}},
    "smaller patches": {"net": {"patch_size": [8, 8]}},
    "more epochs": {"twice": True},
    "more data": {"augment": MODERN["augment"]},
    "learning rate 1e-4": {"optim": {"name": "adam", "lr": 1e-4, "weight_decay": 0.0}},
    "SegFormer-B0": {**MODERN, "model": "segformer_b0"},
    "CNN": {**MODERN, "model": "unet_small"},
    "CNN, separable": {**MODERN, "model": "unet_separable", "net": {"widths": [16, 32, 64, 128, 256]}},
    "ViT, light decoder": {
        **MODERN,
        "model": "vit_s16",
        "net": {"depth": 6},
        "decoder": {"name": "light", "width": 64, "blocks": 2},
    },
    PRETRAINED: {
        **MODERN,
        "model": "auto",
        "normalize": "auto",
        "decoder": {"name": "light"},
        "tune": "head",
        "optim": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.05},
        "objective": {"class_weights": "sqrt", "dice": 0.5},
        "augment": {"hflip": 0.5},
        "image_size": [252, 336],
        "ema": {"decay": 0.99},
    },
}


def train(data: str, name: str, seed: int, minutes: float, out: Path, backbone: str | None) -> dict[str, Any]:
    """The scores of one run, made now unless it is complete."""
    folder = out / f"{name.replace(' ', '-').replace(',', '').replace('(', '').replace(')', '')}-{seed}"
    if not (folder / "result.json").is_file():
        changes = dict(NETWORKS[name])
        budget = 2 * minutes if changes.pop("twice", False) else minutes
        settings = {**ARTICLE, **changes, "minutes": budget, "seed": seed, "tensorboard": False}
        if name == PRETRAINED:
            settings["from"] = backbone
        file = out / f"{folder.name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(settings))
        words = [sys.executable, "-m", "tesela", "train", data, "--config", str(file), "--out", str(folder)]
        resume = ["--resume"] if (folder / "checkpoints").is_dir() else []
        subprocess.run([*words, *resume], check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    result = json.loads((folder / "result.json").read_text())
    scores = json.loads((folder / "evaluation.json").read_text())
    return {
        "pixel_accuracy": scores["pixel_accuracy"],
        "mean_iou": scores["mean_iou"],
        "boundary_iou": scores["boundary_iou"],
        "block_artefacts": scores["block_artefacts"],
        "block_artefacts_truth": scores["block_artefacts_truth"],
        "parameters": result["parameters"],
        "epochs": result["epochs"],
        "seconds_per_epoch": 367 / result["images_per_second"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", help="names with | between")
    parser.add_argument("--backbone", help="a pre-trained ViT")
    options = parser.parse_args()
    chosen = [name.strip() for name in options.only.split("|")] if options.only else list(NETWORKS)
    chosen = [name for name in chosen if name != PRETRAINED or options.backbone]
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed in range(options.seeds):
        for name in chosen:
            rows.setdefault(name, []).append(
                train(options.data, name, seed, options.minutes, options.out, options.backbone)
            )
            print(name, seed, rows[name][-1], file=sys.stderr, flush=True)
    means = {
        name: {key: statistics.fmean(row[key] or 0.0 for row in found) for key in found[0]}
        for name, found in rows.items()
    }
    print("| network | right pixels | mean IoU | parameters | s an epoch | epochs | block artefacts |")
    print("|---|---|---|---|---|---|---|")
    for name, row in means.items():
        print(
            f"| {name} | {row['pixel_accuracy']:.2%} | {row['mean_iou']:.2%} | {row['parameters']:,.0f} | "
            f"{row['seconds_per_epoch']:.1f} | {row['epochs']:.0f} | {row['block_artefacts']:.2f} |"
        )
    print(json.dumps(means))


if __name__ == "__main__":
    main()
