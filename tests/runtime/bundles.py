"""One small trained classifier of handwritten digits for the tests of runtime, export, serve and cli, made
once per process.

Trained (about two seconds) and not random, so that its probabilities are sharp and a wrong preprocessing
shows.
"""

from __future__ import annotations

import atexit
import functools
import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from tesela.exporters.onnx import export_onnx
from tesela.imaging.preprocess import normalize
from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import describe, write_bundle
from tesela.models.factory import create_model

SPEC = ImageSpec(height=8, width=8, channels=1, mean=(0.3,), std=(0.35,), interpolation="bilinear")
LABELS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@functools.cache
def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Scikit-learn's digits as (N, 8, 8, 1) uint8, and their classes."""
    images, targets = load_digits(return_X_y=True)
    return (images.reshape(-1, 8, 8, 1) * (255 / 16)).round().astype(np.uint8), targets.astype(np.int64)


@functools.cache
def digits_run() -> Path:
    """A folder like a run's, with ``bundle/`` in it; digits from 1,500 on were not trained on."""
    folder = Path(tempfile.mkdtemp(prefix="tesela-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    model = create_model(
        "vit_nano", num_classes=10, image_size=8, channels=1, seed=0, width=32, depth=2, heads=2
    )
    images, targets = digits()
    batches = torch.from_numpy(normalize(images[:1500], SPEC))
    wanted = torch.from_numpy(targets[:1500])
    order = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(300):
        chosen = torch.randint(0, 1500, (128,), generator=order)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(batches[chosen]), wanted[chosen]).backward()
        optimizer.step()
    write_bundle(
        folder / "bundle",
        model.eval(),
        describe(model, name="digits", labels=LABELS, image=SPEC, license="CC0-1.0"),
    )
    return folder


@functools.cache
def digits_onnx() -> Path:
    """The same model as an ONNX bundle."""
    target = digits_run().with_name(digits_run().name + "-onnx")
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    return export_onnx(digits_run(), target).bundle


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of (H, W, C) pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def held_out(count: int) -> tuple[list[bytes], list[int]]:
    """PNG files of digits that were not trained on, and their classes."""
    images, targets = digits()
    return [png(image) for image in images[1500 : 1500 + count]], targets[1500 : 1500 + count].tolist()
