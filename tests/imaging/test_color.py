"""Grey levels against Pillow's own conversion."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tesela.imaging.color import with_channels


def test_grey_is_pillows_for_every_rounding() -> None:
    """A million random colours, some of which lie on the border between two grey levels."""
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    assert np.array_equal(with_channels(pixels, 1)[..., 0], expected)
