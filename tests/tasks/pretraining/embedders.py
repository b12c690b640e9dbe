"""Small networks and batches for the tests of pre-training."""

from __future__ import annotations

from typing import Any

import torch

from tesela.data.batch import Batch
from tesela.imaging.spec import ImageSpec
from tesela.models import catalog
from tesela.models.embedder import Embedder
from tesela.models.factory import build_model
from tesela.tasks.objective import Objective
from tesela.tasks.pretraining.config import PretrainConfig
from tesela.tasks.pretraining.task import Pretraining

SPEC = ImageSpec(height=32, width=24, channels=3, mean=(0.45, 0.5, 0.4), std=(0.2, 0.25, 0.3))
QUICK: dict[str, Any] = {
    "task": "pretrain",
    "data": {"source": "digits", "subset": 200, "workers": 0},
    "model": "vit_nano",
    "net": {"width": 16, "depth": 2, "heads": 2},
    "epochs": 2,
    "batch_size": 20,
    "precision": "fp32",
    "attention": "fused",
    "threads": 1,
    "tensorboard": False,
    "report": False,
}


def embedder(**overrides: Any) -> Embedder:
    """Two blocks of width 16 on 4 x 3 patches of 8 x 8 pixels."""
    small = {"width": 16, "depth": 2, "heads": 2, "patch_size": (8, 8), **overrides}
    network = catalog.resolve("vit_lite6_p4", image_size=SPEC.size, channels=3, overrides=small)
    return build_model(network, Embedder, seed=0)


def pixels(count: int = 4, seed: int = 0) -> torch.Tensor:
    """(B, 3, 32, 24) values 0..255."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, *SPEC.size), generator=generator)


def batch_of(values: torch.Tensor) -> Batch:
    """Normalised images of values 0..255, without labels."""
    mean, std = (torch.tensor(part).view(-1, 1, 1) for part in (SPEC.mean, SPEC.std))
    images = (values.float() / 255 - mean) / std
    count = len(values)
    return Batch(images, torch.full((count,), -1), torch.arange(count))


def attached(model: Embedder, **settings: Any) -> Any:
    """The objective of these settings for a model."""
    objective: Objective = Pretraining().objective(PretrainConfig(**settings), None)  # type: ignore[arg-type]
    objective.attach(model, SPEC, seed=0)
    return objective
