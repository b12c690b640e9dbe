"""Preprocessing of images to a model's batch by an ImageSpec, and back for maps.

NumPy and Pillow alone.

Fitting is one Pillow resize of a box of the original (antialiased), so the geometry is exact in fractions of
a pixel and has an inverse: ``placement`` says which part of the original lies where in the view, ``unfit``
brings a map back. Bars of ``pad`` are black. ``normalize`` is x * (1 / (255 std)) - mean / std in float32,
one multiplication and one addition, which the training side repeats bit for bit.
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
from tesela.imaging.decode import decode
from tesela.imaging.limits import DEFAULT_LIMITS, DecodeLimits
from tesela.imaging.spec import ImageSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


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
    if spec.resize == "crop":
        scale = max(h / height, w / width) / spec.crop_ratio
        part_h, part_w = min(h / scale, height), min(w / scale, width)
        return Placement(((height - part_h) / 2, (width - part_w) / 2, part_h, part_w), (0, 0, h, w))
    if spec.resize == "pad":
        scale = min(h / height, w / width)
        part = max(1, min(h, round(height * scale))), max(1, min(w, round(width * scale)))
        return Placement(whole, ((h - part[0]) // 2, (w - part[1]) // 2, *part))
    return Placement(whole, (0, 0, h, w))


def fit_image(image: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.uint8]:
    """An image (H, W, C), uint8, as the model's view (h, w, C)."""
    place = placement((image.shape[0], image.shape[1]), spec)
    top, left, height, width = place.view
    part = resize_box(image, place.box, (height, width), interpolation=spec.interpolation)
    if (height, width) == spec.size:
        return part
    view = np.zeros((*spec.size, image.shape[2]), np.uint8)
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
    try:
        image = pixels(source, spec, limits=limits)
        return fit_image(image, spec), (image.shape[0], image.shape[1])
    except ImageError:
        raise
    except DataError as error:
        raise ImageError(error.message, code=WRONG_SIZE, hint=error.hint) from error


def unfit(view: NDArray[np.floating], original_size: tuple[int, int], spec: ImageSpec) -> NDArray[np.float32]:
    """Bring a map (h, w) over the model's view back to the original (H, W).

    Linear between pixel centres, 0 where it did not look.
    """
    place = placement(original_size, spec)
    top, left, height, width = place.view
    part = np.asarray(view, np.float32)[top : top + height, left : left + width]
    rows, rows_seen = _axis_weights(original_size[0], place.box[0], place.box[2], height)
    columns, columns_seen = _axis_weights(original_size[1], place.box[1], place.box[3], width)
    result: NDArray[np.float32] = np.asarray(rows @ part @ columns.T, np.float32)
    result[~rows_seen] = 0
    result[:, ~columns_seen] = 0
    return result


def _axis_weights(
    length: int, start: float, extent: float, cells: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Linear interpolation weights (length, cells) along an axis, and which positions were seen."""
    centres = np.arange(length) + 0.5
    at = np.clip((centres - start) / extent * cells - 0.5, 0, cells - 1)
    low = np.minimum(at.astype(np.int64), max(cells - 2, 0))
    weights = np.zeros((length, cells), np.float32)
    rows = np.arange(length)
    weights[rows, low] = 1 - (at - low)
    weights[rows, np.minimum(low + 1, cells - 1)] += at - low
    return weights, (centres >= start) & (centres <= start + extent)
