"""Models and images that all the servers get."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import describe, write_bundle
from tesela.models.factory import create_model, create_segmenter

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Name -> (architecture, pixels of a side): usual small networks, and one whose cost hardly counts.
MODELS = {"vit_s16": ("vit_s16", 224), "vit_ti16": ("vit_ti16", 224), "vit_nano": ("vit_nano", 32)}


def bundle(folder: Path, name: str) -> Path:
    """A bundle with random weights: speed does not depend on what a network has learnt."""
    architecture, side = MODELS[name]
    target = folder / name
    if not target.exists():
        model = create_model(architecture, num_classes=10, image_size=side, channels=3, seed=0).eval()
        spec = ImageSpec(height=side, width=side, channels=3, mean=MEAN, std=STD)
        labels = [f"class {index}" for index in range(10)]
        write_bundle(target, model, describe(model, name=name, labels=labels, image=spec, license="CC0-1.0"))
    return target


def segmenter(folder: Path) -> Path:
    """A bundle that answers with masks."""
    target = folder / "masks"
    if not target.exists():
        model = create_segmenter("vit_nano", num_classes=3, image_size=32, channels=3, seed=0).eval()
        spec = ImageSpec(height=32, width=32, channels=3, mean=MEAN, std=STD)
        labels = ["ground", "red", "green"]
        write_bundle(
            target,
            model,
            describe(model, name="masks", labels=labels, image=spec, license="CC0-1.0", task="segment"),
        )
    return target


def photographs(side: int, count: int = 8) -> list[bytes]:
    """JPEG files with the statistics of photographs: noise whose power falls with its frequency."""
    draw = np.random.default_rng(0)
    height, width = side, side * 4 // 3
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    falling = 1 / np.maximum(np.hypot(rows, columns), 1 / width)
    files = []
    for _ in range(count):
        spectrum = draw.standard_normal((3, *falling.shape)) + 1j * draw.standard_normal((3, *falling.shape))
        planes = np.fft.irfft2(spectrum * falling, s=(height, width))
        planes = (planes - planes.mean()) / planes.std()
        pixels = np.clip(planes * 50 + 128, 0, 255).astype(np.uint8).transpose(1, 2, 0)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
        files.append(buffer.getvalue())
    return files
