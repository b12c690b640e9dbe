"""Choosing classes and a number of images per class, against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tesela.core.errors import ConfigError, DataError, UnknownNameError
from tesela.data.config import AugmentConfig, DataConfig
from tesela.data.loader import Loader
from tesela.data.open import open_source
from tesela.data.source import Source
from tesela.data.targets import LabelTargets, label_counts
from tesela.imaging.spec import ImageSpec


def names(source: Source, split: str) -> set[str]:
    """Which images a split holds."""
    items = source.splits[split]
    return {items.name(index) for index in range(len(items))}


def test_classes_are_renumbered_and_the_splits_stay_what_they_were() -> None:
    """Reference: the whole set.

    An image keeps its split, its pixels and its label, in the order in which classes are named.
    """
    whole = open_source("digits", config=DataConfig(source="digits"))
    some = open_source("digits", config=DataConfig(source="digits", classes=("7", "2")))
    assert some.labels == ("7", "2")
    for split, items in whole.splits.items():
        kept = {
            items.name(row): whole.labels[items.targets[row]]
            for row in range(len(items))
            if whole.labels[items.targets[row]] in "72"
        }
        chosen = some.splits[split]
        assert {chosen.name(row): some.labels[chosen.targets[row]] for row in range(len(chosen))} == kept
    first = some.splits["train"]
    again = next(
        row for row in range(len(whole.splits["train"])) if whole.splits["train"].name(row) == first.name(3)
    )
    assert np.array_equal(first.read(3), whole.splits["train"].read(again))


def test_per_class_takes_as_many_of_each_and_nested_ones() -> None:
    """Reference: counting; another split_seed draws others; validation and test images are not touched."""
    few, more, other = (
        open_source("digits", config=DataConfig(source="digits", per_class=count, split_seed=seed))
        for count, seed in ((5, 0), (20, 0), (5, 1))
    )
    assert label_counts(few)["train"] == [5] * 10
    assert names(few, "train") < names(more, "train")
    assert names(few, "train") != names(other, "train")
    whole = open_source("digits", config=DataConfig(source="digits"))
    assert all(names(few, split) == names(whole, split) for split in ("val", "test"))
    all_of_them = open_source("digits", config=DataConfig(source="digits", per_class=10_000))
    assert names(all_of_them, "train") == names(whole, "train")


def test_a_class_is_found_by_number_where_no_label_reads_so(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Labels come before numbers; unknown and double ones are named."""
    from PIL import Image

    for label in ("cat", "dog", "fox"):
        (tmp_path / label).mkdir()
        for number in range(10):
            Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / label / f"{number}.png")
    assert open_source(tmp_path, config=DataConfig(classes=("2", "cat"))).labels == ("fox", "cat")
    with pytest.raises(UnknownNameError, match="dgo") as caught:
        open_source(tmp_path, config=DataConfig(classes=("cat", "dgo")))
    assert "dog" in caught.value.hint
    with pytest.raises(ConfigError, match="twice"):
        open_source(tmp_path, config=DataConfig(classes=("cat", "0")))
    with pytest.raises(DataError, match="one class only"):
        open_source(tmp_path, config=DataConfig(classes=("cat",)))


def test_senseless_values_are_refused() -> None:
    """The field is named."""
    with pytest.raises(ConfigError, match="per class"):
        DataConfig(per_class=0)
    with pytest.raises(ConfigError, match="exclude"):
        DataConfig(per_class=3, subset=10)


def test_only_flips_means_that_nothing_else_is_on() -> None:
    """Values that wait for something else do not count."""
    assert AugmentConfig().only_flips
    assert AugmentConfig(hflip=0.5, vflip=0.1, magnitude=15, crop_scale=(0.5, 1.0)).only_flips
    for name, value in (
        ("crop_padding", 1),
        ("mixup", 0.1),
        ("randaugment", 1),
        ("erasing", 0.1),
        ("trivialaugment", True),
        ("rotation", 1.0),
    ):
        assert not AugmentConfig(**{name: value}).only_flips  # type: ignore[arg-type]


def test_a_plain_loader_gives_every_image_once_and_unchanged() -> None:
    """Reference: the items themselves, normalised by hand."""
    items = open_source("digits", config=DataConfig(source="digits", per_class=7)).splits["train"]
    spec = ImageSpec(height=8, width=8, channels=1, mean=(0.5,), std=(0.25,))
    loader = Loader(
        items,
        spec,
        batch_size=32,
        augment=AugmentConfig(hflip=0.5, mixup=0.5),
        shuffle=True,
        least=32,
        targets=LabelTargets(tuple("0123456789")),
    )
    batches = list(loader.plain().epoch())
    assert [len(batch) for batch in batches] == [32, 32, 6]
    assert np.concatenate([batch.indices.numpy() for batch in batches]).tolist() == list(range(70))
    for row, image, target in zip(range(32), batches[0].images, batches[0].targets, strict=True):
        assert np.allclose(image.numpy()[0], (items.read(row)[..., 0] / 255 - 0.5) / 0.25, atol=1e-6)
        assert target == items.targets[row]
    assert len(loader) == 2
    assert next(iter(loader.epoch())).targets.ndim == 2
