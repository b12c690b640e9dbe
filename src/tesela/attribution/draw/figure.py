"""Figure of an image beside its maps: a column per method, a row per class.

A colour bar and a line of figures stand below.

Drawn with Pillow, so that a machine that explains needs no plotting library. Panels keep the image's aspect
and are all of one size.

Labels are drawn in their own script (``tesela.imaging.lettering``).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from tesela.attribution.draw.heatmap import blend, colour_table
from tesela.core.terminal import line_text
from tesela.imaging.color import as_rgb
from tesela.imaging.lettering import lettering, shortened

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAGE, INK, MUTED, BAD = (255, 255, 255), (34, 38, 43), (102, 108, 116), (194, 57, 43)
SIDE, GAP, MARGIN, BAR = 288, 18, 22, 14
TITLE, TEXT = 17, 14


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One map in the figure.

    Attributes:
        heat: (H, W), at the original's size.
        note: a line below it.
        warning: whether the note is a warning.
    """

    heat: NDArray[np.float32]
    note: str = ""
    warning: bool = False


def draw_comparison(
    image: NDArray[np.uint8],
    panels: Sequence[Sequence[Panel]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    seen: NDArray[np.bool_] | None = None,
    colours: str = "inferno",
    title: str = "",
) -> bytes:
    """A PNG of the image and its maps.

    Args:
        image: the original (H, W, C).
        panels: by row (class) and column (method).
        rows: a heading for each row.
        columns: a heading for each column of maps.
        seen: (H, W), the pixels that the model saw.
        colours: a name of ``tesela.attribution.draw.heatmap.COLOURS``.
        title: what stands above the image.
    """
    width, height = _panel_size(image)
    row_height = TITLE + 12 + height + TEXT + 14
    top = MARGIN + TITLE + 12
    wide = MARGIN + (len(columns) + 1) * (width + GAP) + BAR + 62
    tall = top + len(rows) * (row_height + GAP) - GAP + MARGIN
    canvas = Image.new("RGB", (wide, tall), PAGE)
    draw = ImageDraw.Draw(canvas)
    _write(draw, (MARGIN, MARGIN), title, TITLE, INK, width)
    for place, name in enumerate(columns):
        _write(draw, (MARGIN + (place + 1) * (width + GAP), MARGIN), name, TITLE, INK, width)
    for index, (name, line) in enumerate(zip(rows, panels, strict=True)):
        y = top + index * (row_height + GAP)
        _write(draw, (MARGIN, y), name, TEXT, MUTED, (len(columns) + 1) * (width + GAP) - GAP)
        canvas.paste(_fitted(as_rgb(image), (width, height)), (MARGIN, y + TITLE + 12))
        for place, panel in enumerate(line):
            x = MARGIN + (place + 1) * (width + GAP)
            picture = blend(image, panel.heat, seen=seen, colours=colours)
            canvas.paste(_fitted(picture, (width, height)), (x, y + TITLE + 12))
            _write(
                draw,
                (x, y + TITLE + 12 + height + 5),
                panel.note,
                TEXT,
                BAD if panel.warning else MUTED,
                width,
            )
    _bar(canvas, draw, (MARGIN + (len(columns) + 1) * (width + GAP), top + TITLE + 12), height, colours)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def _panel_size(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Width and height of a panel: the longer side is SIDE, the shorter at least a quarter of it."""
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    return max(SIDE // 4, round(width * scale)), max(SIDE // 4, round(height * scale))


def _fitted(pixels: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    enlarged = pixels.shape[1] < size[0] / 2
    return Image.fromarray(pixels).resize(
        size, Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
    )


def _bar(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, at: tuple[int, int], height: int, colours: str
) -> None:
    """The colour table from high (above) to low, and what its ends mean."""
    table = colour_table(colours)[np.linspace(255, 0, height).round().astype(np.intp)]
    canvas.paste(Image.fromarray(np.ascontiguousarray(table[:, None].repeat(BAR, 1))), at)
    draw.text((at[0] + BAR + 6, at[1] - 2), "high", fill=MUTED, font=lettering("high", TEXT)[1])
    draw.text(
        (at[0] + BAR + 6, at[1] + height - TEXT - 3), "low", fill=MUTED, font=lettering("high", TEXT)[1]
    )


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    size: int,
    colour: tuple[int, int, int],
    room: int,
) -> None:
    """One line of text, shortened to its room."""
    shown, font = shortened(line_text(text), size, room)
    draw.text(at, shown, fill=colour, font=font)
