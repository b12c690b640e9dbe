"""P7: the tutorial's ViT on MNIST as its own plain loop trains it, beside recipes of ours.

    python benchmarks/article_mnist.py MNIST [--epochs 5] [--rounds 3] [--recipes mnist_article,mnist_fine]

Both sides are whole runs in processes of their own, alternating, from start to the score on the test images;
ours is the command `tesela train MNIST --recipe NAME`, start, final evaluation and report included. The plain
side has the printed network and settings: patches of 7 x 7 (17 tokens), width 100, three blocks, three wide
heads, ReLU, 613,710 parameters, Adam at a constant 3e-4 in fp32, batches of 64 from a DataLoader, an
attention that mixes channels instead of tokens (its view and transpose give F x F matrices), and a last
LayerNorm that is never called. The size of its batches is not printed with its figures: --plain-batch tries
another. The median of the ratios of neighbouring runs counts. Last result: see LOG.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, DEPTH, HEADS, HIDDEN, PATCH, RATE = 100, 3, 3, 400, 7, 3e-4


class ChannelAttention(nn.Module):
    """Wide heads whose attention matrices are F x F: the described mistake."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, HEADS * WIDTH) for _ in range(3))
        self.out = nn.Linear(HEADS * WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        q, k, v = (
            layer(tokens).view(batch, HEADS, count, width).transpose(2, 3)
            for layer in (self.query, self.key, self.value)
        )
        weights = (q @ k.transpose(2, 3) / width**0.5).softmax(-1)
        mixed: Tensor = self.out((weights @ v).transpose(2, 3).reshape(batch, count, HEADS * width))
        return mixed


class PlainBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = ChannelAttention()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        branch: Tensor = self.mlp(self.norm2(tokens))
        return tokens + branch


class PlainViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, WIDTH, PATCH, PATCH)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.position = nn.Parameter(torch.randn(1, (28 // PATCH) ** 2 + 1, WIDTH) * 0.02)
        self.blocks = nn.Sequential(*[PlainBlock() for _ in range(DEPTH)])
        self.norm = nn.LayerNorm(WIDTH)  # never called
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), patches], 1) + self.position
        logits: Tensor = self.head(self.blocks(tokens)[:, 0])
        return logits


def read(folder: Path, name: str) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 28, 28) in 0..1 and labels, read byte by byte."""
    with gzip.open(folder / f"{name}-images-idx3-ubyte.gz") as stream:
        images = np.frombuffer(stream.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(folder / f"{name}-labels-idx1-ubyte.gz") as stream:
        labels = np.frombuffer(stream.read(), np.uint8, offset=8)
    return torch.from_numpy(images.astype(np.float32) / 255), torch.from_numpy(labels.astype(np.int64))


def plain(folder: Path, epochs: int, batch_size: int) -> dict[str, Any]:
    """The plain loop: the accuracy after ``epochs``, and what it has."""
    torch.manual_seed(0)
    model = PlainViT()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == 613_710, parameters
    train = torch.utils.data.TensorDataset(*read(folder, "train"))
    loader = torch.utils.data.DataLoader(train, batch_size=batch_size, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    images, labels = read(folder, "t10k")
    with torch.inference_mode():
        hits = sum(
            int((model.eval()(images[i : i + 500]).argmax(1) == labels[i : i + 500]).sum())
            for i in range(0, len(images), 500)
        )
    return {"accuracy": hits / len(images), "parameters": parameters}


def timed(words: list[str]) -> dict[str, Any]:
    """A program's last line of output, and the seconds that it took from its start to its end."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *words], check=True, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - started
    answer = json.loads(done.stdout.splitlines()[-1])
    kept = {name: answer[name] for name in ("accuracy", "parameters")}
    return {"seconds": round(seconds, 1), **kept}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recipes", default="mnist_article")
    parser.add_argument("--plain-batch", type=int, default=64)
    parser.add_argument("--plain-alone", action="store_true", help="one run of the plain loop, nothing else")
    options = parser.parse_args()
    if options.plain_alone:
        print(json.dumps(plain(options.mnist, options.epochs, options.plain_batch)))
        return
    epochs = ["--epochs", str(options.epochs)]
    loop = [__file__, str(options.mnist), "--plain-alone", *epochs, "--plain-batch", str(options.plain_batch)]
    runs: dict[str, list[dict[str, Any]]] = {"plain": [timed(loop)]}
    for number in range(options.rounds):
        for recipe in options.recipes.split(","):
            with tempfile.TemporaryDirectory() as out:
                words = ["-m", "tesela", "train", str(options.mnist), "--recipe", recipe, *epochs, "--json"]
                found = timed([*words, "--seed", str(number), "--out", f"{out}/run"])
            runs["plain"].append(timed(loop))
            before, after = (run["seconds"] for run in runs["plain"][-2:])
            found["times_faster"] = round((before + after) / 2 / found["seconds"], 2)
            runs.setdefault(recipe, []).append(found)
            print(recipe, found, f"plain {before} and {after} s", file=sys.stderr, flush=True)
    ratios = {
        recipe: statistics.median(run["times_faster"] for run in found)
        for recipe, found in runs.items()
        if recipe != "plain"
    }
    threads = os.environ.get("OMP_NUM_THREADS", "torch's choice")
    print(json.dumps({**runs, "median_times_faster": ratios, "goal": 3, "threads": threads}, indent=2))


if __name__ == "__main__":
    main()
