"""The cache changes no bit: the same batches with and without it, for every augmentation and image size."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tesela.core.config import build
from tesela.core.errors import ConfigError
from tesela.data.config import AugmentConfig, DataConfig
from tesela.data.loader import Loader
from tesela.data.masks.targets import MaskTargets
from tesela.data.open import open_source
from tesela.data.source import ArrayItems, Items
from tesela.data.targets import LabelTargets, Targets
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


def digest(
    items: Items,
    augment: AugmentConfig,
    cache: Any,
    workers: int = 0,
    *,
    spec: ImageSpec = SPEC,
    targets: Targets | None = None,
    unreadable: float = 0.01,
) -> str:
    """SHA-256 of two epochs' images and targets."""
    found = hashlib.sha256()
    loader = Loader(
        items,
        spec,
        batch_size=4,
        augment=augment,
        seed=3,
        shuffle=True,
        cache=cache,
        workers=workers,
        max_unreadable=unreadable,
        targets=targets or LabelTargets(("a", "b")),
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
    assert len({digest(items, augment, cache) for cache in ("none", "ram", "auto")}) == 1


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and masks of many sizes: smaller than the model, its own, larger, turned, grey, one damaged."""
    root = tmp_path_factory.mktemp("files")
    generator = np.random.default_rng(0)
    sizes = [(9, 11), (12, 16), (16, 12), (40, 60), (150, 200), (12, 60), (300, 20)]
    for number, size in enumerate(sizes):
        for suffix in ("jpg", "png"):
            pixels = generator.integers(0, 256, (*size, 3)).astype(np.uint8)
            picture = Image.fromarray(pixels if number % 3 else pixels[..., 0])
            turned = Image.Exif()
            turned[0x0112] = 1 + number
            for folder in ("labels", "pairs/images"):
                file = (
                    root
                    / folder
                    / ("ab"[number % 2] if folder == "labels" else "")
                    / f"{number}{suffix}.{suffix}"
                )
                file.parent.mkdir(parents=True, exist_ok=True)
                picture.save(file, exif=turned)
            mask = generator.integers(0, 3, size[::-1] if number + 1 >= 5 else size).astype(np.uint8)
            file = root / "pairs" / "masks" / f"{number}{suffix}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(mask).save(file)
    whole = root / "labels" / "a" / "4jpg.jpg"
    (root / "labels" / "a" / "cut.jpg").write_bytes(whole.read_bytes()[:3000])
    return root


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_of_files_too(files: Path, name: str, resize: Any) -> None:
    """Large JPEGs are decoded at a part of their size where a crop allows it; the damaged one is left out."""
    config = DataConfig(val_fraction=0.0, test_fraction=0.0)
    items = open_source(files / "labels", config=config).splits["train"]
    augment, spec = AugmentConfig(preset="none", **AUGMENTATIONS[name]), replace(SPEC, resize=resize)
    options: dict[str, Any] = {"spec": spec, "unreadable": 0.2}
    assert len({digest(items, augment, cache, **options) for cache in ("none", "ram", "auto")}) == 1


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "mixed"])
def test_masks_follow_alike(files: Path, name: str) -> None:
    """Masks are warped and cut as their images are, out of memory or not."""
    config = DataConfig(val_fraction=0.0, test_fraction=0.0)
    source = open_source(files / "pairs", config=config)
    assert source.masks is not None
    targets = MaskTargets(source.masks)
    augment = AugmentConfig(preset="none", **AUGMENTATIONS[name])
    items = source.splits["train"]
    assert len({digest(items, augment, cache, targets=targets) for cache in ("none", "ram", "auto")}) == 1


def test_worker_processes_change_no_bit_of_crops(files: Path) -> None:
    """The same with two processes, whatever the cache is said to be."""
    config = DataConfig(val_fraction=0.0, test_fraction=0.0)
    items = open_source(files / "labels", config=config).splits["train"]
    augment = AugmentConfig(random_resized_crop=True, hflip=0.5)
    found = {
        digest(items, augment, cache, workers, unreadable=0.2) for cache, workers in (("ram", 2), ("none", 0))
    }
    assert len(found) == 1


def test_a_cache_on_disk_is_refused() -> None:
    """There is none for images; features of a frozen body have one."""
    with pytest.raises(ConfigError, match="cache cannot be 'disk'"):
        build(DataConfig, {"source": "digits", "cache": "disk"})


def test_crops_of_large_images_see_their_detail() -> None:
    """Noise keeps its contrast in a crop of the image; in a crop of a thumbnail it is averaged away."""
    generator = np.random.default_rng(0)
    images = (255 * generator.integers(0, 2, (8, 120, 160, 3))).astype(np.uint8)
    items = ArrayItems(images, np.zeros(8, np.int64), prefix="noise")
    augment = AugmentConfig(random_resized_crop=True, crop_scale=(0.01, 0.02))
    loader = Loader(items, SPEC, batch_size=8, augment=augment, cache="ram", targets=LabelTargets(("a",)))
    pixels = next(iter(loader.epoch(0))).images.numpy() * 0.25 + 0.5
    assert pixels.std() > 0.3
