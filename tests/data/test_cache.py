"""The cache changes no bit: the same batches with and without it, for every augmentation and image size."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from tesela.data.config import AugmentConfig
from tesela.data.loader import Loader
from tesela.data.source import ArrayItems
from tesela.data.targets import LabelTargets
from tesela.imaging.spec import ImageSpec

SPEC = ImageSpec(height=12, width=16, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "flips": {"hflip": 0.5, "vflip": 0.5},
    "padded crop": {"crop_padding": 2},
    "resized crop": {"random_resized_crop": True},
    "resized crop, flips, colour": {"random_resized_crop": True, "hflip": 0.5, "color_jitter": 0.4},
    "warps": {"rotation": 10.0, "zoom": 0.2, "shear": 5.0, "perspective": 0.1, "translation": 0.1},
    "policies": {"randaugment": 2, "erasing": 0.5},
    "trivial": {"trivialaugment": True},
    "mixed": {"mixup": 0.4, "cutmix": 0.5},
}


def digest(items: ArrayItems, augment: AugmentConfig, cache: Any, workers: int) -> str:
    found = hashlib.sha256()
    loader = Loader(
        items,
        SPEC,
        batch_size=4,
        augment=augment,
        seed=3,
        shuffle=True,
        cache=cache,
        workers=workers,
        targets=LabelTargets(("a", "b")),
    )
    for epoch in (0, 1):
        for batch in loader.epoch(epoch):
            found.update(batch.images.numpy().tobytes() + batch.targets.numpy().tobytes())
    loader.close()
    return found.hexdigest()


@pytest.mark.parametrize("size", [(12, 16), (9, 11), (40, 60), (12, 60)])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_cache_changes_no_bit(name: str, size: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (10, *size, 3)).astype(np.uint8)
    items = ArrayItems(images, np.arange(10) % 2, prefix="noise")
    augment = AugmentConfig(preset="none", **AUGMENTATIONS[name])
    assert len({digest(items, augment, cache, 0) for cache in ("none", "ram", "auto")}) == 1


def test_crops_of_large_images_see_their_detail() -> None:
    """Noise keeps its contrast in a crop of the image; in a crop of a thumbnail it is averaged away."""
    generator = np.random.default_rng(0)
    images = (255 * generator.integers(0, 2, (8, 120, 160, 3))).astype(np.uint8)
    items = ArrayItems(images, np.zeros(8, np.int64), prefix="noise")
    augment = AugmentConfig(random_resized_crop=True, crop_scale=(0.01, 0.02))
    loader = Loader(items, SPEC, batch_size=8, augment=augment, cache="ram", targets=LabelTargets(("a",)))
    pixels = next(iter(loader.epoch(0))).images.numpy() * 0.25 + 0.5
    assert pixels.std() > 0.3
