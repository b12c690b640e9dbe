"""Recipes for CIFAR-10 from scratch: half an hour, or one night.

Figures stand in LOG.md.
"""

from __future__ import annotations

from typing import Any


def cifar10_compact() -> dict[str, Any]:
    """A compact convolutional transformer for a small budget on a CPU.

    ``tesela train CIFAR10 --recipe cifar10_compact --minutes 30``: 2 cores with AMX, 30 minutes, accuracy
    0.845 (seed 0).
    """
    return {
        "model": "cct_7_3x2_32",
        "epochs": 12,
        "batch_size": 128,
        "net": {"drop_path": 0.0, "attention_dropout": 0.0},
        "optim": {"name": "muon", "lr": 4e-3, "weight_decay": 0.05, "beta2": 0.99},
        "schedule": {"name": "linear", "warmup": 0.1},
        "label_smoothing": 0.1,
        "data": {"val_fraction": 0.02},
        "augment": {"hflip": 0.5, "crop_padding": 4},
    }


def cifar10_overnight() -> dict[str, Any]:
    """The same network with the regularisation that many epochs need.

    ``tesela train CIFAR10 --recipe cifar10_overnight``: about 11 hours on 2 cores with AMX by its step time.
    It has not been run to its end; with ``--minutes 17``, 1.9 of 200 epochs on 2 cores without AMX, it
    reaches 0.681.
    """
    return {
        "model": "cct_7_3x2_32",
        "epochs": 200,
        "batch_size": 128,
        "optim": {"name": "muon", "lr": 4e-3, "weight_decay": 0.1, "beta2": 0.99},
        "schedule": {"name": "linear", "warmup": 0.05},
        "ema": {"decay": 0.9995},
        "label_smoothing": 0.1,
        "data": {"val_fraction": 0.02},
        "augment": {
            "hflip": 0.5,
            "crop_padding": 4,
            "randaugment": 2,
            "magnitude": 9,
            "mixup": 0.2,
            "cutmix": 1.0,
            "mix_probability": 0.5,
        },
    }
