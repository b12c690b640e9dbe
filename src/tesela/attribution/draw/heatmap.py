"""Heat maps as PNG over the original image, and their numbers as NPZ.

No torch, no matplotlib.

Colours are perceptually uniform: equal steps of the map look equally large, in grey and to colour-blind eyes
too. Each table is given by 33 of its 256 colours (public domain, matplotlib's), linear between them.

Odd: a picture stretches its map from its own smallest to its own largest value, and from 0 where the map has
a sign, so two pictures cannot be compared by colour; the NPZ file can. A map without differences is shown
without heat.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tesela.core.errors import UnknownNameError
from tesela.core.files import write_atomic
from tesela.imaging.color import as_rgb
from tesela.imaging.png import encode_png
from tesela.imaging.spec import ImageSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ANCHORS = {
    "viridis": (
        "440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d 2f6b8e 2c728e 297a8e "
        "26828e 23898e 21918c "
        "1f978b 1f9f88 21a685 27ad81 31b57b 3dbc74 4cc26c 5cc863 6ece58 81d34d 95d840 aadc32 c0df25 d5e21a "
        "eae51a fde725"
    ),
    "cividis": (
        "00224e 00285b 002e6a 053371 1a386f 273e6e 32436d 3b496c 434e6c 4b546c 535a6d 5a5f6e 61656f 686a71 "
        "6f7073 767676 7d7c78 "
        "838179 8b8778 928d78 9a9376 a29975 aaa073 b3a670 bbad6d c3b369 ccba64 d4c15f ddc858 e6d051 efd748 "
        "f8df3c fee838"
    ),
    "inferno": (
        "000004 040312 0b0724 150b37 210c4a 2f0a5b 3d0965 4a0c6b 57106e 64156e 71196e 7d1e6d 8a226a 972766 "
        "a32c61 b0315b bc3754 "
        "c63d4d d04545 da4e3c e35933 eb6429 f1711f f67e14 f98c0a fb9b06 fcaa0f fbba1f f9c932 f5d949 f2e865 "
        "f3f586 fcffa4"
    ),
}
COLOURS = tuple(sorted(_ANCHORS))

#: Differences below this share of the largest value are rounding, not heat.
FLAT = 1e-6
#: Bytes from which a file is written quickly rather than small.
LARGE = 4_000_000


def colour_table(name: str = "inferno") -> NDArray[np.uint8]:
    """(256, 3) colours from low to high.

    Raises:
        UnknownNameError: there is no such table.
    """
    if name not in _ANCHORS:
        raise UnknownNameError("colour table", name, COLOURS)
    anchors = np.array([list(bytes.fromhex(word)) for word in _ANCHORS[name].split()], np.float64)
    places = np.linspace(0, 255, len(anchors)).round()
    channels = [np.interp(np.arange(256), places, anchors[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def stretched(values: NDArray[np.floating], seen: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Values brought to 0..1 by the smallest and largest that were seen; all 0 where they do not differ.

    What speaks against is 0.
    """
    values = np.asarray(values, np.float32)
    shown = values if seen is None else values[seen]
    low, high = (float(shown.min()), float(shown.max())) if shown.size else (0.0, 0.0)
    low = max(low, 0.0)
    if not high - low > FLAT * max(abs(low), abs(high)):
        return np.zeros_like(values)
    level: NDArray[np.float32] = np.clip((values - low) / (high - low), 0.0, 1.0)
    return level


def to_original(
    view: NDArray[np.floating], original_size: tuple[int, int], spec: ImageSpec
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A map over the model's view brought to the original image, and which of its pixels the model saw."""
    from tesela.imaging.preprocess import unfit

    seen = unfit(np.ones(spec.size, np.float32), original_size, spec) > 0.5
    return unfit(view, original_size, spec), seen


def overlay(
    image: NDArray[np.uint8],
    heat: NDArray[np.floating],
    *,
    seen: NDArray[np.bool_] | None = None,
    colours: str = "inferno",
    opacity: float = 0.75,
    side: int = 256,
) -> bytes:
    """A PNG of an image (H, W, C) with the map (H, W) over it.

    Args:
        image: the original.
        heat: one value per pixel.
        seen: the pixels that the model saw; the others are darkened.
        colours: a name of COLOURS.
        opacity: how much of the image the highest value covers; the lowest covers a tenth of that.
        side: images whose longer side is below this are enlarged by a whole factor; 0 leaves the original's
            size.
    """
    blended = blend(image, heat, seen=seen, colours=colours, opacity=opacity)
    factor = max(1, side // max(heat.shape)) if side else 1
    pixels = blended.repeat(factor, 0).repeat(factor, 1)
    return encode_png(pixels, level=6 if pixels.size < LARGE else 2)


def blend(
    image: NDArray[np.uint8],
    heat: NDArray[np.floating],
    *,
    seen: NDArray[np.bool_] | None = None,
    colours: str = "inferno",
    opacity: float = 0.75,
) -> NDArray[np.uint8]:
    """The pixels of ``overlay``, (H, W, 3), before they are enlarged."""
    level = stretched(heat, seen)
    colour = colour_table(colours)[(level * 255).round().astype(np.uint8)].astype(np.float32)
    cover = (opacity * (0.1 + 0.9 * np.sqrt(level)))[..., None]
    blended = as_rgb(image) * (1.0 - cover) + colour * cover
    if seen is not None:
        blended = np.where(seen[..., None], blended, as_rgb(image) * 0.4)
    rounded: NDArray[np.uint8] = blended.round().astype(np.uint8)
    return rounded


def write_arrays(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    """Put named arrays under ``path`` as NPZ, atomically.

    Raises:
        StorageError: the file system refused.
    """
    buffer = io.BytesIO()
    small = sum(array.nbytes for array in arrays.values()) < LARGE
    (np.savez_compressed if small else np.savez)(buffer, allow_pickle=False, **arrays)
    write_atomic(path, buffer.getvalue())
