"""Images a second over a large folder: tesela predict beside timm's and transformers' inference loops.

    python benchmarks/scoring.py RUN [--images 5000] [--side 224] [--threads 2] [--batch 32] [--timm FOLDER]
                                     [--precision fp32] [--sides bare tesela ...]

The folder holds links to a few hundred JPEGs. Every side computes the same ViT weights in one precision,
carried over by tesela's exports, and writes a CSV row for each image: tesela by ``predict --parts``, the
others by the usual loop of a DataLoader whose worker processes decode, with their own model and transforms.
``chosen`` is tesela as it is without a word about backend and precision. ``bare`` is the model alone on
arrays that are decoded already, ``decoder`` reads files and computes nothing: the ceilings, where the cores
had nothing else to do. Each side is a process of its own; the last line is JSON with images a second of the
best of ``--rounds``.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PICTURES = 400


def make_images(folder: Path, count: int, *, side: int) -> None:
    """Links to random pictures, twice as large as the model's view."""
    draw, originals = np.random.default_rng(0), folder.with_name("originals")
    originals.mkdir()
    folder.mkdir()
    for number in range(PICTURES):
        small = Image.fromarray(draw.integers(0, 256, (16, 16, 3), np.uint8))
        small.resize((2 * side, 2 * side), Image.Resampling.BICUBIC).save(originals / f"{number}.jpg")
    for number in range(count):
        (folder / f"{number:06d}.jpg").symlink_to(originals / f"{number % PICTURES}.jpg")


def bare(place: Path, asked: argparse.Namespace) -> float:
    """The model alone on one batch, again and again."""
    from tesela.runtime.predictor import Predictor

    predictor = Predictor(asked.run, backend="torch", precision=asked.precision, threads=asked.threads)
    spec = predictor.info.image
    views = [np.zeros((spec.height, spec.width, spec.channels), np.uint8)] * asked.batch
    predictor.outputs(views)
    rounds = max(1, asked.images // asked.batch)
    begin = time.perf_counter()
    for _ in range(rounds):
        predictor.outputs(views)
    del place
    return float(rounds * asked.batch / (time.perf_counter() - begin))


def decoder(place: Path, asked: argparse.Namespace) -> float:
    """Files to views of the model's size, a thread for each core."""
    from concurrent.futures import ThreadPoolExecutor

    from tesela.runtime.predictor import Predictor

    predictor = Predictor(asked.run, backend="torch", precision="fp32", threads=1)
    files = sorted((place / "images").iterdir())
    begin = time.perf_counter()
    with ThreadPoolExecutor(asked.threads) as pool:
        for _ in pool.map(predictor.fitted, files):
            pass
    return len(files) / (time.perf_counter() - begin)


def tesela(place: Path, asked: argparse.Namespace) -> float:
    """The command, its own count of seconds."""
    return command(place, asked, ["--backend", "torch", "--precision", asked.precision])


def chosen(place: Path, asked: argparse.Namespace) -> float:
    """The command with the backend and the precision that it takes by itself."""
    return command(place, asked, [])


def command(place: Path, asked: argparse.Namespace, settings: list[str]) -> float:
    """A scoring in parts."""
    words = ["predict", asked.run, str(place / "images"), "--out", str(place / "out.csv"), "--parts", "2000"]
    words += [*settings, "--threads", str(asked.threads), "--batch", str(asked.batch), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "tesela", *words], capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout.splitlines()[-1])
    return float(told["computed"] / told["seconds"])


class Decoded:
    """The files of a folder as a data set whose pictures another library prepares."""

    def __init__(self, folder: Path, prepare: Callable[[Image.Image], Any]) -> None:
        self.files, self.prepare = sorted(folder.iterdir()), prepare

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Any:
        with Image.open(self.files[number]) as image:
            return self.prepare(image.convert("RGB"))


def loop(place: Path, asked: argparse.Namespace, prepare: Callable[[Image.Image], Any], model: Any) -> float:
    """The usual loop: worker processes decode and collate, the model computes, rows are written."""
    import torch
    from torch.utils.data import DataLoader

    torch.set_num_threads(asked.threads)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[asked.precision]
    model = model.to(kind)
    data = Decoded(place / "images", prepare)
    files: Any = data
    loader: Any = DataLoader(files, asked.batch, num_workers=asked.threads)
    begin = time.perf_counter()
    with torch.inference_mode(), (place / "out.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        for images in loader:
            found = model(images.to(kind))
            best = getattr(found, "logits", found).float().softmax(1).max(1)
            rows.writerows(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return len(data) / (time.perf_counter() - begin)


def transformers(place: Path, asked: argparse.Namespace) -> float:
    """Model and image processor of transformers."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    processor = AutoImageProcessor.from_pretrained(place / "hf", backend="pil")
    model = AutoModelForImageClassification.from_pretrained(place / "hf").eval()

    def prepare(image: Image.Image) -> Any:
        return processor(image, return_tensors="pt")["pixel_values"][0]

    return loop(place, asked, prepare, model)


def timm(place: Path, asked: argparse.Namespace) -> float:
    """Model and transforms of timm, as its inference.py has them."""
    sys.path.insert(0, asked.timm)
    from training_step import import_timm

    library = import_timm()
    model = library.create_model(f"local-dir:{place / 'timm'}", pretrained=True).eval()
    data = importlib.import_module("timm.data")
    transform = data.create_transform(**data.resolve_data_config({}, model=model))
    return loop(place, asked, transform, model)


SIDES = {side.__name__: side for side in (bare, decoder, tesela, chosen, transformers, timm)}


def main() -> None:
    """Measure the sides in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timm", default="")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--sides", nargs="+", choices=SIDES)
    parser.add_argument("--only", choices=SIDES)
    parser.add_argument("--place")
    asked = parser.parse_args()
    asked.run = str(Path(asked.run).resolve())
    if asked.only:
        sys.stdout.write(f"{SIDES[asked.only](Path(asked.place), asked)}\n")
        return
    names = [name for name in asked.sides or SIDES if name != "timm" or asked.timm]
    found: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make_images(place / "images", asked.images, side=asked.side)
        for kind in ("hf", *(["timm"] if asked.timm else [])):
            words = ["export", asked.run, "--to", kind, "--out", str(place / kind)]
            subprocess.run([sys.executable, "-m", "tesela", *words], check=True, stdout=subprocess.DEVNULL)
        for _ in range(asked.rounds):
            for name in names:
                shutil.rmtree(place / "out.csv", ignore_errors=True)
                (place / "out.csv").unlink(missing_ok=True)
                words = [sys.executable, __file__, *sys.argv[1:], "--only", name, "--place", folder]
                done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
                found[name].append(float(done.stdout.splitlines()[-1]))
    sys.stdout.write(json.dumps({name: round(max(rates), 1) for name, rates in found.items()}) + "\n")


if __name__ == "__main__":
    main()
