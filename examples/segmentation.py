"""A plain ViT as a segmenter, and five ways to better it, beside convolutions.

    python examples/segmentation.py OUT [DATA] [--minutes M]

Without DATA it draws a small set of shapes, which takes about two minutes on two cores. DATA may be CamVid,
or Oxford-IIIT Pet as its authors publish it; then give each network its minutes.

The five hypotheses are those of an article that found a plain ViT (85.89 % right pixels) behind a CNN
(88.28 %): an MLP head, smaller patches, more epochs, more data by augmentation, another learning rate.
"""

# %% The library, and what to compare.
import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import tesela as ts

words = argparse.ArgumentParser()
words.add_argument("out", type=Path)
words.add_argument("data", type=Path, nargs="?")
words.add_argument("--minutes", type=float)
words.add_argument("--seeds", type=int, default=1)
given = words.parse_args()


# %% A data set that needs no download: a red disc and a blue box on noise, and their masks.
def draw_shapes(root: Path, count: int = 48, side: int = 64) -> Path:
    generator = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image = Image.fromarray(generator.integers(0, 90, (side, side, 3)).astype(np.uint8))
        mask = Image.new("L", (side, side), 0)
        for value, colour, form in ((1, (220, 60, 50), "ellipse"), (2, (60, 90, 230), "rectangle")):
            left, top = (int(place) for place in generator.integers(0, side - 30, 2))
            width, height = (int(extent) for extent in generator.integers(16, 30, 2))
            for picture, fill in ((image, colour), (mask, value)):
                pen = ImageDraw.Draw(picture)
                getattr(pen, form)((left, top, left + width, top + height), fill=fill)
        image.save(root / "images" / f"{number:03d}.png")
        mask.save(root / "masks" / f"{number:03d}.png")
    (root / "classes.csv").write_text("value,name\n0,ground\n1,disc\n2,box\n")
    return root


small = given.data is None
data = draw_shapes(given.out / "shapes") if small else given.data
base: dict[str, Any] = {"task": "segment", "precision": "auto", "report": not small, "tensorboard": False}
if given.minutes is not None:
    base["minutes"] = given.minutes
else:
    base["epochs"] = 12 if small else 50
tiny: dict[str, Any] = {"width": 96, "depth": 3, "heads": 4} if small else {}
article: dict[str, Any] = {
    "model": "vit_seg_article",
    "image_size": 64 if small else 128,
    "net": tiny,
    "batch_size": 8 if small else 64,
    "optim": {"name": "adam", "lr": 4e-4, "weight_decay": 0.0},
    "augment": {"hflip": 0.5, "color_jitter": 0.4},
}
light: dict[str, Any] = {"name": "light", "width": 48 if small else 128}
networks: dict[str, dict[str, Any]] = {
    "plain ViT": {},
    "MLP head": {"decoder": {"name": "patch", "hidden": 256}},
    "smaller patches": {"net": {**tiny, "patch_size": [8, 8]}},
    "more epochs": {"minutes": 2 * given.minutes} if given.minutes else {"epochs": 2 * base["epochs"]},
    "more data": {"augment": {"hflip": 0.5, "color_jitter": 0.4, "zoom": 0.3, "rotation": 10}},
    "learning rate 1e-3": {"optim": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05}},
    "CNN": {"model": "unet_small", "net": {}, "optim": {"name": "adamw", "lr": 1e-3}},
    "ViT, light decoder": {"decoder": light, "optim": {"name": "adamw", "lr": 1e-3}},
}

# %% Train each of them with the same data and budget, and keep what the article and we care for.
rows = []
for name, changes in networks.items():
    for seed in range(given.seeds):
        folder = given.out / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
        run = ts.train(data, out=folder, seed=seed, **{**base, **article, **changes})
        scores = ts.evaluate(folder)
        rows.append((name, seed, run.parameters, scores))
        print(
            f"{name:20} seed {seed}  {run.parameters:>11,} parameters  "
            f"right pixels {scores['pixel_accuracy']:.3f}  mean IoU {scores['mean_iou']:.3f}  "
            f"block artefacts {scores['block_artefacts'] or 0:.2f}"
        )

# %% The best one: its masks, and why one of them is what it is.
best = max(rows, key=lambda row: row[3]["mean_iou"])
print(f"best: {best[0]}, accuracy {best[3]['pixel_accuracy']:.3f}, mean IoU {best[3]['mean_iou']:.3f}")
