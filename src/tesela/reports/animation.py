"""Animation of a run: the pictures of its epochs, one after the other, each with its number."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tesela.core.files import file_atomic
from tesela.runs.folder import Run

if TYPE_CHECKING:
    from PIL import Image

BAND, SIZE = 26, 14
#: Milliseconds of a frame, and of the last one.
SHOWN, LAST = 250, 2500
#: Most frames; of more epochs, those that are evenly spread.
MOST_FRAMES = 120


def write_animation(run: Run) -> None:
    """Put the frames of a run into one GIF, one at a time, and remove them.

    Raises:
        StorageError: the file system refused.
    """
    files = sorted(run.frames.glob("*.png")) if run.frames.is_dir() else []
    if not files:
        return
    count = min(MOST_FRAMES, len(files))
    chosen = [files[round(place * (len(files) - 1) / max(count - 1, 1))] for place in range(count)]
    first, *others = chosen
    with file_atomic(run.animation) as temporary:
        _frame(first).save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=_frames(others),
            duration=[SHOWN] * (count - 1) + [LAST],
            loop=0,
        )
    shutil.rmtree(run.frames, ignore_errors=True)


def _frames(files: list[Path]) -> Iterator[Image.Image]:
    for file in files:
        yield _frame(file)


def _frame(file: Path) -> Image.Image:
    """A frame with its epoch, from 1, on a band above it."""
    from PIL import Image, ImageDraw, ImageFont

    from tesela.imaging.decode import decode

    picture = Image.fromarray(decode(file))
    canvas = Image.new("RGB", (picture.width, picture.height + BAND), "white")
    canvas.paste(picture, (0, BAND))
    font = ImageFont.load_default(SIZE)
    place = 4, (BAND - SIZE) // 2
    ImageDraw.Draw(canvas).text(place, f"epoch {int(file.stem) + 1}", fill="black", font=font)
    return canvas.convert("P", palette=Image.Palette.ADAPTIVE, colors=128)
