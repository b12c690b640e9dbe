"""The loader: the same bits for every number of workers, resume, and what happens to unreadable images."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tesela.core.errors import DataError
from tesela.data.batch import Batch
from tesela.data.config import AugmentConfig
from tesela.data.loader import BatchMaker, Loader, _Processes
from tesela.data.open import open_source
from tesela.data.reader import fits_in_ram
from tesela.data.source import ArrayItems, Selection
from tesela.data.sources.folder import FileItems
from tesela.data.targets import LabelTargets
from tesela.imaging.preprocess import preprocess
from tesela.imaging.spec import ImageSpec

SPEC = ImageSpec(height=24, width=24, channels=3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
TRAINING = AugmentConfig(
    hflip=0.5, random_resized_crop=True, randaugment=2, erasing=0.3, mixup=0.4, cutmix=1.0
)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> FileItems:
    """30 JPEGs and PNGs of several sizes."""
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    names = []
    for number in range(30):
        height, width = random.integers(20, 120, 2)
        small = Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8))
        names.append(f"{number:02d}" + (".jpg" if number % 3 else ".png"))
        small.resize((int(width), int(height))).save(folder / names[-1])
    return FileItems(folder, names, random.integers(0, 4, 30).tolist())


def epoch(loader: Loader, number: int = 1, start: int = 0) -> list[Batch]:
    return list(loader.epoch(number, start=start))


def same(first: list[Batch], second: list[Batch]) -> bool:
    parts = [
        (getattr(a, name), getattr(b, name))
        for a, b in zip(first, second, strict=True)
        for name in ("images", "targets", "indices")
    ]
    return all(torch.equal(a, b) for a, b in parts)


def training_loader(items: FileItems, **options: object) -> Loader:
    return Loader(
        items,
        SPEC,
        batch_size=7,
        augment=TRAINING,
        seed=5,
        shuffle=True,
        targets=LabelTargets(tuple("abcd")),
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("cache", ["ram", "none"])
def test_same_bits_for_any_number_of_workers_and_on_resume(photographs: FileItems, cache: str) -> None:
    """R2."""
    reference = training_loader(photographs, cache=cache, workers=0)
    expected = epoch(reference)
    assert [len(batch) for batch in expected] == [7, 7, 7, 7, 2]
    for workers in (1, 2, 4):
        loader = training_loader(photographs, cache=cache, workers=workers)
        assert same(epoch(loader), expected)
        assert same(epoch(loader, start=3), expected[3:])
        unfinished = loader.epoch(2)
        next(unfinished)
        del unfinished
        assert same(epoch(loader), expected)
        loader.close()
    assert same(epoch(reference, start=2), expected[2:])
    assert not same(epoch(reference, 2), expected)


def test_worker_processes_may_be_spawned(photographs: FileItems) -> None:
    loader = training_loader(photographs, cache="none")
    processes = _Processes(loader._maker, 1, context="spawn")
    assert same(list(processes.epoch(1, range(5))), epoch(loader))


def test_what_a_worker_gets_is_small() -> None:
    source = open_source("digits")
    loader = Loader(source.splits["train"], SPEC, batch_size=7, cache="none")
    assert isinstance(loader._maker, BatchMaker)
    assert len(pickle.dumps(loader._maker)) < 60_000


def test_evaluation_equals_imagings_preprocess(photographs: FileItems) -> None:
    """Bit for bit what the board runtime computes, with and without the memory cache."""
    expected = preprocess([photographs.root / path for path in photographs.paths], SPEC)
    for cache in ("ram", "none"):
        batches = epoch(Loader(photographs, SPEC, batch_size=8, cache=cache), 0)
        assert np.array_equal(torch.cat([batch.images for batch in batches]).numpy(), expected)
        assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(30))
        assert torch.cat([batch.targets for batch in batches]).tolist() == photographs.targets.tolist()


def test_order_covers_every_image_once_and_small_last_batches_are_left_out(photographs: FileItems) -> None:
    loader = Loader(photographs, SPEC, batch_size=8, shuffle=True, least=8)
    assert len(loader) == 3
    seen = torch.cat([batch.indices for batch in epoch(loader)])
    assert len(seen) == len(set(seen.tolist())) == 24
    assert len(Loader(Selection(photographs, range(3)), SPEC, batch_size=8, least=8)) == 1
    assert [len(Loader(photographs, SPEC, batch_size=8, least=least)) for least in (1, 6, 7)] == [4, 4, 3]


def test_streamed_crop_is_a_part_of_the_image_at_the_right_place() -> None:
    """A coordinate image: the mean position in the crop must be the middle of the drawn box."""
    y, x = np.mgrid[:200, :160]
    image = np.stack([y, x, 0 * x], axis=-1).astype(np.uint8)
    items = ArrayItems(np.stack([image] * 20), np.zeros(20, np.int64), prefix="coordinates")
    config = AugmentConfig(random_resized_crop=True, crop_scale=(0.2, 0.9))
    plain = ImageSpec(height=24, width=24, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    loader = Loader(items, plain, batch_size=20, augment=config, cache="none", seed=9)
    assert not loader.in_ram
    batch = epoch(loader, 4)[0]
    assert loader._maker.augment is not None
    boxes = loader._maker.augment.boxes(np.tile([200, 160], (20, 1)), seed=9, epoch=4, indices=np.arange(20))
    found = batch.images.mean((2, 3)).numpy() * 255
    middle = np.stack([boxes[:, 0] + boxes[:, 2] / 2, boxes[:, 1] + boxes[:, 3] / 2], axis=1) - 0.5
    assert np.abs(found[:, :2] - middle).max() < 1.0


def test_auto_cache_streams_only_where_crops_need_detail(photographs: FileItems) -> None:
    assert Loader(photographs, SPEC, batch_size=8).in_ram
    assert not training_loader(photographs).in_ram
    digits = open_source("digits").splits["train"]
    assert Loader(
        digits, SPEC, batch_size=8, augment=TRAINING, targets=LabelTargets(tuple("0123456789"))
    ).in_ram


@pytest.mark.parametrize(("count", "kept"), [(59_000, True), (60_000, False)])
def test_auto_cache_keeps_two_gigabytes_of_pixels(count: int, kept: bool) -> None:
    """Images of 12 x 1000 x 3 bytes: 59,652 of them are 2 GiB."""
    wide = ImageSpec(height=12, width=1000, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    items = FileItems(Path("nowhere"), ["x.png"] * count, [0] * count)
    assert fits_in_ram(items, wide) == kept


@pytest.mark.parametrize("cache", ["ram", "none"])
def test_unreadable_images_are_listed_left_out_and_refused_above_the_limit(
    tmp_path: Path, cache: str
) -> None:
    """R6."""
    for number in range(20):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / f"{number:02d}.png")
    (tmp_path / "05.png").write_bytes((tmp_path / "05.png").read_bytes()[:45])
    (tmp_path / "11.png").write_bytes(b"<html>")
    items = FileItems(tmp_path, [f"{number:02d}.png" for number in range(20)], [0, 1] * 10)
    loader = Loader(items, SPEC, batch_size=6, cache=cache, max_unreadable=0.1)  # type: ignore[arg-type]
    assert [(bad.name, bad.code) for bad in loader.unreadable] == [
        ("05.png", "truncated"),
        ("11.png", "not_an_image"),
    ]
    seen = torch.cat([batch.indices for batch in epoch(loader)]).tolist()
    assert seen == [number for number in range(20) if number not in (5, 11)]
    with pytest.raises(DataError, match="2 of 20 images are unreadable") as caught:
        Loader(items, SPEC, batch_size=6, cache=cache, max_unreadable=0.09)  # type: ignore[arg-type]
    assert "05.png (truncated)" in caught.value.message


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_vanishes_is_named_by_any_worker(tmp_path: Path, workers: int) -> None:
    for number in range(8):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{number}.png")
    items = FileItems(tmp_path, [f"{number}.png" for number in range(8)], [0, 1] * 4)
    loader = Loader(items, SPEC, batch_size=2, cache="none", workers=workers)
    (tmp_path / "5.png").unlink()
    with pytest.raises(DataError, match=r"5\.png became unreadable") as caught:
        epoch(loader)
    assert caught.value.hint
