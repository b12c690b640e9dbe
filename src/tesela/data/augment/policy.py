"""RandAugment (arXiv 1909.13719) and TrivialAugment (arXiv 2103.10158).

Which operations an image gets, and how strong.

Both draw from one table of 14 operations. Odd: the geometric operations of an image are multiplied into the
one warp that ``augment`` does, before its colour operations; in the papers they alternate, with one
interpolation each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from tesela.data.augment import color as tone
from tesela.data.augment import geometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
TONES: dict[str, Callable[[Tensor, Array], Tensor]] = {
    "brightness": tone.brightness,
    "saturation": tone.saturation,
    "contrast": tone.contrast,
    "sharpness": tone.sharpness,
    "posterize": tone.posterize,
    "solarize": tone.solarize,
    "autocontrast": tone.autocontrast,
    "equalize": tone.equalize,
}
OPERATIONS = ("identity", *GEOMETRIC, *TONES)

#: Strength at full magnitude: RandAugment's ranges and TrivialAugment's wide ones. Shifts are shares of the
#: side.
RANGES = {
    "randaugment": {"shear": 0.3, "translate": 150 / 331, "rotate": 30.0, "enhance": 0.9, "posterize": 4.0},
    "trivialaugment": {
        "shear": 0.99,
        "translate": 150 / 331,
        "rotate": 135.0,
        "enhance": 0.99,
        "posterize": 6.0,
    },
}
#: TrivialAugment shifts by 32 pixels at most, on small images by what RandAugment allows.
_TRIVIAL_SHIFT = 32


@dataclass(frozen=True, slots=True)
class DrawnOperations:
    """Operations of a batch.

    Attributes:
        operations: (B, slots), numbers in OPERATIONS.
        levels: (B, slots), 0..1.
        signs: (B, slots), -1 or 1.
        ranges: the row of RANGES.
        shift: largest shift in pixels (x, y).
    """

    operations: NDArray[np.int64]
    levels: Array
    signs: Array
    ranges: dict[str, float]
    shift: tuple[float, float]

    def maps(self) -> Array:
        """(B, 3, 3): the geometric operations of each image, multiplied."""
        maps = geometry.identity(len(self.operations))
        for slot in range(self.operations.shape[1]):
            for name in GEOMETRIC:
                rows = np.flatnonzero(self.operations[:, slot] == OPERATIONS.index(name))
                if len(rows):
                    maps[rows] = maps[rows] @ self._map(
                        name, self.levels[rows, slot] * self.signs[rows, slot]
                    )
        return maps

    def _map(self, name: str, level: Array) -> Array:
        zero = np.zeros_like(level)
        if name == "rotate":
            return geometry.rotate(level * self.ranges["rotate"])
        if name.startswith("shear"):
            slant = level * self.ranges["shear"]
            return geometry.shear(slant, zero) if name == "shear_x" else geometry.shear(zero, slant)
        across = name == "translate_x"
        move = level * self.shift[0 if across else 1]
        return geometry.shift(move, zero) if across else geometry.shift(zero, move)

    def tones(self, images: Tensor) -> Tensor:
        """Apply the colour operations, slot by slot, all images of one operation together."""
        import torch

        for slot in range(self.operations.shape[1]):
            for name, change in TONES.items():
                rows = np.flatnonzero(self.operations[:, slot] == OPERATIONS.index(name))
                if len(rows):
                    chosen = torch.from_numpy(rows).to(images.device)
                    strength = self._strength(name, self.levels[rows, slot], self.signs[rows, slot])
                    images = geometry.with_rows(images, rows, change(images[chosen], strength))
        return images

    def _strength(self, name: str, level: Array, sign: Array) -> Array:
        if name == "posterize":
            return 8 - np.rint(level * self.ranges["posterize"])
        if name == "solarize":
            return 255 * (1 - level)
        return 1 + sign * level * self.ranges["enhance"]


def randaugment(draws: Array, size: tuple[int, int], *, magnitude: int) -> DrawnOperations:
    """``draws.shape[1] // 3`` operations per image, all of one magnitude (0..30)."""
    slots = draws.shape[1] // 3
    levels = np.full((len(draws), slots), magnitude / 30)
    share = RANGES["randaugment"]["translate"]
    return _plan(draws, levels, "randaugment", (share * size[1], share * size[0]))


def trivialaugment(draws: Array, size: tuple[int, int]) -> DrawnOperations:
    """One operation per image, its strength one of 31 levels."""
    levels = np.floor(draws[:, 2:3] * 31) / 30
    share = RANGES["trivialaugment"]["translate"]
    shift = min(_TRIVIAL_SHIFT, share * size[1]), min(_TRIVIAL_SHIFT, share * size[0])
    return _plan(draws, levels, "trivialaugment", shift)


def _plan(draws: Array, levels: Array, name: str, shift: tuple[float, float]) -> DrawnOperations:
    operations = np.floor(draws[:, 0::3] * len(OPERATIONS)).astype(np.int64)
    return DrawnOperations(operations, levels, np.where(draws[:, 1::3] < 0.5, -1.0, 1.0), RANGES[name], shift)
