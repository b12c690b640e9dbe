"""Colours against matplotlib's tables, geometry against marks placed by hand, files read back by other
programs' readers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tesela.attribution.draw.heatmap import (
    COLOURS,
    colour_table,
    overlay,
    stretched,
    to_original,
    write_arrays,
)
from tesela.core.errors import UnknownNameError
from tesela.imaging.spec import ImageSpec

GREY: dict[str, Any] = {"mean": (0.5,), "std": (0.5,), "channels": 1}


def opened(data: bytes) -> Any:
    """The pixels of a PNG file."""
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    return np.asarray(image)


def luminance(colours: Any) -> Any:
    """CIE L* of sRGB bytes."""
    linear = np.where(
        colours / 255 <= 0.04045, colours / 255 / 12.92, ((colours / 255 + 0.055) / 1.055) ** 2.4
    )
    y = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


@pytest.mark.parametrize("name", COLOURS)
def test_colours_equal_matplotlibs(name: str) -> None:
    """Reference: matplotlib's table of the same name, within 6 of 256 levels.

    Lightness rises with the value.
    """
    import matplotlib

    table = colour_table(name)
    expected = np.array(matplotlib.colormaps[name](np.arange(256)))[:, :3] * 255
    assert np.abs(table - expected).max() <= 7
    assert (np.diff(luminance(table.astype(float))[::8]) > 0).all()


def test_an_unknown_colour_table_offers_the_nearest() -> None:
    """The error of every unknown name."""
    with pytest.raises(UnknownNameError) as refused:
        colour_table("virdis")
    assert "viridis" in refused.value.hint


def test_stretching_uses_what_was_seen_and_shows_no_heat_in_a_flat_map() -> None:
    """Values by hand."""
    values = np.array([[1.0, 2.0], [3.0, 0.0]], np.float32)
    assert stretched(values).tolist() == pytest.approx(np.array([[1 / 3, 2 / 3], [1, 0]]))
    seen = np.array([[True, True], [True, False]])
    assert stretched(values, seen).tolist() == [[0.0, 0.5], [1.0, 0.0]]
    rounding = np.full((4, 4), 0.0625, np.float32)
    rounding[0, 0] += 4e-9
    assert not stretched(rounding).any()
    # what speaks against is no heat
    assert stretched(np.array([[-4.0, 0.0], [1.0, 2.0]])).tolist() == [
        [0.0, 0.0],
        [0.5, 1.0],
    ]
    assert not stretched(np.array([[-4.0, -1.0]])).any()
    assert not stretched(np.zeros((2, 2))).any()


@pytest.mark.parametrize(
    ("resize", "size"), [("squash", (40, 80)), ("crop", (40, 80)), ("pad", (80, 40)), ("crop", (90, 50))]
)
def test_a_mark_comes_back_to_where_it_was(resize: Any, size: tuple[int, int]) -> None:
    """A bright square of the original, seen through fit and brought back, has its centre where it was,
    within a pixel of the view."""
    from tesela.imaging.preprocess import fit_image

    spec = ImageSpec(height=20, width=20, resize=resize, interpolation="bilinear", **GREY)
    image = np.zeros((*size, 1), np.uint8)
    top, left = size[0] // 2 - 8, size[1] // 2 + 2
    image[top : top + 8, left : left + 8] = 255
    heat, seen = to_original(fit_image(image, spec)[..., 0].astype(np.float32), size, spec)
    assert heat.shape == seen.shape == size
    weights = heat / heat.sum()
    centre = (weights.sum(1) @ np.arange(size[0]), weights.sum(0) @ np.arange(size[1]))
    assert centre == pytest.approx((top + 3.5, left + 3.5), abs=0.75)
    assert seen.all() == (resize != "crop")
    if resize == "crop":
        assert seen.mean() == pytest.approx(min(size) / max(size), abs=0.02)


def test_overlay_by_hand() -> None:
    """Blended values at the lowest and highest map value, darkened where unseen, enlarged by whole pixels."""
    image = np.full((4, 8, 1), 200, np.uint8)
    heat = np.zeros((4, 8), np.float32)
    heat[1, 2] = 5.0
    seen = np.ones((4, 8), bool)
    seen[:, 7] = False
    pixels = opened(overlay(image, heat, seen=seen, colours="viridis", opacity=0.6, side=24))
    assert pixels.shape == (12, 24, 3)
    table = colour_table("viridis").astype(float)
    assert pixels[0, 0].tolist() == pytest.approx(200 * 0.94 + table[0] * 0.06, abs=1)
    for corner in ((3, 6), (5, 8)):
        assert pixels[corner].tolist() == pytest.approx(200 * 0.4 + table[255] * 0.6, abs=1)
    assert pixels[0, 23].tolist() == [80, 80, 80]
    large = opened(overlay(np.zeros((300, 200, 3), np.uint8), np.zeros((300, 200))))
    assert large.shape == (300, 200, 3)


def test_arrays_are_read_back_without_pickle(tmp_path: Path) -> None:
    """NumPy's own reader with pickle forbidden."""
    write_arrays(
        tmp_path / "deep" / "x.npz",
        {"map": np.eye(3, dtype=np.float32), "labels": np.array(["katze", "größe"])},
    )
    with np.load(tmp_path / "deep" / "x.npz", allow_pickle=False) as read:
        assert read["map"].tolist() == np.eye(3).tolist()
        assert read["labels"].tolist() == ["katze", "größe"]
