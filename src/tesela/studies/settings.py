"""Settings that the runs of a study have in common, and those of one way of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tesela.studies.config import StudyConfig
from tesela.training.config import absolute

BATCH, PRETRAINING_BATCH = 64, 128
#: What a run is asked for in a study: the last weights, so that no validation labels help, and no report.
COMMON: dict[str, Any] = {
    "data.val_fraction": 0.0,
    "keep": "last",
    "calibrate": False,
    "report": False,
    "tensorboard": False,
}
#: Masked autoencoder as in ``--recipe pretrain_mae``, with a larger rate for few epochs of a small network.
PRETRAINING: dict[str, Any] = {
    "task": "pretrain",
    "objective.method": "mae",
    "objective.mask_ratio": 0.75,
    "optim.name": "adamw",
    "optim.lr": 2e-3,
    "optim.beta2": 0.95,
    "optim.weight_decay": 0.05,
    "schedule.warmup": 0.1,
    "augment.random_resized_crop": True,
    "augment.crop_scale": [0.2, 1.0],
}
#: Fine-tuning of a pre-trained network as in ``--recipe few_labels``.
TUNING: dict[str, Any] = {
    "optim.name": "adamw",
    "optim.lr": 1e-3,
    "optim.weight_decay": 0.05,
    "optim.layer_decay": 0.75,
    "schedule.warmup": 0.1,
}
#: Settings of all runs that a pre-training takes over too.
SHARED = (
    "data",
    "augment",
    "batch_size",
    "threads",
    "precision",
    "attention",
    "device",
    "image_size",
    "resize",
)


def run_settings(
    config: StudyConfig, *, budget: tuple[str, float], seed: int, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings of a supervised run, those of the command line over all others.

    Args:
        config: of the study.
        budget: ``epochs`` or ``minutes``, and how many.
        seed: which also draws the images of a subset.
        extra: what sets it apart.
    """
    return {
        **COMMON,
        "batch_size": BATCH,
        "data.source": absolute(config.data),
        "data.split_seed": seed,
        **extra,
        **config.settings,
        budget[0]: budget[1],
    }


def pretraining_settings(
    config: StudyConfig, *, minutes: float, seed: int, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings of a pre-training on all training images, without their labels."""
    given = {name: value for name, value in config.settings.items() if name.partition(".")[0] in SHARED}
    return {
        **COMMON,
        "batch_size": PRETRAINING_BATCH,
        "data.source": absolute(config.data),
        "data.split_seed": seed,
        **PRETRAINING,
        **extra,
        **given,
        "minutes": minutes,
    }
