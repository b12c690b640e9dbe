"""Augmentation of a batch as a function of (seed, epoch, index of the image).

In order: flips and padded crop (exact, one gather), all other geometry (one warp), colour jitter, the
policy's colours, erasing. Everything stays uint8 until ``normalized``. So the result is the same for any
batch size, order and worker, and on resume. Odd: random_resized_crop belongs to whoever decodes large images
(it crops before it resizes, see reader.py); for images already at the model's size it is part of the warp
here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tesela.core.errors import ConfigError
from tesela.data.augment import color as tone
from tesela.data.augment import geometry, policy
from tesela.data.augment.movement import Movement
from tesela.data.config import AugmentConfig
from tesela.data.random import uniforms
from tesela.imaging.color import FILE_CHANNELS, colour_channels
from tesela.imaging.preprocess import scale_and_bias
from tesela.imaging.spec import ImageSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NOISE_LENGTH = 1 << 16
#: Pixels that are normalised at once on a CPU: a megabyte as floats.
_CHUNK = 1 << 18


class Augment:
    """The augmentations of a configuration, for images of one size.

    Args:
        config: what to do.
        spec: the model's view.
        cropped: random_resized_crop was done by the reader already.

    Raises:
        ConfigError: colours are to be changed in images whose channels are not known to be any.
    """

    def __init__(self, config: AugmentConfig, spec: ImageSpec, *, cropped: bool = False) -> None:
        if spec.channels > FILE_CHANNELS and (
            config.color_jitter or config.randaugment or config.trivialaugment
        ):
            raise ConfigError(
                f"which of {spec.channels} channels are colours is not known, and colours would be changed",
                hint="leave color_jitter, randaugment and trivialaugment off",
            )
        self.config = config
        self.spec = spec
        self.cropped = cropped
        self.fill = torch.tensor([255 * mean for mean in spec.mean], dtype=torch.float32).view(-1, 1, 1)

    def __call__(
        self, images: Tensor, *, seed: int, epoch: int, indices: Tensor | NDArray[np.int64]
    ) -> Tensor:
        """Augment images (B, C, H, W), uint8, of the given indices; uint8 again, the input untouched."""
        rows = np.asarray(indices, np.int64) if isinstance(indices, np.ndarray) else indices.cpu().numpy()
        draw = _Draw(seed, epoch, rows)
        size = (images.shape[2], images.shape[3])
        plan = self._plan(size, draw)
        images = self._movement(size, draw, plan).images(images, self.fill.to(images.device))
        if self.config.color_jitter:
            factors = self._jitter_factors(draw)
            images = on_colours(images, lambda colours: tone.jitter(colours, factors))
        if plan is not None:
            images = on_colours(images, plan.tones)
        return self._erase(images, draw) if self.config.erasing else images

    def boxes(
        self, sizes: NDArray[np.int64], *, seed: int, epoch: int, indices: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """(B, 4) parts (top, left, height, width) for random_resized_crop of images of ``sizes`` (B, 2)."""
        draws = uniforms(seed, epoch, indices, "crop", 22)
        return geometry.crop_boxes(sizes, draws, area=self.config.crop_scale, aspect=self.config.crop_aspect)

    def movement(
        self, size: tuple[int, int], *, seed: int, epoch: int, indices: NDArray[np.int64]
    ) -> Movement:
        """The geometric part of what a call does to images of ``size`` (height, width), for their masks."""
        draw = _Draw(seed, epoch, indices)
        return self._movement(size, draw, self._plan(size, draw))

    def _movement(self, size: tuple[int, int], draw: _Draw, plan: policy.DrawnOperations | None) -> Movement:
        config, pad = self.config, self.config.crop_padding
        return Movement(
            hflip=draw("hflip")[:, 0] < config.hflip,
            vflip=draw("vflip")[:, 0] < config.vflip,
            moves=np.floor(draw("padding", 2) * (2 * pad + 1)).astype(np.int64) - pad,
            reflect=config.crop_fill == "reflect",
            maps=self._maps(size, draw, plan),
        )

    def _maps(
        self, size: tuple[int, int], draw: _Draw, plan: policy.DrawnOperations | None
    ) -> NDArray[np.float64] | None:
        """The maps of all changes but flips and padded crops together; None for no change."""
        config = self.config
        parts: list[NDArray[np.float64]] = []
        if config.random_resized_crop and not self.cropped:
            boxes = self.boxes(
                np.tile(np.array(size), (len(draw.rows), 1)),
                seed=draw.seed,
                epoch=draw.epoch,
                indices=draw.rows,
            )
            parts.append(geometry.box_maps(boxes, size))
        if config.perspective:
            moves = (
                draw("perspective", 8).reshape(-1, 4, 2)
                * config.perspective
                * np.array([size[1] / 2, size[0] / 2])
            )
            parts.append(geometry.perspective(moves, size))
        if config.rotation:
            parts.append(geometry.rotate(draw.signed("rotation")[:, 0] * config.rotation))
        if config.shear:
            slants = np.tan(np.deg2rad(draw.signed("shear", 2) * config.shear))
            parts.append(geometry.shear(slants[:, 0], slants[:, 1]))
        if config.zoom:
            zoom = 1 + draw.signed("zoom")[:, 0] * config.zoom
            parts.append(geometry.scale(zoom, zoom))
        if config.translation:
            moves = draw.signed("translation", 2) * config.translation * np.array([size[1], size[0]])
            parts.append(geometry.shift(moves[:, 0], moves[:, 1]))
        if plan is not None:
            parts.append(plan.maps())
        maps = None
        for part in parts:
            maps = part if maps is None else maps @ part
        return maps

    def _plan(self, size: tuple[int, int], draw: _Draw) -> policy.DrawnOperations | None:
        if self.config.trivialaugment:
            return policy.trivialaugment(draw("policy", 3), size)
        if self.config.randaugment:
            return policy.randaugment(
                draw("policy", 3 * self.config.randaugment), size, magnitude=self.config.magnitude
            )
        return None

    def _jitter_factors(self, draw: _Draw) -> NDArray[np.float64]:
        """(B, 4): three factors around 1, never below 0, and a turn of the hue."""
        strength = self.config.color_jitter
        signed = draw.signed("jitter", 4)
        return np.concatenate(
            (np.maximum(1 + signed[:, :3] * strength, 0), signed[:, 3:] * min(strength / 10, 0.5)), axis=1
        )

    def _erase(self, images: Tensor, draw: _Draw) -> Tensor:
        """Overwrite a rectangle of each chosen image with even noise of 0..255 (RE-R of the paper)."""
        height, width = images.shape[2:]
        chosen = np.flatnonzero(draw("erasing")[:, 0] < self.config.erasing)
        if not len(chosen):
            return images
        draws = draw("erasing box", 23)[chosen]
        sizes = np.tile(np.array((height, width)), (len(chosen), 1))
        boxes = geometry.crop_boxes(
            sizes, draws, area=self.config.erasing_area, aspect=(0.3, 1 / 0.3)
        ).astype(np.int64)
        starts = np.floor(draws[:, 22] * _NOISE_LENGTH).astype(np.int64)
        images = images.clone()
        noise = _noise(images.shape[1] * height * width).to(images.device)
        for row, (top, left, h, w), start in zip(
            chosen.tolist(), boxes.tolist(), starts.tolist(), strict=True
        ):
            patch = noise[start : start + images.shape[1] * h * w].view(-1, h, w)
            images[row, :, top : top + h, left : left + w] = patch
        return images


def on_colours(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Images (B, C, H, W) with their colours changed, and alpha as it is."""
    count = colour_channels(images.shape[1])
    if count == images.shape[1]:
        return change(images)
    return torch.cat([change(images[:, :count]), images[:, count:]], dim=1)


class _Draw:
    """The draws of one batch, by purpose."""

    def __init__(self, seed: int, epoch: int, rows: NDArray[np.int64]) -> None:
        self.seed, self.epoch, self.rows = seed, epoch, rows

    def __call__(self, purpose: str, count: int = 1) -> NDArray[np.float64]:
        """(B, count), even in [0, 1)."""
        return uniforms(self.seed, self.epoch, self.rows, purpose, count)

    def signed(self, purpose: str, count: int = 1) -> NDArray[np.float64]:
        """(B, count), even in [-1, 1)."""
        return 2 * self(purpose, count) - 1


_noise_cache: dict[int, Tensor] = {}


def _noise(longest: int) -> Tensor:
    """A fixed run of random bytes; each erased rectangle starts reading at its own place."""
    if longest not in _noise_cache:
        draws = uniforms(0, 0, np.zeros(1, np.int64), "noise", _NOISE_LENGTH + longest)
        _noise_cache[longest] = torch.from_numpy(np.floor(draws[0] * 256).astype(np.uint8))
    return _noise_cache[longest]


def normalized(images: Tensor, spec: ImageSpec) -> Tensor:
    """Images (B, C, h, w), uint8, as the model's float32 input.

    Bit for bit ``imaging.preprocess.normalize``.
    """
    scale, bias = (torch.from_numpy(part).to(images.device).view(-1, 1, 1) for part in scale_and_bias(spec))
    if images.is_cuda:
        return images.to(torch.float32).mul_(scale).add_(bias)
    result = torch.empty(images.shape, dtype=torch.float32)
    step = max(1, _CHUNK // max(1, images[:1].numel()))
    work = torch.empty((min(step, len(images)), *images.shape[1:]), dtype=torch.float32)
    # pieces that stay in the cache: up to three times as fast as whole batches
    for start in range(0, len(images), step):
        part = images[start : start + step]
        torch.add(work[: len(part)].copy_(part).mul_(scale), bias, out=result[start : start + step])
    return result
