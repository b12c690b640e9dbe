"""What is left open is read off the data: size, channels, normalisation, model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.parity.huggingface_models import saved
from tests.runtime.bundles import LABELS, digits_run

from tesela.core.errors import ConfigError
from tesela.data.open import open_source
from tesela.data.source import ArrayItems, Source
from tesela.hardware.device import choose_device, exact_arithmetic
from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import load_bundle
from tesela.tasks.catalog import find_task
from tesela.training.config import TrainConfig, layered
from tesela.training.start import (
    ImageStats,
    Start,
    choose_model,
    inspect_images,
    normalisation,
    start,
)


def make_source(images: np.ndarray[Any, Any]) -> Source:
    """A source of two classes whose only split is train."""
    items = ArrayItems(images, np.arange(len(images)) % 2, prefix="made")
    return Source(
        name="made", kind="idx", labels=("a", "b"), splits={"train": items}, channels=images.shape[3]
    )


def begin(config: TrainConfig, source: Source) -> Start:
    return start(config, source, find_task("classify"), source.labels)


def test_digits_get_the_nano_model_at_their_own_size() -> None:
    """8 x 8 grey images; reference for mean and deviation: NumPy over the decoded training images."""
    source = open_source("digits")
    made = begin(layered({"data.source": "digits"}), source)
    assert (made.name, made.spec.size, made.spec.channels) == ("vit_nano", (8, 8), 1)
    items = source.splits["train"]
    chosen = np.unique(np.linspace(0, len(items) - 1, 1024).astype(int))
    pixels = np.stack([items.read(int(index)) for index in chosen]) / 255
    assert made.spec.mean[0] == pytest.approx(pixels.mean(), abs=1e-4)
    assert made.spec.std[0] == pytest.approx(pixels.std(), abs=1e-4)


def test_normalisation_is_per_channel() -> None:
    """Reference: NumPy over all pixels."""
    images = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
    images[..., 1] //= 2
    plain = ImageSpec(height=6, width=5, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    mean, std = normalisation("data", make_source(images).splits["train"], plain)
    assert mean == pytest.approx((images / 255).mean((0, 1, 2)), abs=1e-4)
    assert std == pytest.approx((images / 255).std((0, 1, 2)), abs=1e-4)


@pytest.mark.parametrize(
    ("model", "size", "asked", "expected"),
    [
        ("vit_s16", (32, 32), None, ("vit_s16", (224, 224))),
        ("vit_lite7_p4", (28, 28), None, ("vit_lite7_p4", (28, 28))),
        ("vit_lite7_p8", (28, 28), None, ("vit_lite7_p8", (32, 32))),
        ("vit_s16", (500, 375), None, ("vit_s16", (224, 224))),
        ("vit_s16", None, 64, ("vit_s16", (64, 64))),
        ("auto", (500, 375), None, ("vit_s16", (224, 224))),
        ("auto", None, None, ("vit_s16", (224, 224))),
        ("auto", (32, 32), None, ("cct_7_3x2_32", (32, 32))),
        ("auto", (64, 64), None, ("vit_mini_p8", (64, 64))),
    ],
)
def test_model_and_size(
    model: str, size: tuple[int, int] | None, asked: int | None, expected: tuple[str, tuple[int, int]]
) -> None:
    """Reference: the rule in the docstring of choose_model, case by case."""
    assert (
        choose_model(layered({"model": model, "image_size": asked}), ImageStats(size=size, channels=3))
        == expected
    )


def test_grey_images_get_a_model_meant_for_them() -> None:
    """28 x 28 grey, as MNIST's."""
    assert choose_model(layered({}), ImageStats(size=(28, 28), channels=1)) == ("vit_mnist", (28, 28))


def test_images_of_several_sizes_have_no_common_one(tmp_path: Path) -> None:
    """Reference: two PNG files of two sizes."""
    from PIL import Image

    for name, side in (("a", 10), ("b", 12)):
        (tmp_path / name).mkdir()
        for index in range(12):
            Image.new("RGB", (side, side), (index * 20, 0, 0)).save(tmp_path / name / f"{index}.png")
    source = open_source(tmp_path)
    assert inspect_images(source.splits["train"], source.channels).size is None


def test_an_image_size_that_patches_do_not_divide_is_refused() -> None:
    """The error is the model's own."""
    with pytest.raises(ConfigError, match="9"):
        begin(layered({"data.source": "digits", "model": "vit_nano", "image_size": 9}), open_source("digits"))


def test_a_device_that_is_not_there() -> None:
    """Asking for a GPU on a machine without one."""
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no cuda device"):
            choose_device("cuda")
    assert choose_device("cpu").type == "cpu"


def test_threads_and_determinism_are_put_back() -> None:
    """The library leaves the process as it found it."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with exact_arithmetic(torch.device("cpu"), 2) as threads:
        assert threads == torch.get_num_threads() == 2
        assert torch.are_deterministic_algorithms_enabled()
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_imagenets_statistics_by_channels() -> None:
    """Reference: the usual three values, and their mean for grey images."""
    items = make_source(np.zeros((2, 4, 4, 3), np.uint8)).splits["train"]
    colour = ImageSpec(height=4, width=4, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    grey = ImageSpec(height=4, width=4, channels=1, mean=(0.0,), std=(1.0,))
    mean, std = normalisation("imagenet", items, colour)
    assert (mean, std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    one_mean, one_std = normalisation("imagenet", items, grey)
    assert one_mean == pytest.approx((np.mean(mean),), abs=1e-3)
    assert one_std == pytest.approx((np.mean(std),), abs=1e-3)


def test_a_batch_of_one_image_is_allowed() -> None:
    assert layered({"batch_size": 1}).batch_size == 1
    with pytest.raises(ConfigError, match="batch_size"):
        layered({"batch_size": 0})


def test_a_trained_head_follows_the_names_of_its_classes() -> None:
    """The same classes in another order: the logits of each class stay, and the plan says so."""
    labels = tuple(reversed(LABELS))
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    items = ArrayItems(images, np.arange(20) % 10, prefix="made")
    source = Source(name="made", kind="idx", labels=labels, splits={"train": items}, channels=1)
    made = begin(layered({"from": str(digits_run())}), source)
    batch = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        before, after = load_bundle(digits_run() / "bundle")[0](batch), made.model.eval()(batch)
    assert torch.equal(after, before.flip(1)) and before.std() > 0.1
    assert made.head == "kept, in the order of the data's classes"
    other = dataclasses.replace(source, labels=(*labels[:9], "ten"))
    made = begin(layered({"from": str(digits_run())}), other)
    assert made.head == f"kept for 9 of the model's 10 classes; new: ten; left out: {labels[9]}"


def test_a_multi_label_model_gives_its_body(tmp_path: Path) -> None:
    """Its head would say nonsense; training starts with a new one."""
    saved("vit", tmp_path, problem_type="multi_label_classification", num_labels=2)
    images = np.random.default_rng(0).integers(0, 256, (20, 24, 24, 3), dtype=np.uint8)
    made = begin(layered({"from": str(tmp_path)}), make_source(images))
    assert made.head.startswith("new") and not made.model.head.linear.weight.any()  # type: ignore[union-attr, operator]
