"""Grey levels against Pillow's own conversion."""

from __future__ import annotations

import tracemalloc

import numpy as np
from PIL import Image

from tesela.imaging.color import to_array, with_channels


def test_grey_is_pillows_for_every_rounding() -> None:
    """A million random colours, some of which lie on the border between two grey levels."""
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    assert np.array_equal(with_channels(pixels, 1)[..., 0], expected)


def test_every_transparency_over_white_is_rounded_to_nearest() -> None:
    """All 65,536 pairs of a value and an alpha, against exact arithmetic."""
    value, alpha = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    pixels = np.stack([value, value, value, alpha], axis=2).astype(np.uint8)
    exact = np.floor((value * alpha + 255 * (255 - alpha)) / 255 + 0.5)
    assert np.array_equal(to_array(Image.fromarray(pixels, "RGBA"), channels=3)[:, :, 1], exact)


def test_channels_take_no_memory_for_an_alpha_that_nobody_wants() -> None:
    """32 megapixels of colour as grey: its result, and what some rows at a time need."""
    pixels = np.zeros((4000, 8000, 3), np.uint8)
    tracemalloc.start()
    grey = with_channels(pixels, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert grey.shape == (4000, 8000, 1)
    assert peak < 1.9 * grey.nbytes
