"""Preprocessing against Pillow and torch, and the way back of maps against the way there."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tesela.core.config import build, to_mapping
from tesela.core.errors import ConfigError, DataError
from tesela.imaging.decode import decode
from tesela.imaging.limits import DEFAULT_LIMITS
from tesela.imaging.preprocess import (
    fit_image,
    fit_rows,
    fitted_view,
    normalize,
    placement,
    preprocess,
    unfit,
)
from tesela.imaging.rows import ArrayRows
from tesela.imaging.spec import ImageSpec

SPEC = ImageSpec(height=20, width=30, channels=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 255 // height, x * 255 // width, (x + y) % 256], axis=-1).astype(np.uint8)


def changed(**fields: object) -> ImageSpec:
    return dataclasses.replace(SPEC, **fields)  # type: ignore[arg-type]


def test_spec_survives_a_mapping_and_refuses_nonsense() -> None:
    assert build(ImageSpec, to_mapping(SPEC)) == SPEC
    for wrong in (
        {"channels": 2},
        {"mean": (0.5,)},
        {"std": (0.0, 1.0, 1.0)},
        {"height": 0},
        {"crop_ratio": 1.5},
    ):
        with pytest.raises(ConfigError):
            changed(**wrong)


def test_squash_equals_pillows_resize() -> None:
    image = picture(77, 45)
    expected = np.asarray(Image.fromarray(image).resize((30, 20), Image.Resampling.BICUBIC))
    assert np.array_equal(fit_image(image, SPEC), expected)


def test_resize_is_within_a_grey_level_of_torchs_antialiased_one() -> None:
    """Tolerance 1: both round, at different places."""
    image = picture(120, 97)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    for name in ("bilinear", "bicubic"):
        expected = (
            F.interpolate(planes, (20, 30), mode=name, antialias=True)[0]
            .permute(1, 2, 0)
            .clamp(0, 255)
            .numpy()
        )
        assert np.abs(fit_image(image, changed(interpolation=name)).astype(float) - expected).max() <= 1.0


def test_crop_keeps_the_middle_at_the_right_scale() -> None:
    place = placement((100, 200), changed(height=50, width=50, resize="crop", crop_ratio=0.5))
    assert place.box == (25.0, 75.0, 50.0, 50.0)
    image = picture(100, 200)
    view = fit_image(image, changed(height=50, width=50, resize="crop", crop_ratio=0.5))
    assert np.array_equal(view, image[25:75, 75:125])


def test_pad_keeps_the_aspect_between_black_bars() -> None:
    view = fit_image(np.full((40, 20, 3), 255, np.uint8), changed(resize="pad"))
    assert (view[:, 10:20] == 255).all()
    assert (view[:, :10] == 0).all()
    assert (view[:, 20:] == 0).all()


def test_none_refuses_another_size() -> None:
    assert np.array_equal(fit_image(picture(20, 30), changed(resize="none")), picture(20, 30))
    with pytest.raises(DataError):
        fit_image(picture(21, 30), changed(resize="none"))


def test_normalize_equals_the_formula_in_float64() -> None:
    batch = np.stack([picture(20, 30), picture(20, 30)[::-1]])
    expected = ((batch / 255 - np.array(SPEC.mean)) / np.array(SPEC.std)).transpose(0, 3, 1, 2)
    result = normalize(batch, SPEC)
    assert result.dtype == np.float32
    assert result.flags["C_CONTIGUOUS"]
    assert np.abs(result - expected).max() < 2e-6


def test_preprocess_makes_grey_and_colour_what_the_model_takes() -> None:
    grey = np.full((20, 30, 1), 51, np.uint8)
    assert np.allclose(
        preprocess([grey], SPEC)[0, :, 0, 0],
        [(0.2 - 0.5) / 0.2, (0.2 - 0.4) / 0.3, (0.2 - 0.3) / 0.4],
        atol=1e-6,
    )
    one = ImageSpec(height=20, width=30, channels=1, mean=(0.0,), std=(1.0,))
    red = np.zeros((20, 30, 3), np.uint8)
    red[..., 0] = 255
    assert np.allclose(preprocess([red], one), 76 / 255)
    assert preprocess([], SPEC).shape == (0, 3, 20, 30)


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(64, 48), (48, 96), (15, 21)])
def test_unfit_is_the_way_back(resize: str, size: tuple[int, int]) -> None:
    """The view of a coordinate map, brought back, is that coordinate again where the model looked."""
    spec = changed(resize=resize, crop_ratio=0.8 if resize == "crop" else 1.0, height=24, width=24)
    place = placement(size, spec)
    top, left, height, width = place.view
    y = np.zeros((24, 24), np.float32)
    centres = (np.arange(height) + 0.5) / height * place.box[2] + place.box[0]
    y[top : top + height, left : left + width] = centres[:, None]
    back = unfit(y, size, spec)
    rows = np.arange(size[0]) + 0.5
    inside = (rows > place.box[0] + place.box[2] / height) & (
        rows < place.box[0] + place.box[2] * (1 - 1 / height)
    )
    column = int(place.box[1] + place.box[3] / 2)
    assert back.shape == size
    assert np.abs(back[inside, column] - rows[inside]).max() < 1e-3
    if resize == "crop":
        unseen = (rows < place.box[0]) | (rows > place.box[0] + place.box[2])
        assert (back[unseen] == 0).all()


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("channels", [1, 3])
def test_rows_at_a_time_give_the_whole_images_view(
    interpolation: Any, resize: Any, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of every layout and orientation, fitted some rows at a time: the bits of ``fit_image``."""
    monkeypatch.setattr("tesela.imaging.preprocess._MOST_WHOLE", 0)
    monkeypatch.setattr("tesela.imaging.preprocess._AT_ONCE", 37 * 5)
    spec = ImageSpec(
        height=13,
        width=17,
        channels=channels,
        mean=(0.5,) * channels,
        std=(0.5,) * channels,
        resize=resize,
        crop_ratio=0.8,
        interpolation=interpolation,
    )
    values = np.random.default_rng(0).integers(0, 256, (53, 37, 4), np.uint8)
    clear = Image.fromarray(values[..., 0] // 64).convert("P")
    clear.putpalette(range(12))
    files = [
        *(stored(Image.fromarray(values[..., :3]), "PNG", orientation) for orientation in range(1, 9)),
        *(stored(Image.fromarray(values[..., :3]), "JPEG", orientation) for orientation in (1, 6)),
        stored(Image.fromarray(values), "PNG"),
        stored(Image.fromarray(values[..., 0]), "PNG"),
        stored(Image.fromarray(values[..., 0].astype(np.uint16) * 257), "PNG"),
        stored(Image.fromarray(values[..., 0] > 127), "PNG"),
        stored(clear, "PNG", transparency=1),
        stored(Image.fromarray(values, "CMYK"), "JPEG"),
        stored(Image.fromarray(values), "WEBP"),
    ]
    for data in files:
        whole = decode(data, channels=channels)
        view, size = fitted_view(data, spec, limits=DEFAULT_LIMITS)
        assert np.array_equal(view, fit_image(whole, spec))
        assert size == whole.shape[:2]


def stored(image: Image.Image, kind: str, orientation: int = 1, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    image.save(stream, kind, exif=exif, **options)
    return stream.getvalue()


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_parts_of_a_map_are_those_of_the_whole(resize: Any) -> None:
    spec = ImageSpec(height=6, width=8, channels=1, mean=(0.5,), std=(0.5,), resize=resize, crop_ratio=0.9)
    view = np.random.default_rng(0).random((6, 8))
    whole = unfit(view, (50, 31), spec)
    for top in range(0, 50, 7):
        for left in range(0, 31, 9):
            rows, columns = (top, min(top + 7, 50)), (left, min(left + 9, 31))
            part = unfit(view, (50, 31), spec, rows=rows, columns=columns)
            assert np.abs(part - whole[slice(*rows), slice(*columns)]).max() <= 1e-6


@pytest.mark.parametrize("arithmetic", ["timm", "transformers"])
@pytest.mark.parametrize("channels", [1, 3])
def test_rows_at_a_time_keep_other_libraries_arithmetic(arithmetic: str, channels: int) -> None:
    """Reference: the whole image resized at once; more than 4 megapixels, so rows are taken in parts."""
    image = np.random.default_rng(0).integers(0, 256, (2100, 2300, channels)).astype(np.uint8)
    view: dict[str, Any] = {"height": 56, "width": 48, "channels": channels, "interpolation": "bicubic"}
    view |= {"mean": (0.5,) * channels, "std": (0.5,) * channels, "arithmetic": arithmetic}
    for options in ({"resize": "crop", "resized": (64,)}, {"resize": "squash", "resized": (60, 50)}):
        spec = ImageSpec(**view, **options)
        assert np.array_equal(fit_rows(ArrayRows(image, channels), spec), fit_image(image, spec))
