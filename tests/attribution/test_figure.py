"""The side-by-side figure: what is where, by the pixels; text that does not fit is shortened."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tesela.attribution.draw.figure import BAD, GAP, MARGIN, SIDE, Panel, draw_comparison
from tesela.attribution.draw.heatmap import colour_table, overlay


def drawn(image: Any, panels: Any, **words: Any) -> Any:
    """The pixels of a figure."""
    return np.asarray(Image.open(io.BytesIO(draw_comparison(image, panels, **words))).convert("RGB")).astype(
        int
    )


@pytest.mark.parametrize("size", [(8, 8), (30, 60), (400, 300)])
def test_panels_hold_the_image_and_its_overlays(size: tuple[int, int]) -> None:
    """The middle of each panel is the image's, and the overlay's, middle; panels have the image's aspect."""
    image = np.full((*size, 3), 90, np.uint8)
    heats = [
        np.full(size, 0.0, np.float32),
        np.linspace(0, 1, size[0] * size[1], dtype=np.float32).reshape(size),
    ]
    pixels = drawn(image, [[Panel(heat=heat) for heat in heats]], rows=["cat"], columns=["one", "two"])
    scale = SIDE / max(size)
    height, width = round(size[0] * scale), round(size[1] * scale)
    top = next(row for row in range(len(pixels)) if (pixels[row, MARGIN : MARGIN + width] == 90).all())
    assert (pixels[top : top + height, MARGIN : MARGIN + width] == 90).all()
    for place, heat in enumerate(heats):
        x = MARGIN + (place + 1) * (width + GAP) + width // 2
        expected = np.asarray(Image.open(io.BytesIO(overlay(image, heat, side=0))))[
            size[0] // 2, size[1] // 2
        ]
        assert np.abs(pixels[top + height // 2, x] - expected).max() <= 40
    bar = MARGIN + 3 * (width + GAP) + 4
    assert pixels[top, bar].tolist() == colour_table()[255].tolist()
    assert pixels[top + height - 1, bar].tolist() == colour_table()[0].tolist()


def test_a_warning_is_red_and_long_names_stay_inside() -> None:
    """Red pixels only where there is a warning; the margin on the right stays white whatever the names."""
    image, heat = np.zeros((20, 20, 1), np.uint8), np.zeros((20, 20), np.float32)

    def red(*, warning: bool) -> int:
        panel = Panel(heat=heat, note="not faithful", warning=warning)
        return int((drawn(image, [[panel]], rows=["a"], columns=["b"]) == BAD).all(-1).sum())

    assert red(warning=True) > 20
    assert red(warning=False) == 0
    long = "a very long label " * 40
    pixels = drawn(image, [[Panel(heat=heat, note=long)]], rows=[long], columns=[long], title=long)
    assert (pixels[:, -20:] == 255).all()
    assert (pixels[:, :MARGIN] == 255).all()
