"""Which map points at the object of the class that was asked for? Canvases of four images, whose places
are known (E7, E8, E9).

    python benchmarks/composites.py --shared FOLDER [--data cifar10|mnist] [--captum FOLDER] [--gradcam FOLDER
        --peers FOLDER]

FOLDER of --shared holds mnist/ and cifar10/. Each canvas shows four images of four different classes in a
2 x 2 grid; a small ViT learns which classes are there (ten yes-or-no questions), so that "where is class
c" has one right box. It is trained once, from a seed, and kept in --weights; the same command gives the
same weights. Peers are installed apart: pip install --target FOLDER --no-deps captum; grad-cam
opencv-python-headless ttach; torchvision. Prints a table and one JSON object.

pointing: share of maps whose highest patch lies in the box of the asked class. deletion, insertion: area
under the class's probability while patches are taken away or come back, positions kept (low, high is
good). random weights: mean rank correlation with the map of the same network whose weights were drawn
anew. cosine: of the maps of two classes in one canvas. Last result: see LOG.md.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from composite_maps import Maps, baselines
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tesela.attribution.capture.call import undisturbed
from tesela.attribution.explain import Explanation, explain
from tesela.attribution.methods.table import AUTO_METHOD, methods
from tesela.attribution.quality.faithfulness import FaithfulnessOptions, measure_faithfulness
from tesela.attribution.quality.randomised import randomised, rank_correlation
from tesela.data.open import open_source
from tesela.models.factory import create_model
from tesela.training.optim.optimizer import OptimConfig, build_optimizers

CLASSES, BATCH = 10, 32
#: Side of an image on the canvas, patch, channels.
KINDS = {"mnist": (28, 7, 1), "cifar10": (32, 8, 3)}


@dataclass(frozen=True, kw_only=True)
class Canvases:
    """Images (N, C, H, W), normalised, and the box (0 to 3, raster order) of each class, -1 where it is
    absent (N, 10)."""

    images: Tensor
    boxes: Tensor


class Pool:
    """All images of one split, by class, as float tensors around zero."""

    def __init__(self, folder: Path, split: str, kind: str, limit: int) -> None:
        side, _, channels = KINDS[kind]
        items = open_source(folder / kind).splits[split]
        rows = np.random.default_rng(0).permutation(len(items))[:limit]
        pixels = np.stack([items.read(int(row), channels=channels) for row in rows])
        self.images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
        assert self.images.shape[-1] == side
        targets = items.targets[rows]
        self.by_class = [torch.from_numpy(np.flatnonzero(targets == label)) for label in range(CLASSES)]

    def canvases(self, count: int, *, seed: int, holes: bool = False) -> Canvases:
        """Four different classes each, drawn from the seed.

        With ``holes`` every second canvas lacks some of them.
        """
        draw = torch.Generator().manual_seed(seed)
        order = torch.rand(count, CLASSES, generator=draw).argsort(1)[:, :4]
        chosen = torch.zeros(count, 4, dtype=torch.long)
        for label, places in enumerate(self.by_class):
            at = order == label
            chosen[at] = places[torch.randint(len(places), (int(at.sum()),), generator=draw)]
        quarters = self.images[chosen]
        if holes:
            gone = (torch.rand(count, 4, generator=draw) < 0.6) & (torch.arange(count) % 2 == 0)[:, None]
            gone[:, 0] = False
            quarters, order = (
                quarters.masked_fill(gone[..., None, None, None], -1.0),
                order.masked_fill(gone, CLASSES),
            )
            turn = torch.rand(count, 4, generator=draw).argsort(1)
            quarters, order = quarters[torch.arange(count)[:, None], turn], order.gather(1, turn)
        rows = [torch.cat([quarters[:, row], quarters[:, row + 1]], dim=3) for row in (0, 2)]
        boxes = torch.full((count, CLASSES + 1), -1).scatter_(1, order, torch.arange(4).expand(count, -1))
        return Canvases(images=torch.cat(rows, dim=2), boxes=boxes[:, :CLASSES])


def make(kind: str, seed: int) -> nn.Module:
    side, patch, channels = KINDS[kind]
    patch = patch // 2 if kind == "cifar10" else patch
    fields = {
        "width": 128,
        "depth": 6,
        "heads": 4,
        "mlp_ratio": 2.0,
        "patch_size": (patch, patch),
        "patch_dropout": 0.25,
    }
    return create_model(
        "vit_ti16", num_classes=CLASSES, image_size=2 * side, channels=channels, seed=seed, **fields
    )


def train(model: nn.Module, pool: Pool, *, steps: int, seed: int) -> None:
    """Muon, warm-up and a linear fall; a fresh batch of canvases for each step.

    Half of them lack one to three of their images, and a quarter of the patches is left out: single objects
    are learned sooner, and the network has seen canvases with parts missing before deletion and insertion
    show it some.
    """
    optimizers = build_optimizers(model, OptimConfig(name="muon", lr=4e-3, weight_decay=0.05, beta2=0.99))
    begin = time.perf_counter()
    model.train()
    for step in range(steps):
        optimizers.set_lr(min(1.0, (step + 1) / max(1, steps // 20)) * (1.0 - step / steps))
        batch = pool.canvases(64, seed=seed * 1_000_003 + step, holes=True)
        loss = F.binary_cross_entropy_with_logits(model(batch.images), (batch.boxes >= 0).float())
        optimizers.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers.parts:
            optimizer.step()
        if step % 200 == 0:
            print(
                f"step {step}/{steps}: loss {loss.item():.4f}, {time.perf_counter() - begin:.0f} s",
                flush=True,
            )
    model.eval()


def exactness(model: nn.Module, canvases: Canvases) -> float:
    """Share of the ten answers that are right, of canvases the model was not trained on."""
    with torch.inference_mode():
        logits = torch.cat([model(part) for part in torch.split(canvases.images, BATCH)])
    return float(((logits > 0) == (canvases.boxes >= 0)).float().mean())


def ours(method: str) -> Maps:
    return lambda model, images, wanted: explain(model, images, wanted, method).tokens[:, 0]


def maps_of(function: Maps, model: nn.Module, canvases: Canvases) -> Tensor:
    """(N, 10, Hp, Wp) for the classes that are there, 0 elsewhere; classes go one by one, in batches."""
    found: Tensor | None = None
    for wanted in range(CLASSES):
        for rows in torch.split((canvases.boxes[:, wanted] >= 0).nonzero()[:, 0], BATCH):
            part = function(model, canvases.images[rows], wanted).detach().float()
            if found is None:
                found = torch.zeros(len(canvases.images), CLASSES, *part.shape[1:])
            found[rows, wanted] = part
    assert found is not None
    return found


def score(function: Maps, model: nn.Module, twin: nn.Module, canvases: Canvases) -> dict[str, float]:
    """All figures of one kind of map."""
    begin = time.perf_counter()
    maps = maps_of(function, model, canvases)
    seconds = time.perf_counter() - begin
    there = canvases.boxes >= 0
    grid = maps.shape[2:]
    best = maps.flatten(2).argmax(-1)
    box = (best // grid[1] >= grid[0] // 2).long() * 2 + (best % grid[1] >= grid[1] // 2).long()
    classes = there.nonzero()[:, 1].view(-1, 4)
    four = maps.gather(1, classes[:, :, None, None].expand(-1, -1, *grid))
    flat = F.normalize(four.flatten(2), dim=-1)
    pairs = (flat @ flat.transpose(1, 2))[:, *torch.triu_indices(4, 4, 1)]
    again = maps_of(function, twin, canvases)
    correlation = rank_correlation(maps.flatten(2)[there], again.flatten(2)[there])
    blank = torch.zeros(classes.shape)
    found = Explanation(
        map=four,
        tokens=four,
        prefix_mass=blank,
        scores=blank,
        probabilities=blank,
        targets=classes,
        method=AUTO_METHOD,
    )
    options = FaithfulnessOptions(weights=False)
    parts = [
        _figures(model, canvases.images[at : at + BATCH], found, at, options)
        for at in range(0, len(classes), BATCH)
    ]
    deletion, insertion = (float(torch.cat([part[index] for part in parts]).mean()) for index in range(2))
    return {
        "pointing": float((box == canvases.boxes)[there].float().mean()),
        "deletion": deletion,
        "insertion": insertion,
        "random_weights": float(correlation.nan_to_num(0.0).mean()),
        "cosine": float(pairs.mean()),
        "seconds": seconds,
    }


def _figures(
    model: nn.Module, images: Tensor, found: Explanation, at: int, options: FaithfulnessOptions
) -> tuple[Tensor, Tensor]:
    part = slice(at, at + len(images))
    fields = {
        name: getattr(found, name)[part]
        for name in ("map", "tokens", "prefix_mass", "scores", "probabilities", "targets")
    }
    figures = measure_faithfulness(
        model, images, Explanation(**fields, method=found.method), options=options, probability=torch.sigmoid
    )
    return figures.deletion, figures.insertion


def prepared(chosen: argparse.Namespace) -> nn.Module:
    """The trained network, from the file of an earlier call where there is one."""
    model = make(chosen.data, chosen.seed)
    file = chosen.weights / f"composites-{chosen.data}-{chosen.steps}-{chosen.seed}.safetensors"
    if file.is_file():
        model.load_state_dict(load_file(file))
    else:
        train(
            model,
            Pool(chosen.shared, "train", chosen.data, chosen.images),
            steps=chosen.steps,
            seed=chosen.seed,
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), file)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True, help="folder with mnist/ and cifar10/")
    parser.add_argument("--data", choices=sorted(KINDS), default="mnist")
    parser.add_argument("--steps", type=int, default=3000, help="training steps of 64 canvases")
    parser.add_argument("--images", type=int, default=60_000, help="images that canvases are made of")
    parser.add_argument(
        "--canvases", type=int, default=250, help="canvases that are explained, four maps each"
    )
    parser.add_argument("--methods", default=",".join([AUTO_METHOD, *methods()]))
    parser.add_argument("--weights", type=Path, default=Path("runs/composites"))
    parser.add_argument("--seed", type=int, default=0)
    for peer in ("captum", "gradcam", "peers"):
        parser.add_argument(f"--{peer}", type=Path)
    chosen = parser.parse_args()
    model = prepared(chosen)
    test = Pool(chosen.shared, "test", chosen.data, chosen.images).canvases(
        chosen.canvases, seed=10_000 + chosen.seed
    )
    table: dict[str, Any] = {name: ours(name) for name in chosen.methods.split(",")}
    table |= baselines(chosen.captum, chosen.gradcam, chosen.peers)
    with undisturbed(model):
        twin, right = randomised(model, seed=1), exactness(model, test)
    print(f"{chosen.data}: {right:.2%} of the answers right on {chosen.canvases} new canvases")
    rows: dict[str, dict[str, float]] = {}
    for name, function in table.items():
        rows[name] = score(function, model, twin, test)
        print(
            f"{name:38s}" + "".join(f"{key} {value:7.3f}  " for key, value in rows[name].items()), flush=True
        )
    print(
        json.dumps(
            {
                "data": chosen.data,
                "steps": chosen.steps,
                "canvases": chosen.canvases,
                "answers_right": right,
                "maps": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
