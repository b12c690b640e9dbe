"""Preprocessing of images to a model's batch by an ImageSpec, and back for maps.

NumPy and Pillow alone.

Fitting is one Pillow resize of a box of the original (antialiased), so the geometry is exact in fractions of
a pixel and has an inverse: ``placement`` says which part of the original lies where in the view, ``unfit``
brings a map back. Bars of ``pad`` are black. With timm's or transformers' arithmetic all of the image is
resized, as they do, then cut: a box gives other pixels, since Pillow rounds between its two passes and orders
them by the sizes. ``normalize`` is x * (1 / (255 std)) - mean / std in float32, one multiplication and one
addition, which the training side repeats bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tesela.core.errors import DataError, ImageError
from tesela.imaging.color import with_channels
from tesela.imaging.decode import decode, decode_rows
from tesela.imaging.limits import DEFAULT_LIMITS, DecodeLimits
from tesela.imaging.rows import ArrayRows, ImageRows
from tesela.imaging.spec import ImageSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
#: Most pixels of an image that is resized before it is cut; of a longer strip the part alone is resized, to
#: nearly the same pixels.
MOST_RESIZED = 2**24

#: Pixels of an image above which it is fitted some rows at a time, and of the rows at a time.
_MOST_WHOLE, _AT_ONCE = 4 << 20, 1 << 20

#: The one code that is added to ``tesela.imaging.decode.CODES``: the model resizes nothing and the image has
#: another size.
WRONG_SIZE = "wrong_size"


@dataclass(frozen=True, slots=True)
class Placement:
    """Geometry of the original image in the model's view.

    Attributes:
        box: (top, left, height, width) in pixels of the original, fractions allowed.
        view: (top, left, height, width) in whole pixels of the view.
    """

    box: tuple[float, float, float, float]
    view: tuple[int, int, int, int]


def placement(original_size: tuple[int, int], spec: ImageSpec) -> Placement:
    """Place of an image of ``original_size`` (height, width) in the view of ``spec``.

    Raises:
        DataError: with resize "none", the size differs.
    """
    (height, width), (h, w) = original_size, spec.size
    whole = (0.0, 0.0, float(height), float(width))
    if spec.resize == "none" and original_size != spec.size:
        raise DataError(
            f"an image is {height} x {width}, the model takes {h} x {w}",
            hint="set resize to squash, crop or pad",
        )
    if spec.resized:
        rows, columns = _cuts(original_size, spec)
        return Placement(
            (rows.start, columns.start, rows.extent, columns.extent),
            (rows.place, columns.place, rows.count, columns.count),
        )
    if spec.resize == "crop":
        scale = max(h / height, w / width) / spec.crop_ratio
        part_h, part_w = min(h / scale, height), min(w / scale, width)
        return Placement(((height - part_h) / 2, (width - part_w) / 2, part_h, part_w), (0, 0, h, w))
    if spec.resize == "pad":
        scale = min(h / height, w / width)
        part = max(1, min(h, round(height * scale))), max(1, min(w, round(width * scale)))
        return Placement(whole, ((h - part[0]) // 2, (w - part[1]) // 2, *part))
    return Placement(whole, (0, 0, h, w))


@dataclass(frozen=True, slots=True)
class _Cut:
    """One axis of an image that is resized to ``length`` pixels before ``count`` of them are cut out.

    Attributes:
        original: pixels of the original.
        length: of the resized image.
        first: the first of the resized image that is kept.
        place: where it lies in the view.
        count: how many are kept.
    """

    original: int
    length: int
    first: int
    place: int
    count: int

    @property
    def start(self) -> float:
        return self.first * self.original / self.length

    @property
    def extent(self) -> float:
        return min(self.count * self.original / self.length, self.original - self.start)


def _cuts(original_size: tuple[int, int], spec: ImageSpec) -> tuple[_Cut, _Cut]:
    """Rows and columns of timm's and transformers' crops.

    timm 1.0: torchvision's Resize, or ResizeKeepRatio, then CenterCrop or CenterCropOrPad of
    timm/data/transforms.py. transformers 5: get_resize_output_image_size and center_crop of
    image_transforms.py.
    """
    lengths = _resized(original_size, spec)
    cuts = []
    for original, length, view in zip(original_size, lengths, spec.size, strict=True):
        over = length - view
        if over < 0:
            cuts.append(_Cut(original, length, 0, -over // 2, length))
        else:
            first = round(over / 2) if spec.arithmetic == "timm" else over // 2
            cuts.append(_Cut(original, length, first, 0, view))
    return cuts[0], cuts[1]


def _resized(original_size: tuple[int, int], spec: ImageSpec) -> tuple[int, int]:
    """Size (height, width) that an image is resized to before the middle is cut out."""
    height, width = original_size
    if len(spec.resized) == 1:
        short = spec.resized[0]
        return (
            (int(short * height / width), short) if width <= height else (short, int(short * width / height))
        )
    rows, columns = spec.resized
    if spec.resize == "squash":
        return rows, columns
    ratios = height / rows, width / columns
    ratio = max(ratios) if spec.resize == "pad" else min(ratios)
    return max(1, round(height / ratio)), max(1, round(width / ratio))


def fit_image(image: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.uint8]:
    """An image (H, W, C), uint8, as the model's view (h, w, C)."""
    original = image.shape[0], image.shape[1]
    place = placement(original, spec)
    box, size, cut = _resizing(original, place, spec)
    return _in_view(resize_box(image, box, size, interpolation=spec.interpolation), cut, place, spec)


def fit_rows(rows: ImageRows, spec: ImageSpec) -> NDArray[np.uint8]:
    """As ``fit_image``, bit for bit, from rows of an image: across some rows at a time, then down."""
    height, width = rows.size
    if height * width <= _MOST_WHOLE or spec.channels not in (1, 3):
        return fit_image(rows.band(0, height), spec)
    place = placement((height, width), spec)
    (top, left, box_height, box_width), size, cut = _resizing((height, width), place, spec)
    filtering, step = FILTERS[spec.interpolation], max(1, _AT_ONCE // width)
    narrow = Image.new("L" if spec.channels == 1 else "RGB", (size[1], height))
    for begin in range(0, height, step):
        part = rows.band(begin, min(begin + step, height))
        strip = Image.fromarray(part[:, :, 0] if spec.channels == 1 else part)
        across = (left, 0.0, left + box_width, float(strip.height))
        narrow.paste(strip.resize((size[1], strip.height), filtering, box=across), (0, begin))
    down = (0.0, top, float(size[1]), top + box_height)
    return _in_view(np.asarray(narrow.resize(size[::-1], filtering, box=down)), cut, place, spec)


def _resizing(
    original: tuple[int, int], place: Placement, spec: ImageSpec
) -> tuple[tuple[float, float, float, float], tuple[int, int], tuple[int, int]]:
    """The part (top, left, height, width) that is resized, its new size, and where the view begins in it.

    Other libraries resize the whole before they cut; where that is not too large, so does this.
    """
    whole = _resized(original, spec) if spec.resized else (0, 0)
    if 0 < whole[0] * whole[1] <= MOST_RESIZED:
        rows, columns = _cuts(original, spec)
        return (0.0, 0.0, float(original[0]), float(original[1])), whole, (rows.first, columns.first)
    return place.box, place.view[2:], (0, 0)


def _in_view(
    part: NDArray[np.uint8], cut: tuple[int, int], place: Placement, spec: ImageSpec
) -> NDArray[np.uint8]:
    """What is kept of a resized part, (h, w) or (h, w, C), at its place in the view (h, w, C)."""
    part = part[:, :, None] if part.ndim == 2 else part
    top, left, height, width = place.view
    part = part[cut[0] : cut[0] + height, cut[1] : cut[1] + width]
    if (height, width) == spec.size:
        return np.ascontiguousarray(part)
    # timm's bars have the mean colour
    bars = [round(255 * mean) for mean in spec.mean] if spec.arithmetic == "timm" else 0
    view = np.full((*spec.size, part.shape[2]), bars, np.uint8)
    view[top : top + height, left : left + width] = part
    return view


def resize_box(
    image: NDArray[np.uint8],
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    *,
    interpolation: str = "bicubic",
) -> NDArray[np.uint8]:
    """The part ``box`` (top, left, height, width) of an image (H, W, C), resized with antialiasing."""
    top, left, height, width = box
    if (top, left, height, width) == (0, 0, *size) and image.shape[:2] == size:
        return image
    if image.shape[2] not in (1, 3):  # each channel alone: Pillow would weigh colours by alpha
        channels = [image[:, :, place : place + 1] for place in range(image.shape[2])]
        parts = [resize_box(channel, box, size, interpolation=interpolation) for channel in channels]
        return np.concatenate(parts, axis=2)
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    resized = picture.resize(
        (size[1], size[0]), FILTERS[interpolation], box=(left, top, left + width, top + height)
    )
    part = np.array(resized)
    return part[:, :, None] if part.ndim == 2 else part


def scale_and_bias(spec: ImageSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Per channel: normalised = value * scale + bias, for values 0..255."""
    mean, std = np.array(spec.mean, np.float64), np.array(spec.std, np.float64)
    return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def normalize(batch: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.float32]:
    """Views (B, h, w, C), uint8, as the model's input (B, C, h, w), float32."""
    scale, bias = scale_and_bias(spec)
    planes = np.ascontiguousarray(batch.transpose(0, 3, 1, 2)).astype(np.float32)
    planes *= scale[:, None, None]
    planes += bias[:, None, None]
    return planes


def preprocess(
    sources: Sequence[bytes | Path | NDArray[np.uint8]],
    spec: ImageSpec,
    *,
    limits: DecodeLimits = DEFAULT_LIMITS,
) -> NDArray[np.float32]:
    """Encoded images or pixel arrays (H, W, C) as the model's input (B, C, h, w), float32.

    Raises:
        ImageError: a source cannot be decoded.
    """
    views = [fit_image(pixels(source, spec, limits=limits), spec) for source in sources]
    return normalize(np.stack(views) if views else np.zeros((0, *spec.size, spec.channels), np.uint8), spec)


def pixels(
    source: bytes | Path | NDArray[np.uint8], spec: ImageSpec, *, limits: DecodeLimits = DEFAULT_LIMITS
) -> NDArray[np.uint8]:
    """One source at its own size, with the channels that the model takes."""
    return pixels_of(source, spec.channels, limits=limits)


def pixels_of(
    source: bytes | Path | NDArray[np.uint8], channels: int, *, limits: DecodeLimits
) -> NDArray[np.uint8]:
    """One source at its own size, (H, W, channels).

    Raises:
        ImageError: it cannot be decoded.
        DataError: an array is not uint8 of (H, W) or (H, W, C).
    """
    if isinstance(source, np.ndarray):
        known = (), (1,), (2,), (3,), (4,), (channels,)
        if source.dtype != np.uint8 or source.ndim not in (2, 3) or source.shape[2:] not in known:
            raise DataError(
                f"an array of {source.dtype} and {' x '.join(map(str, source.shape))} is no image",
                hint="give (H, W) or (H, W, channels) as uint8 from 0 to 255",
            )
        return with_channels(source, channels)
    return decode(source, channels=channels, limits=limits)


def fitted_view(
    source: bytes | Path | NDArray[np.uint8], spec: ImageSpec, *, limits: DecodeLimits
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """One source as the model's view (h, w, C), with its own (height, width).

    Raises:
        ImageError: it cannot be decoded, or has a size that a model without resizing does not take.
    """

    def fit(rows: ImageRows) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        try:
            return fit_rows(rows, spec), rows.size
        except ImageError:
            raise
        except DataError as error:
            raise ImageError(error.message, code=WRONG_SIZE, hint=error.hint) from error

    if isinstance(source, np.ndarray):
        return fit(ArrayRows(pixels(source, spec, limits=limits), spec.channels))
    return decode_rows(source, fit, channels=spec.channels, limits=limits)


def unfit(
    view: NDArray[np.floating],
    original_size: tuple[int, int],
    spec: ImageSpec,
    *,
    rows: tuple[int, int] | None = None,
    columns: tuple[int, int] | None = None,
) -> NDArray[np.float32]:
    """Bring a map (h, w) over the model's view back to the original (H, W), or to a part of it.

    Linear between pixel centres, 0 where it did not look.

    Args:
        view: the map.
        original_size: (height, width) of the original.
        spec: how it was fitted.
        rows: the first row and the one behind the last; all by default.
        columns: likewise.
    """
    place = placement(original_size, spec)
    top, left, height, width = place.view
    part = np.asarray(view, np.float32)[top : top + height, left : left + width]
    down, rows_seen, high = _axis_weights(rows or (0, original_size[0]), place.box[0], place.box[2], height)
    across, columns_seen, wide = _axis_weights(
        columns or (0, original_size[1]), place.box[1], place.box[3], width
    )
    result: NDArray[np.float32] = np.asarray(down @ part[high, wide] @ across.T, np.float32)
    result[~rows_seen] = 0
    result[:, ~columns_seen] = 0
    return result


def _axis_weights(
    places: tuple[int, int], start: float, extent: float, cells: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_], slice]:
    """Linear interpolation weights (length, used cells) along an axis.

    With it which places were seen, and the used cells.
    """
    centres = np.arange(*places) + 0.5
    at = np.clip((centres - start) / extent * cells - 0.5, 0, cells - 1)
    low = np.minimum(at.astype(np.int64), max(cells - 2, 0))
    used = slice(int(low.min()), min(int(low.max()) + 2, cells))
    weights = np.zeros((len(centres), used.stop - used.start), np.float32)
    rows = np.arange(len(centres))
    weights[rows, low - used.start] = 1 - (at - low)
    weights[rows, np.minimum(low + 1, cells - 1) - used.start] += at - low
    return weights, (centres >= start) & (centres <= start + extent), used
