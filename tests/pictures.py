"""Small pictures in folders for tests of data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tesela.data.source import Selection, Source


def make_picture(path: Path, seed: int) -> Path:
    """A PNG of random pixels, the same for the same seed; its folder is made too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 6, 3), np.uint8)
    with path.open("wb") as stream:
        Image.fromarray(pixels).save(stream, "PNG")
    return path


def make_pictures(root: Path, layout: Mapping[str, int]) -> Path:
    """Pictures {folder: how many}, all different; 0 makes the folder alone."""
    for start, (place, count) in enumerate(layout.items()):
        (root / place).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            make_picture(root / place / f"{number:03d}.png", 1000 * start + number)
    return root


def files_of(source: Source) -> dict[str, list[tuple[str, str]]]:
    """Real path and label of every image by split."""
    found = {}
    for split, items in source.splits.items():
        base: Any = items.items if isinstance(items, Selection) else items
        rows = items.rows if isinstance(items, Selection) else range(len(items))
        found[split] = sorted(
            (os.path.realpath(base.root / base.paths[row]), source.labels[target])
            for row, target in zip(rows, items.targets, strict=True)
        )
    return found
