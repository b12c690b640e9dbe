"""Recipe for masks of one's own."""

from __future__ import annotations

from typing import Any


def segment() -> dict[str, Any]:
    """Masks of your own: AdamW, cosine, several scales, Dice beside cross-entropy, a moving average.

    ``tesela train DATA --recipe segment``, with ``--from SOURCE`` for a pre-trained backbone, which gets the
    light decoder.
    """
    return {
        "task": "segment",
        "epochs": 60,
        "batch_size": 8,
        "optim": {"name": "adamw", "lr": 5e-4, "weight_decay": 0.05},
        "schedule": {"name": "cosine", "warmup": 0.05},
        "ema": {"decay": 0.998},
        "objective": {"class_weights": "sqrt", "dice": 0.5},
        "augment": {"hflip": 0.5, "zoom": 0.5, "translation": 0.2, "color_jitter": 0.4},
    }
