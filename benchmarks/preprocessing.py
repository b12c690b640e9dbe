"""Difference of foreign models' preprocessing from timm's and transformers' own, over sizes and ratios.

    python benchmarks/preprocessing.py --out runs/preprocessing [--sizes 200] [--timm]

For each kind of model and size, an image half smooth, half noise is brought to the model's view here and by
the library, and the largest and the mean difference in grey levels are taken. Prints one markdown table and
writes preprocessing.svg: a point for each size, beside what the nearest preprocessing of our own arithmetic
gives (fractions of a pixel in one step). timm's steps are those of tests/parity/timm_pixels.py, which needs
neither timm nor torchvision; --timm takes timm itself. Needs transformers. Last result: docs/weights.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from tesela.checkpoints.huggingface.preprocessor import read_spec
from tesela.checkpoints.timm.read import timm_fit
from tesela.imaging.preprocess import fit_image
from tesela.imaging.spec import ImageSpec, Resize
from tesela.training.prepare import begun_spec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.parity.timm_pixels import timm_view

View = Callable[[np.ndarray], np.ndarray]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TIMM: dict[str, tuple[tuple[int, int], float, str, Resize]] = {
    "timm, ratio 0.875": ((224, 224), 0.875, "center", "crop"),
    "timm, ratio 0.9": ((224, 224), 0.9, "center", "crop"),
    "timm, ratio 1": ((224, 224), 1.0, "center", "crop"),
    "timm, 224 x 288, ratio 0.95": ((224, 288), 0.95, "center", "crop"),
    "timm, squash, ratio 0.875": ((224, 224), 0.875, "squash", "squash"),
    "timm, border, ratio 0.9": ((224, 224), 0.9, "border", "pad"),
}
TRANSFORMERS: dict[str, Any] = {
    "transformers, ViT": ViTImageProcessorPil(),
    "transformers, DeiT": DeiTImageProcessorPil(),
    "transformers, DINOv2": BitImageProcessorPil(size={"shortest_edge": 256}, image_mean=MEAN, image_std=STD),
    "transformers, CLIP": CLIPImageProcessorPil(),
    "transformers, SegFormer": SegformerImageProcessorPil(),
}


def picture(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Smooth colours with edges on the left, noise on the right: (H, W, 3), uint8."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([y * 255 / height, x * 255 / width, 255 * ((x // 7 + y // 5) % 2)], -1)
    noise = rng.integers(0, 256, (height, width, 3))
    return np.where((x < width // 2)[..., None], smooth, noise).astype(np.uint8)


def kinds(*, real: bool) -> dict[str, tuple[ImageSpec, View]]:
    """The spec that a model of each kind gets here, and the library's own view (h, w, 3) in grey levels."""
    found: dict[str, tuple[ImageSpec, View]] = {}
    for name, (view, ratio, mode, resize) in TIMM.items():
        fit = timm_fit(view, ratio, resize=resize)
        spec = ImageSpec(
            height=view[0], width=view[1], channels=3, mean=MEAN, std=STD, crop_ratio=ratio, **fit
        )
        found[name] = spec, (_timm(view, ratio, mode) if real else _steps(view, ratio, mode))
    for name, processor in TRANSFORMERS.items():
        stated = {key: value for key, value in processor.to_dict().items() if value is not None}
        size = stated.get("crop_size") or stated["size"]
        spec, _ = read_spec(stated, model_type="vit", image_size=(size["height"], size["width"]), channels=3)
        found[name] = spec, _processor(processor, spec)
    return found


def _steps(view: tuple[int, int], ratio: float, mode: str) -> View:
    return lambda image: timm_view(image, view, crop_pct=ratio, crop_mode=mode)


def _timm(view: tuple[int, int], ratio: float, mode: str) -> View:
    from PIL import Image
    from timm.data.transforms_factory import (
        transforms_imagenet_eval,
    )

    steps = transforms_imagenet_eval(
        view, crop_pct=ratio, crop_mode=mode, interpolation="bicubic", mean=MEAN, std=STD, normalize=False
    )
    return lambda image: np.asarray(steps(Image.fromarray(image)).permute(1, 2, 0))


def _processor(processor: Any, spec: ImageSpec) -> View:
    def view(image: np.ndarray) -> np.ndarray:
        values = np.asarray(processor(image, return_tensors="np")["pixel_values"][0], np.float64)
        return np.asarray((values.transpose(1, 2, 0) * np.array(spec.std) + np.array(spec.mean)) * 255)

    return view


def main() -> None:
    """Compare, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=int, default=200)
    parser.add_argument("--timm", action="store_true", help="timm itself instead of its steps")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    sizes = [(480, 360), (360, 480)]
    while len(sizes) < options.sizes:
        height, width = (int(2**value) for value in rng.uniform(5, 10.3, 2))
        sizes.append((height, width))
    images = [picture(size, rng) for size in sizes[: options.sizes]]
    rows: dict[str, tuple[list[float], list[float]]] = {}
    print("| model | largest difference | mean | in one step: largest | mean |\n|---|---|---|---|---|")
    for name, (spec, theirs) in kinds(real=options.timm).items():
        plain = begun_spec({}, spec)
        apart: dict[str, list[float]] = {"largest": [], "mean": [], "plain": [], "plain mean": []}
        for image in images:
            wanted = theirs(image)
            for kind, one in (("", spec), ("plain", plain)):
                difference = np.abs(fit_image(image, one).astype(float) - wanted)
                apart[kind or "largest"].append(float(difference.max()))
                apart[f"{kind} mean".strip()].append(float(difference.mean()))
        rows[name] = apart["largest"], apart["plain"]
        print(
            f"| {name} | {max(apart['largest']):.2f} | {np.mean(apart['mean']):.3f} "
            f"| {max(apart['plain']):.0f} | {np.mean(apart['plain mean']):.2f} |"
        )
    draw(options.out, rows, options.sizes)


def draw(out: Path, rows: dict[str, tuple[list[float], list[float]]], count: int) -> None:
    """One row per model, one point per size: ours now, and in one step."""
    import matplotlib.pyplot as plt

    out.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(8, 0.45 * len(rows) + 1.4))
    jitter = np.random.default_rng(0).uniform(-0.16, 0.16, count)
    for index, (largest, plain) in enumerate(rows.values()):
        axes.plot(
            plain,
            index + 0.2 + jitter,
            ".",
            rasterized=True,
            color="#bbbbbb",
            ms=3,
            label="_" if index else "in one step",
        )
        axes.plot(
            largest,
            index - 0.2 + jitter,
            ".",
            rasterized=True,
            color="#3b6fb6",
            ms=3,
            label="_" if index else "tesela",
        )
    axes.axvline(1, color="#c0392b", lw=1, label="one grey level")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlabel(f"largest difference from the library, grey levels; a point for each of {count} sizes")
    axes.invert_yaxis()
    axes.legend(loc="upper right", fontsize=8)
    figure.tight_layout()
    figure.savefig(out / "preprocessing.svg", dpi=150)


if __name__ == "__main__":
    main()
