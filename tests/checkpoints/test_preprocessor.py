"""preprocessor_config.json.

Pixels against its documented steps done by hand, and what is told where they have no equal here.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tesela.checkpoints.huggingface.preprocessor import read_spec, write_spec
from tesela.checkpoints.write import crop_remarks
from tesela.core.errors import WeightsError
from tesela.imaging.preprocess import preprocess
from tesela.imaging.spec import ImageSpec

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
COMMON = {"image_mean": MEAN, "image_std": STD}


def read(config: dict[str, Any] | None, **options: Any) -> tuple[ImageSpec, list[str]]:
    return read_spec(config, **{"model_type": "vit", "image_size": (24, 24), "channels": 3, **options})


def by_hand(
    pixels: np.ndarray, *, size: tuple[int, int], crop: int | None, resample: int, factor: float
) -> np.ndarray:
    """Resize, cut, rescale, normalise, step by step as transformers documents them; with Pillow."""
    image = np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling(resample)))
    if crop is not None:
        top, left = (size[0] - crop) // 2, (size[1] - crop) // 2
        image = image[top : top + crop, left : left + crop]
    return ((image * factor - MEAN) / STD).transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("config", "size", "crop", "resample"),
    [
        ({"size": {"height": 20, "width": 28}, "resample": 2}, (20, 28), None, 2),
        ({"size": 16, "resample": 3, "feature_extractor_type": "ViTFeatureExtractor"}, (16, 16), None, 3),
        ({"size": 16, "resample": 0}, (16, 16), None, 0),
        ({"size": 24, "rescale_factor": 1 / 127.5, "resample": 2}, (24, 24), None, 2),
        (
            {
                "size": {"shortest_edge": 40},
                "do_center_crop": True,
                "crop_size": {"height": 32, "width": 32},
                "resample": 3,
            },
            (40, 60),
            32,
            3,
        ),
        (
            {
                "size": 40,
                "image_processor_type": "BitImageProcessor",
                "do_center_crop": True,
                "crop_size": 32,
                "resample": 3,
            },
            (40, 60),
            32,
            3,
        ),
    ],
)
def test_pixels(config: dict[str, Any], size: tuple[int, int], crop: int | None, resample: int) -> None:
    """A picture of 40 x 60, so that its short side stays and a crop of whole pixels is exact."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    spec, remarks = read(COMMON | config)
    wanted = by_hand(
        pixels, size=size, crop=crop, resample=resample, factor=config.get("rescale_factor", 1 / 255)
    )
    assert remarks == []
    np.testing.assert_allclose(preprocess([pixels], spec)[0], wanted, atol=2e-5)


def test_what_is_not_quite_the_same_is_told() -> None:
    assert "are cut to 24x24" in read({"size": {"shortest_edge": 24}, **COMMON})[1][0]
    assert "usual for such models" in read(None)[1][0]


def test_without_a_file_the_usual_is_taken() -> None:
    dino = read(None, model_type="dinov2", image_size=(224, 224))[0]
    assert (dino.crop_ratio, dino.interpolation, dino.mean) == (0.875, "bicubic", (0.485, 0.456, 0.406))
    assert read(None, model_type="dinov2_with_registers", image_size=(98, 98))[0].size == (98, 98)
    assert read(None)[0].mean == (0.5, 0.5, 0.5)


def test_switches() -> None:
    off = read({"do_resize": False, "do_normalize": False, "do_rescale": False})[0]
    assert off.resize == "none" and off.size == (24, 24)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    np.testing.assert_allclose(preprocess([pixels], off)[0], pixels.transpose(2, 0, 1), rtol=1e-6)
    grey = read({"size": 8, "image_mean": [0.1, 0.1, 0.1], "image_std": 0.5}, channels=1)[0]
    assert (grey.mean, grey.std) == ((0.1,), (0.5,))


@pytest.mark.parametrize(
    "config",
    [
        {"size": {"side": 3}},
        {"size": {"shortest_edge": 24, "longest_edge": 32}},
        {"resample": 9},
        {"size": "big"},
        {"image_mean": [0.1, 0.2]},
        {"image_std": [0, 0, 0]},
    ],
)
def test_nonsense_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json does not make sense"):
        read(config)


def test_values_that_a_kind_of_image_processor_has_where_its_file_says_nothing() -> None:
    """As transformers' own classes have them."""
    bit = read({"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}})[0]
    assert (bit.size, bit.resize, bit.crop_ratio, bit.interpolation) == ((224, 224), "crop", 0.875, "bicubic")
    assert bit.mean == (0.48145466, 0.4578275, 0.40821073)
    vit = read({"image_processor_type": "ViTImageProcessorFast", "size": {"height": 16, "width": 16}})[0]
    assert (vit.size, vit.resize, vit.interpolation, vit.mean) == ((16, 16), "squash", "bilinear", (0.5,) * 3)
    deit = read({"feature_extractor_type": "DeiTFeatureExtractor", "size": 256})[0]
    assert (deit.size, deit.crop_ratio, deit.interpolation) == ((224, 224), 0.875, "bicubic")


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"image_processor_type": "MobileViTImageProcessor"}, "MobileViTImageProcessor"),
        ({"image_processor_type": "LevitImageProcessor"}, "LevitImageProcessor"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order"),
        ({"do_pad": True}, "do_pad"),
        ({"rescale_offset": True}, "rescale_offset"),
        ({"size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": 24}, "would be padded"),
    ],
)
def test_steps_without_an_equal_are_refused_by_name(config: dict[str, Any], named: str) -> None:
    with pytest.raises(WeightsError, match=named) as caught:
        read(config)
    assert caught.value.hint


@pytest.mark.parametrize("resize", ["squash", "crop", "none"])
def test_there_and_back(resize: Any) -> None:
    """A crop comes back with transformers' whole pixels, which its export says."""
    spec = ImageSpec(
        height=24, width=24, channels=3, mean=(0.1, 0.2, 0.3), std=(1.0, 0.5, 0.2), resize=resize
    )
    if resize == "crop":
        spec = dataclasses.replace(spec, crop_ratio=0.75)
    back = dataclasses.replace(spec, arithmetic="transformers", resized=(32,)) if resize == "crop" else spec
    assert read(write_spec(spec))[0] == back
    assert [line.split()[0] for line in crop_remarks(spec, "transformers")] == (
        ["transformers"] if resize == "crop" else []
    )


def test_what_has_no_place_there() -> None:
    for resize, size in (("pad", (8, 8)), ("crop", (8, 16))):
        spec = ImageSpec(height=size[0], width=size[1], channels=1, mean=(0.0,), std=(1.0,), resize=resize)  # type: ignore[arg-type]
        with pytest.raises(WeightsError, match=f"resize={resize}"):
            write_spec(spec)
