"""Recipes for CamVid from scratch (11 classes, void ignored).

Figures stand in LOG.md.
"""

from __future__ import annotations

from typing import Any

CLASSES = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian"),
    "bicyclist",
)


def camvid_60min() -> dict[str, Any]:
    """An hour on two cores."""
    return {
        "task": "segment",
        "model": "segformer_b0",
        "minutes": 60,
        "batch_size": 8,
        "data": {"mask_names": list(CLASSES), "mask_ignore": [11], "test_fraction": 0.0},
        "optim": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01},
        "schedule": {"name": "cosine", "warmup": 0.05},
        "augment": {"hflip": 0.5, "zoom": 0.5, "translation": 0.2, "color_jitter": 0.4},
    }
