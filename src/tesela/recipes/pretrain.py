"""Recipes for pre-training on images without labels; ``--from RUN`` takes the result.

Which to take: ``pretrain_mae`` has the cheapest step and is meant for fine-tuning of all weights;
``pretrain_dino`` costs several times as much and gives embeddings that tell classes without fine-tuning.
"""

from __future__ import annotations

from typing import Any


def pretrain_masked() -> dict[str, Any]:
    """Masked patch prediction of the ViT paper (arXiv 2010.11929, appendix B.1.2).

    ``tesela train FOLDER --recipe pretrain_masked``. Half of the patches are corrupted, the target is their
    mean colour of 3 bits a channel; Adam with a base rate of 2e-4, warm-up and cosine decay.
    """
    return {
        "task": "pretrain",
        "objective": {"method": "masked", "mask_ratio": 0.5, "mask_target": "color"},
        "epochs": 100,
        "optim": {"name": "adam", "lr": 2e-4, "weight_decay": 0.0},
        "schedule": {"name": "cosine", "warmup": 0.1},
        "augment": {"hflip": 0.5},
        "keep": "last",
    }


def pretrain_mae() -> dict[str, Any]:
    """Masked autoencoder (arXiv 2111.06377, table 8).

    ``tesela train FOLDER --recipe pretrain_mae``. Three quarters of the patches are hidden; crops and flips
    are all of the augmentation.
    """
    return {
        "task": "pretrain",
        "objective": {"method": "mae", "mask_ratio": 0.75},
        "epochs": 200,
        "optim": {"name": "adamw", "lr": 6e-4, "beta2": 0.95, "weight_decay": 0.05},
        "schedule": {"name": "cosine", "warmup": 0.1},
        "augment": {"hflip": 0.5, "random_resized_crop": True, "crop_scale": [0.2, 1.0]},
        "keep": "last",
    }


def pretrain_dino() -> dict[str, Any]:
    """Momentum teacher on two large and six small crops (arXiv 2104.14294).

    ``tesela train FOLDER --recipe pretrain_dino``. The moving average that is shipped is what the teacher is.
    """
    return {
        "task": "pretrain",
        "objective": {"method": "dino"},
        "epochs": 100,
        "optim": {"name": "adamw", "lr": 5e-4, "weight_decay": 0.04},
        "schedule": {"name": "cosine", "warmup": 0.1},
        "ema": {"decay": 0.996},
        "clip_norm": 3.0,
        "keep": "last",
    }
