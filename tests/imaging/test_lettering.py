"""Labels in any script are told apart in pictures: drawn by a font that covers them, or written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tesela.attribution.draw.figure import Panel, draw_comparison
from tesela.data.show import draw
from tesela.imaging import lettering as module
from tesela.imaging.lettering import lettering, shortened

LABELS = ["日本", "本日", "قطة", "طقة", "बिल्ली", "कुत्ता", "แมว", "고양이", "Ёж", "жЁ", "😀", "😂"]


def drawn(label: str) -> bytes:
    text, font = lettering(label, 16)
    picture = Image.new("L", (300, 40))
    ImageDraw.Draw(picture).text((5, 5), text, fill=255, font=font)
    return picture.tobytes()


@pytest.mark.parametrize("fonts", ["this machine's", "none beside the usual one"])
def test_no_two_labels_look_alike(fonts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes for missing letters would make labels of one length equal."""
    if fonts != "this machine's":
        monkeypatch.setattr(module, "_fonts", lambda: ())
    module._font_for.cache_clear()
    try:
        for first, second in itertools.combinations(LABELS, 2):
            assert drawn(first) != drawn(second), (first, second)
    finally:
        module._font_for.cache_clear()


def test_what_no_font_has_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_fonts", lambda: ())
    module._font_for.cache_clear()
    try:
        assert lettering("cat 日x", 12)[0] == "cat \\u65e5x"
        assert lettering("\u0915\u093f", 12)[0] == "\\u0915\\u093f"
        assert lettering("e\u0301", 12)[0] == "é"
    finally:
        module._font_for.cache_clear()


def test_a_text_is_cut_to_its_room() -> None:
    text, font = shortened("a long label of many words", 12, 60)
    assert text.endswith("…") and font.getlength(text) <= 60
    assert shortened("cat", 12, 60)[0] == "cat"


def test_figures_and_grids_show_labels_in_their_script() -> None:
    """A figure and a grid of 日本 differ from those of 本日."""
    image = np.full((32, 32, 3), 128, np.uint8)
    panels = [[Panel(heat=np.zeros((32, 32), np.float32))]]
    figures = [
        draw_comparison(image, panels, rows=[label], columns=["m"], title="t") for label in ("日本", "本日")
    ]
    assert figures[0] != figures[1]
    grids = [draw(np.zeros((1, 64, 64, 3), np.uint8), [label], columns=1) for label in ("日本", "本日")]
    assert grids[0].tobytes() != grids[1].tobytes()
