"""Recipes for fine-tuning to other classes and larger images, with ``--from SOURCE``.

Figures stand in LOG.md.

Which to take: ``head_only`` first, for it takes seconds once the features are there, and it tells what the
model knows already; ``finetune`` for the best score; ``lora`` where one base serves many tasks, since an
adapter is a hundredth of the model.
"""

from __future__ import annotations

from typing import Any


def finetune() -> dict[str, Any]:
    """All weights, the lower layers more gently: ``tesela train DATA --from SOURCE --recipe finetune``.

    AdamW with a learning rate that falls by a quarter from each layer to the one below (arXiv 2106.08254),
    RandAugment, label smoothing and a moving average. For few images raise --epochs rather than the rate:
    with 100 images of CIFAR-10 and RandAugment, 50 epochs in batches of 20 gave 71.7 % at this rate and 70.0
    % at three times it; the head alone gave 64.1 %.
    """
    return {
        "tune": "all",
        "epochs": 20,
        "optim": {"name": "adamw", "lr": 3e-4, "weight_decay": 0.05, "layer_decay": 0.75},
        "schedule": {"name": "cosine", "warmup": 0.1},
        "ema": {"decay": 0.999},
        "label_smoothing": 0.1,
        "clip_norm": 1.0,
        "augment": {
            "hflip": 0.5,
            "random_resized_crop": True,
            "crop_scale": [0.5, 1.0],
            "randaugment": 2,
            "magnitude": 9,
        },
    }


def few_labels() -> dict[str, Any]:
    """Fine-tuning of a network that was pre-trained on images without labels, with few labels.

    ``tesela train DATA --recipe pretrain_mae --out pretrained``, then ``tesela train DATA --from pretrained
    --recipe few_labels``, with the same DATA, whose test images the pre-training leaves out. Beside a network
    from scratch and a CNN in equal time, over seeds: ``tesela study few-labels DATA``.
    """
    return {
        "tune": "all",
        "epochs": 100,
        "optim": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05, "layer_decay": 0.75},
        "schedule": {"name": "cosine", "warmup": 0.1},
        "keep": "last",
    }


def finetune_paper() -> dict[str, Any]:
    """The ViT paper's fine-tuning (arXiv 2010.11929, appendix B.1.1).

    ``tesela train DATA --from SOURCE --recipe finetune_paper``.

    SGD with momentum 0.9, batches of 512, cosine decay, no weight decay, gradients clipped at 1, images of
    384 px (512 with ``--image-size 512``), positions interpolated, a new head of zeros. The paper tries the
    rates 0.001, 0.003, 0.01 and 0.03 and keeps the best on validation images. The batch is gathered from
    eight smaller ones.
    """
    return {
        "tune": "all",
        "epochs": 20,
        "image_size": 384,
        "batch_size": 64,
        "accumulate": 8,
        "optim": {"name": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.0},
        "schedule": {"name": "cosine", "warmup": 0.05},
        "clip_norm": 1.0,
        "augment": {"hflip": 0.5, "random_resized_crop": True, "crop_scale": [0.5, 1.0]},
    }


def head_only() -> dict[str, Any]:
    """The head alone: ``tesela train DATA --from SOURCE --recipe head_only``.

    Every image and its mirror image pass the frozen body once; an epoch after that takes a moment, so there
    are many.
    """
    return {
        "tune": "head",
        "epochs": 100,
        "optim": {"name": "adamw", "lr": 3e-3, "weight_decay": 0.01},
        "schedule": {"name": "cosine", "warmup": 0.05},
        "augment": {"hflip": 0.5},
    }


def lora() -> dict[str, Any]:
    """Adapters of rank 8 on every dense layer, and the head.

    ``tesela train DATA --from SOURCE --recipe lora``.

    ``adapter/`` of the run holds what was trained, in peft's layout; the bundle has it merged.
    """
    return {
        "tune": "lora",
        "epochs": 20,
        "lora": {"rank": 8, "alpha": 16.0, "dropout": 0.05},
        "optim": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.0},
        "schedule": {"name": "cosine", "warmup": 0.1},
        "label_smoothing": 0.1,
        "augment": {"hflip": 0.5, "random_resized_crop": True, "crop_scale": [0.5, 1.0]},
    }
