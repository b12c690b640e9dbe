"""Insertion and deletion of every method's maps on small, saturated and pre-trained networks.

    python benchmarks/faithful_maps.py SHARED --out runs/faithful [--images 100] [--networks NAME,...]

SHARED holds ``data/mnist``, ``data/cifar10``, ``data/ants_bees`` and ``weights/dinov2_s14``. Networks are
trained here with one seed and kept in --out as tensors; a saturated one is trained far past the point where
all its training images are right, so that it is sure of nearly everything. Of DINOv2 a linear head is
trained. Prints one markdown table: for each network and method, insertion minus deletion (area under the
curve of the class's probability, patches dropped; docs/faithfulness.md), the mean over images that the
network was not trained on; beside it a random map, the share of auto's maps that are faithful, and what auto
costs in forward passes. Last result: docs/faithfulness.md.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tesela as ts
from tesela.attribution.explain import Explanation, explain
from tesela.attribution.quality.faithfulness import FaithfulnessOptions, measure_faithfulness
from tesela.checkpoints.open import open_model
from tesela.data.open import open_source
from tesela.imaging.preprocess import fit_image
from tesela.imaging.spec import ImageSpec

METHODS = ("auto", "presence", "relevance", "gradient_rollout", "rollout", "gradcam", "rise", "random")
CURVES = FaithfulnessOptions(shares=(0.1, 0.25, 0.4, 0.55, 0.7, 0.85), weights=False)
Sample = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network and how long it is trained."""

    data: str
    model: str = "vit_mnist"
    steps: int = 600
    fields: dict[str, Any] = field(default_factory=dict)
    train: int = 10_000


SMALL = {"width": 48, "depth": 3, "heads": 4}
COLOUR = {**SMALL, "channels": 3, "image_size": 32}
NETWORKS = {
    "digits, 16 patches": Network(data="digits", model="vit_nano", train=1400),
    "MNIST, 16 patches": Network(data="mnist", fields={**SMALL, "patch_size": 7}),
    "MNIST, 16 patches, saturated": Network(
        data="mnist", steps=2500, fields={**SMALL, "patch_size": 7}, train=1500
    ),
    "MNIST, 16 patches, mean pool": Network(data="mnist", fields={**SMALL, "patch_size": 7, "pool": "mean"}),
    "MNIST, 49 patches": Network(data="mnist", fields=SMALL),
    "MNIST, article C, 49 patches": Network(data="mnist", model="vit_mnist_article"),
    "MNIST, 196 patches": Network(data="mnist", fields={**SMALL, "patch_size": 2}),
    "CIFAR-10, 64 patches": Network(data="cifar10", steps=1200, fields=COLOUR),
    "CIFAR-10, hybrid, 64 patches": Network(data="cifar10", model="r11_vit_mini4", fields=SMALL),
    "DINOv2-S, ants and bees, 256 patches": Network(data="ants_bees", model="dinov2_s14"),
}


def samples(
    shared: Path, name: str, size: tuple[int, int], *, train: int, test: int
) -> tuple[Sample, Sample]:
    """Training and test images (n, C, H, W), normalised, with their classes."""
    source = open_source("digits" if name == "digits" else str(shared / "data" / name))
    channels = source.channels
    spec = ImageSpec(
        height=size[0], width=size[1], channels=channels, mean=(0.45,) * channels, std=(0.25,) * channels
    )
    scale = torch.tensor(1 / (255 * 0.25))
    parts = []
    for split, count in (("train", train), ("test", test)):
        items = source.splits[split]
        rows = np.random.default_rng(0).permutation(len(items))[:count]
        pixels = np.stack([fit_image(items.read(int(row), channels=channels), spec) for row in rows])
        classes = torch.from_numpy(np.asarray(items.targets)[rows]).long()
        parts.append((torch.from_numpy(pixels).permute(0, 3, 1, 2) * scale - 0.45 / 0.25, classes))
    return parts[0], parts[1]


def fitted(name: str, network: Network, shared: Path, out: Path, *, test: int) -> tuple[nn.Module, Sample]:
    """The trained network and its test images."""
    file = out / f"{name.replace(' ', '_').replace(',', '')}.pt"
    probe = network.model == "dinov2_s14"
    if probe:
        model: Any = open_model(
            str(shared / "weights" / network.model), num_classes=2, new_head=True, image_size=(224, 224)
        )[0]
    else:
        model = ts.create_model(network.model, num_classes=10, seed=0, **network.fields)
    train, held = samples(shared, network.data, model.config.image_size, train=network.train, test=test)
    if file.is_file():
        model.load_state_dict(torch.load(file))
        return model.eval(), held
    if probe:
        train = _head_inputs(model, train[0]), train[1]
    fit(model.head if probe else model, train, network)
    out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), file)
    return model.eval(), held


def _head_inputs(model: Any, images: Tensor) -> Tensor:
    """What the head reads of each image."""
    found: list[Tensor] = []
    handle = model.head.register_forward_pre_hook(lambda _, arguments: found.append(arguments[0].detach()))
    with torch.no_grad():
        for part in torch.split(images, 16):
            model.eval()(part)
    handle.remove()
    return torch.cat(found)


def fit(model: nn.Module, train: Sample, network: Network) -> None:
    """Adam on cross-entropy, the rate falling to 0; no augmentation, so that the network becomes sure."""
    optimizer, draw = torch.optim.Adam(model.parameters(), lr=1e-3), torch.Generator().manual_seed(0)
    model.train()
    for step in range(network.steps):
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1.0, 2 * (1 - step / network.steps), (step + 1) / 50)
        rows = torch.randint(len(train[0]), (48,), generator=draw)
        loss = F.cross_entropy(model(train[0][rows]), train[1][rows])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()


def gap(model: nn.Module, images: Tensor, method: str) -> tuple[float, float, str]:
    """Insertion minus deletion, the share of maps that are faithful, and the method that auto took."""
    gaps, faithful, taken = [], [], method
    for begin in range(0, len(images), 10):
        part = images[begin : begin + 10]
        found = explain(model, part, method="rollout" if method == "random" else method)
        taken = found.method
        if method == "random":
            noise = torch.rand(found.tokens.shape, generator=torch.Generator().manual_seed(begin))
            found = Explanation(**{**_fields(found), "tokens": noise})
        figures = measure_faithfulness(model, part, found, options=CURVES)
        gaps.append(figures.insertion - figures.deletion)
        faithful.append(figures.faithful.float())
    return float(torch.cat(gaps).mean()), float(torch.cat(faithful).mean()), taken


def _fields(found: Explanation) -> dict[str, Any]:
    names = ("map", "tokens", "prefix_mass", "scores", "probabilities", "targets", "method")
    return {name: getattr(found, name) for name in names}


def cost(model: nn.Module, image: Tensor, method: str) -> float:
    """Processor time of one explanation in units of a forward pass; the least of five."""
    times: dict[str, list[float]] = {"forward": [], "explain": []}
    for _ in range(5):
        begin = time.process_time()
        with torch.inference_mode():
            model(image)
        middle = time.process_time()
        explain(model, image, method=method)
        times["forward"].append(middle - begin)
        times["explain"].append(time.process_time() - middle)
    return min(times["explain"]) / min(times["forward"])


def main() -> None:
    """Train what is not there, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--networks", default=None, help="names, separated by semicolons")
    parser.add_argument("--methods", default=",".join(METHODS))
    options = parser.parse_args()
    methods = options.methods.split(",")
    print(f"| network | sure of | auto takes | {' | '.join(methods)} | faithful | passes |")
    print("|" + "---|" * (len(methods) + 5))
    for name in (options.networks or ";".join(NETWORKS)).split(";"):
        model, (images, _) = fitted(name, NETWORKS[name], options.shared, options.out, test=options.images)
        with torch.inference_mode():
            sure = torch.cat([model(part).softmax(1).amax(1) for part in torch.split(images, 20)]).mean()
        rows = {method: gap(model, images, method) for method in methods}
        best = max(value for value, _, _ in rows.values())
        cells = [f"**{value:.3f}**" if value == best else f"{value:.3f}" for value, _, _ in rows.values()]
        auto = rows.get("auto", (0.0, 0.0, ""))
        print(
            f"| {name} | {sure:.2f} | {auto[2]} | {' | '.join(cells)} | {auto[1]:.2f} "
            f"| {cost(model, images[:1], 'auto'):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
