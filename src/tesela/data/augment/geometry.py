"""Random geometry of a batch: all flips, shifts and warps as one resampling.

A map is a 3 x 3 matrix from output to input coordinates, both in pixels from the image's centre. Applying one
change after another multiplies their maps, so an image is interpolated only once however many changes it
gets. Matrices are NumPy, float64, one per image; the warp is torch, float32, in single multiplications and
additions, so that the result does not depend on the batch around it. Odd: what comes from outside the image
is the mean colour, which is zero after normalisation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Draws = NDArray[np.float64]
    Maps = NDArray[np.float64]


#: From this many values an image is copied by itself.
_LARGE = 1 << 14


def identity(count: int) -> Maps:
    """(count, 3, 3) maps that change nothing."""
    return np.tile(np.eye(3), (count, 1, 1))


def shift(x: Draws, y: Draws) -> Maps:
    """Move the content right by x and down by y pixels."""
    maps = identity(len(x))
    maps[:, 0, 2], maps[:, 1, 2] = -x, -y
    return maps


def scale(x: Draws, y: Draws) -> Maps:
    """Enlarge the content by the factors x and y."""
    maps = identity(len(x))
    maps[:, 0, 0], maps[:, 1, 1] = 1 / x, 1 / y
    return maps


def rotate(degrees: Draws) -> Maps:
    """Turn the content counter-clockwise."""
    angle = np.deg2rad(degrees)
    maps = identity(len(angle))
    maps[:, 0, 0] = maps[:, 1, 1] = np.cos(angle)
    maps[:, 0, 1], maps[:, 1, 0] = -np.sin(angle), np.sin(angle)
    return maps


def shear(x: Draws, y: Draws) -> Maps:
    """Slant the content: a row at distance d above the centre moves right by x * d, a column likewise."""
    maps = identity(len(x))
    maps[:, 0, 1], maps[:, 1, 0] = x, y
    return maps


def crop_boxes(
    sizes: NDArray[np.int64], draws: Draws, *, area: tuple[float, float], aspect: tuple[float, float]
) -> Draws:
    """Random parts, as in Inception's training.

    Ten tries at an area and an aspect, else the largest middle part that fits.

    Args:
        sizes: (B, 2), height and width of each image.
        draws: (B, 22 or more), even in [0, 1): ten pairs for shape, then two for place.
        area: share of the image's area.
        aspect: width : height.

    Returns:
        (B, 4): top, left, height, width in pixels, whole numbers.
    """
    height, width = sizes[:, 0].astype(np.float64), sizes[:, 1].astype(np.float64)
    areas = (height * width)[:, None] * (area[0] + (area[1] - area[0]) * draws[:, 0:20:2])
    low, high = np.log(aspect[0]), np.log(aspect[1])
    ratios = np.exp(low + (high - low) * draws[:, 1:20:2])
    widths, heights = np.rint(np.sqrt(areas * ratios)), np.rint(np.sqrt(areas / ratios))
    fits = (widths >= 1) & (widths <= width[:, None]) & (heights >= 1) & (heights <= height[:, None])
    rows, first = np.arange(len(sizes)), np.argmax(fits, axis=1)
    own = width / height
    spare_w = np.where(own > aspect[1], np.rint(height * aspect[1]), width)
    spare_h = np.where(own < aspect[0], np.rint(width / aspect[0]), height)
    found = fits.any(axis=1)
    w, h = np.where(found, widths[rows, first], spare_w), np.where(found, heights[rows, first], spare_h)
    top = np.where(found, np.floor(draws[:, 20] * (height - h + 1)), (height - h) // 2)
    left = np.where(found, np.floor(draws[:, 21] * (width - w + 1)), (width - w) // 2)
    return np.stack((top, left, h, w), axis=1)


def box_maps(boxes: Draws, size: tuple[int, int]) -> Maps:
    """Maps that spread a box (top, left, height, width) of an image over the whole of it; all of one size."""
    height, width = size
    top, left, h, w = boxes.T
    maps = identity(len(boxes))
    maps[:, 0, 0], maps[:, 1, 1] = w / width, h / height
    maps[:, 0, 2], maps[:, 1, 2] = left + w / 2 - width / 2, top + h / 2 - height / 2
    return maps


def perspective(moves: Draws, size: tuple[int, int]) -> Maps:
    """Maps that pull the four corners of the view inwards.

    Args:
        moves: (B, 4, 2), how far each corner (top left, top right, bottom right, bottom left) goes in, in
            pixels (x, y).
        size: height and width.
    """
    height, width = size
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (width / 2, height / 2)
    inner = corners - np.sign(corners) * moves
    return _homographies(inner, np.broadcast_to(corners, inner.shape))


def _homographies(source: Draws, target: Draws) -> Maps:
    """(B, 3, 3) matrices that take four points (B, 4, 2) to four others: the usual 8 x 8 linear system."""
    x, y, u, v = source[..., 0], source[..., 1], target[..., 0], target[..., 1]
    one, zero = np.ones_like(x), np.zeros_like(x)
    upper = np.stack((x, y, one, zero, zero, zero, -u * x, -u * y), axis=-1)
    lower = np.stack((zero, zero, zero, x, y, one, -v * x, -v * y), axis=-1)
    system = np.concatenate((upper, lower), axis=1)
    solution = np.linalg.solve(system, np.concatenate((u, v), axis=1)[..., None])[..., 0]
    return np.concatenate((solution, np.ones((len(solution), 1))), axis=1).reshape(-1, 3, 3)


def warp(images: Tensor, maps: Maps, fill: Tensor) -> Tensor:
    """Sample images (B, C, H, W), uint8, through maps (B, 3, 3), bilinear.

    ``fill`` (C, 1, 1), 0..255, lies outside.
    """
    moved = np.flatnonzero((maps != np.eye(3)).any(axis=(1, 2)))
    if len(moved) == 0:
        return images
    rows = torch.from_numpy(moved).to(images.device)
    grid = _grid(maps[moved], (images.shape[2], images.shape[3]), images.device)
    chosen = images if len(moved) == len(images) else images[rows]
    sampled = F.grid_sample(chosen.to(torch.float32) - fill, grid, padding_mode="zeros", align_corners=False)
    result = (sampled + fill).add_(0.5).clamp_(0, 255).to(torch.uint8)
    return result if len(moved) == len(images) else with_rows(images, moved, result)


def nearest(planes: Tensor, maps: Maps) -> Tensor:
    """Sample planes (B, C, H, W), float32, through maps (B, 3, 3) at the nearest pixel; outside lies 0."""
    grid = _grid(maps, (planes.shape[2], planes.shape[3]), planes.device)
    return F.grid_sample(planes, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def _grid(maps: Maps, size: tuple[int, int], device: torch.device) -> Tensor:
    """(B, H, W, 2) sampling places in grid_sample's units (the image spans -1..1)."""
    height, width = size
    m = torch.from_numpy(maps.astype(np.float32)).to(device)[:, :, :, None, None]
    x = (torch.arange(width, dtype=torch.float32, device=device) + (0.5 - width / 2))[None, None, :]
    y = (torch.arange(height, dtype=torch.float32, device=device) + (0.5 - height / 2))[None, :, None]
    below = m[:, 2, 0] * x + m[:, 2, 1] * y + m[:, 2, 2]
    across = (m[:, 0, 0] * x + m[:, 0, 1] * y + m[:, 0, 2]) / below
    down = (m[:, 1, 0] * x + m[:, 1, 1] * y + m[:, 1, 2]) / below
    return torch.stack((across * (2 / width), down * (2 / height)), dim=-1)


def with_rows(images: Tensor, rows: NDArray[np.int64], values: Tensor) -> Tensor:
    """A copy of ``images`` with some rows replaced.

    Torch's own way takes three times as long for large images on a CPU.
    """
    if images.is_cuda or images[0].numel() < _LARGE:
        return images.index_copy(0, torch.from_numpy(rows).to(images.device), values)
    result = images.clone()
    for row, value in zip(rows.tolist(), values, strict=True):
        result[row] = value
    return result


def flip_and_crop(
    images: Tensor,
    *,
    hflip: NDArray[np.bool_],
    vflip: NDArray[np.bool_],
    moves: NDArray[np.int64],
    reflect: bool,
) -> Tensor:
    """Flip, then shift by whole pixels, in one gather without interpolation.

    Args:
        images: (B, C, H, W), uint8.
        hflip: (B,), left and right change places.
        vflip: (B,), top and bottom change places.
        moves: (B, 2), how far the window goes down and right over the padded image, either sign.
        reflect: mirror at the border (without repeating it); else black.
    """
    if not moves.any():
        return _flipped(_flipped(images, hflip, 3), vflip, 2)
    batch, channels, height, width = images.shape
    rows, row_seen = _axis(moves[:, 0], vflip, height, reflect)
    columns, column_seen = _axis(moves[:, 1], hflip, width, reflect)
    places = (
        torch.from_numpy(rows[:, :, None] * width + columns[:, None, :]).to(images.device).view(batch, 1, -1)
    )
    flat = images.reshape(batch, channels, -1)
    result = flat.gather(2, places.expand(batch, channels, places.shape[2])).view_as(images)
    if not reflect:
        seen = torch.from_numpy(row_seen[:, :, None] & column_seen[:, None, :]).to(images.device)
        result = result * seen[:, None]
    return result


def _flipped(images: Tensor, flips: NDArray[np.bool_], axis: int) -> Tensor:
    """The chosen images mirrored along one axis."""
    if not flips.any():
        return images
    rows = torch.from_numpy(np.flatnonzero(flips)).to(images.device)
    return with_rows(images, np.flatnonzero(flips), images.index_select(0, rows).flip(axis))


def _axis(
    moves: NDArray[np.int64], flips: NDArray[np.bool_], length: int, reflect: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each output position along one axis: the input position, and whether it was inside."""
    at = np.arange(length)[None, :] + moves[:, None]
    seen = (at >= 0) & (at < length)
    if reflect and length > 1:
        at = np.abs(at) % (2 * length - 2)
        at = np.minimum(at, 2 * length - 2 - at)
    else:
        at = np.clip(at, 0, length - 1)
    return np.where(flips[:, None], length - 1 - at, at), seen
