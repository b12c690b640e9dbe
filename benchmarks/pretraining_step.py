"""A step of pre-training: MAE beside a supervised step of the same encoder, DINO beside lightly's.

    python benchmarks/pretraining_step.py --lightly FOLDER [--model vit_s16] [--size 224] [--batch 32]

The folder holds the peer, installed apart from tesela: pip install --target FOLDER --no-deps lightly
lightly_utils timm torchvision pytorch_lightning lightning_utilities torchmetrics hydra-core omegaconf.
lightly's side is that of its own example: crop after crop through a network of timm, its projection, loss and
update of the teacher. Both sides get the same crops, made beforehand, as many prototypes, the same
optimizer and number format; tesela computes with the attention kernel that it has for that format.

All sides take turns in one process; the medians count. One line of JSON.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from training_step import pass_over_missing_operators

from tesela.data.batch import Batch
from tesela.imaging.spec import ImageSpec
from tesela.layers.attention.attention import set_attention_kernel
from tesela.models import catalog
from tesela.models.embedder import Embedder
from tesela.models.factory import build_model, create_model
from tesela.tasks.objective import Draw
from tesela.tasks.pretraining.config import PretrainConfig
from tesela.tasks.pretraining.dino import BOTTLENECK, Dino
from tesela.tasks.pretraining.mae import MaskedAutoencoder
from tesela.training.optim.optimizer import OptimConfig, build_optimizers

WARM = 2
KERNELS = {"bf16": "cpu_bf16", "fp32": "fused"}
Step = Callable[[int], None]


def updates(
    arguments: argparse.Namespace,
    model: torch.nn.Module,
    loss: Callable[[int], Tensor],
    objective: Any = None,
) -> Step:
    """One update of all weights by a loss."""
    optimizers = build_optimizers(model, OptimConfig(), objective=objective)

    def step(number: int) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.precision == "bf16"):
            value = loss(number)
        value.backward()  # type: ignore[no-untyped-call]
        for part in optimizers.parts:
            part.step()
        optimizers.zero_grad()

    return step


def supervised(arguments: argparse.Namespace, batch: Batch) -> Step:
    """Cross-entropy of a classifier."""
    model = create_model(arguments.model, num_classes=1000, image_size=arguments.size, channels=3, seed=0)
    set_attention_kernel(model, KERNELS[arguments.precision])
    targets = torch.arange(len(batch)) % 1000
    return updates(
        arguments, model, lambda _: torch.nn.functional.cross_entropy(model(batch.images), targets)
    )


def embedder(arguments: argparse.Namespace) -> Embedder:
    """The same encoder."""
    size = arguments.size, arguments.size
    model = build_model(catalog.resolve(arguments.model, image_size=size, channels=3), Embedder, seed=0)
    set_attention_kernel(model, KERNELS[arguments.precision])
    return model


def autoencoder(arguments: argparse.Namespace, batch: Batch, spec: ImageSpec) -> Step:
    """MAE with three quarters of the patches hidden."""
    model, objective = embedder(arguments), MaskedAutoencoder(PretrainConfig(method="mae"))
    objective.attach(model, spec, seed=0)
    set_attention_kernel(objective, KERNELS[arguments.precision])
    return updates(
        arguments, model, lambda number: objective.loss(model, batch, Draw(0, number)).value, objective
    )


class SameCrops(Dino):
    """DINO on crops that are there already."""

    made: tuple[Tensor, Tensor | None]

    def crops(self, batch: Batch, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """The crops."""
        del batch, draw
        return self.made


def teacher_and_student(
    arguments: argparse.Namespace, batch: Batch, spec: ImageSpec
) -> tuple[Step, tuple[Tensor, Tensor | None]]:
    """DINO, and its crops."""
    model, objective = embedder(arguments), SameCrops(PretrainConfig(method="dino"))
    objective.attach(model, spec, seed=0)
    set_attention_kernel(objective, KERNELS[arguments.precision])
    objective.made = Dino.crops(objective, batch, Draw(0, 0))
    update = updates(
        arguments, model, lambda number: objective.loss(model, batch, Draw(0, number)).value, objective
    )

    def step(number: int) -> None:
        update(number)
        objective.after_step(model, step=number + 1)

    return step, objective.made


def lightly_step(arguments: argparse.Namespace, crops: tuple[Tensor, Tensor | None], count: int) -> Step:
    """The step of lightly's example, on the same network and crops."""
    sys.path.append(arguments.lightly)
    pass_over_missing_operators()
    criterion_class: Any = importlib.import_module("lightly.loss.dino_loss").DINOLoss
    head_class: Any = importlib.import_module("lightly.models.modules.heads").DINOProjectionHead
    update_momentum: Any = importlib.import_module("lightly.models.utils").update_momentum
    config = PretrainConfig(method="dino")
    timm: Any = importlib.import_module("timm")
    student = timm.create_model(arguments.peer, num_classes=0, img_size=arguments.size, dynamic_img_size=True)
    student_head, teacher_head = (
        head_class(
            student.num_features, config.projection_width, BOTTLENECK, config.prototypes, freeze_last_layer=0
        )
        for _ in range(2)
    )
    teacher = copy.deepcopy(student)
    for one in (teacher, teacher_head):
        one.requires_grad_(False)
    criterion = criterion_class(output_dim=config.prototypes)
    views = [view for part in crops if part is not None for view in torch.split(part, count)]
    both = torch.nn.ModuleList([student, student_head])

    def loss(number: int) -> Tensor:
        update_momentum(student, teacher, m=config.teacher_momentum)
        update_momentum(student_head, teacher_head, m=config.teacher_momentum)
        with torch.no_grad():
            taught = [teacher_head(teacher(view)) for view in views[:2]]
        told = [student_head(student(view)) for view in views]
        found: Tensor = criterion(taught, told, epoch=number)
        return found

    return updates(arguments, both, loss)


def medians(steps: Sequence[Step], rounds: int) -> list[float]:
    """Seconds of each step, all in turn."""
    times: list[list[float]] = [[] for _ in steps]
    for number in range(WARM + rounds):
        for place, step in enumerate(steps):
            begin = time.perf_counter()
            step(number)
            times[place].append(time.perf_counter() - begin)
    return [statistics.median(found[WARM:]) for found in times]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--lightly", help="folder with lightly; without it MAE alone is measured")
    parser.add_argument("--model", default="vit_s16")
    parser.add_argument("--peer", default="vit_small_patch16_224", help="timm's name of the same network")
    parser.add_argument("--precision", choices=sorted(KERNELS), default="bf16")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    size = arguments.size
    spec = ImageSpec(height=size, width=size, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    images = torch.randn(arguments.batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    batch = Batch(images, torch.full((arguments.batch,), -1), torch.arange(arguments.batch))
    plain, masked = medians(
        [supervised(arguments, batch), autoencoder(arguments, batch, spec)], arguments.rounds
    )
    found: dict[str, Any] = {
        "supervised_ms": plain * 1e3,
        "mae_ms": masked * 1e3,
        "mae_share": masked / plain,
    }
    if arguments.lightly:
        step, crops = teacher_and_student(arguments, batch, spec)
        own, peer = medians([step, lightly_step(arguments, crops, len(batch))], arguments.rounds)
        found |= {"dino_ms": own * 1e3, "lightly_ms": peer * 1e3, "dino_speedup": peer / own}
    found |= {"model": arguments.model, "size": size, "batch": arguments.batch}
    found |= {"precision": arguments.precision}
    found |= {"threads": torch.get_num_threads(), "torch": str(torch.__version__)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
