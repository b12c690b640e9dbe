"""P7: the tutorial's ViT on MNIST as its own plain loop trains it, beside the recipe mnist_article.

Time per epoch and score.

    python benchmarks/article_mnist.py MNIST [--epochs 5] [--plain-epochs 1]

The plain side is written from the tutorial's description: 613,710 parameters, batches of 64 from a
DataLoader, Adam at 1e-3 in fp32, an attention that mixes channels instead of tokens (its view and transpose
give F x F matrices), and a last LayerNorm that is never applied. It runs --plain-epochs epochs before and
after tesela; its time for five is scaled from them. tesela's side is the whole command `tesela train MNIST
--recipe mnist_article`, start, final evaluation and report included. Last result: see LOG.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, DEPTH, HEADS, HIDDEN, PATCH = 100, 3, 3, 400, 4


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
        self.mlp = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))

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
        self.norm = nn.LayerNorm(WIDTH)  # never applied
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


def plain(folder: Path, epochs: int) -> dict[str, float]:
    """The plain loop; seconds per epoch and the accuracy after ``epochs``."""
    torch.manual_seed(0)
    model = PlainViT()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == 613_710, parameters
    train = torch.utils.data.TensorDataset(*read(folder, "train"))
    loader = torch.utils.data.DataLoader(train, batch_size=64, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    started = time.perf_counter()
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    seconds = time.perf_counter() - started
    images, labels = read(folder, "t10k")
    with torch.inference_mode():
        hits = sum(
            int((model.eval()(images[i : i + 500]).argmax(1) == labels[i : i + 500]).sum())
            for i in range(0, len(images), 500)
        )
    return {"seconds_per_epoch": seconds / epochs, "accuracy": hits / len(images), "parameters": parameters}


def recipe(folder: Path, epochs: int) -> dict[str, float]:
    """What the command line reaches and takes, from start to report."""
    with tempfile.TemporaryDirectory() as out:
        words = [
            sys.executable,
            "-m",
            "tesela",
            "train",
            str(folder),
            "--recipe",
            "mnist_article",
            "--epochs",
            str(epochs),
        ]
        started = time.perf_counter()
        done = subprocess.run(
            [*words, "--seed", "0", "--out", f"{out}/run", "--json"],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        seconds = time.perf_counter() - started
        answer = json.loads(done.stdout.splitlines()[-1])
    return {
        "seconds": seconds,
        "accuracy": answer["accuracy"],
        "parameters": answer["parameters"],
        "images_per_second": answer["images_per_second"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--plain-epochs", type=int, default=1)
    options = parser.parse_args()
    before = plain(options.mnist, options.plain_epochs)
    ours = recipe(options.mnist, options.epochs)
    after = plain(options.mnist, options.plain_epochs)
    per_epoch = (before["seconds_per_epoch"] + after["seconds_per_epoch"]) / 2
    faster = per_epoch * options.epochs / ours["seconds"]
    print(
        json.dumps(
            {
                "plain": before,
                "plain_again": after,
                "tesela": ours,
                "times_faster": round(faster, 2),
                "goal": 3,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
