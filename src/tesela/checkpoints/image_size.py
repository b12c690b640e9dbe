"""Image sizes that tables of positions belong to, where a checkpoint does not say them."""

from __future__ import annotations

import math

from tesela.core.errors import WeightsError


def native_size(positions: int, step: tuple[int, int], wanted: tuple[int, int] | None) -> tuple[int, int]:
    """The image size that a table of so many positions belongs to.

    Args:
        positions: rows of the table without those of prefix tokens.
        step: pixels between two tokens.
        wanted: (height, width) as the user says; another size than the table's is left to interpolation.

    Raises:
        WeightsError: the table is of no square image or grid, and ``wanted`` does not fit it.
    """
    if wanted is not None and (math.ceil(wanted[0] / step[0]) * math.ceil(wanted[1] / step[1])) == positions:
        return wanted
    if wanted is not None and (wanted[0] // step[0]) * (wanted[1] // step[1]) == positions:
        return wanted
    usual = square_size(positions, step)
    if usual is None:
        told = f"an image of {wanted[0]}x{wanted[1]} has not" if wanted else "a square image cannot have"
        raise WeightsError(
            f"the checkpoint has positions for {positions} tokens of {step[0]}x{step[1]} pixels, which "
            f"{told}",
            hint="say what images it was trained on: tesela convert SOURCE BUNDLE --image-size HxW",
        )
    return usual


def square_size(positions: int, step: tuple[int, int]) -> tuple[int, int] | None:
    """The square image of so many positions.

    Where there is none, the image of a square grid (patches may be oblong).
    """
    side = math.isqrt(positions * step[0] * step[1])
    if (
        side
        and side % step[0] == 0
        and side % step[1] == 0
        and (side // step[0]) * (side // step[1]) == positions
    ):
        return side, side
    rows = math.isqrt(positions)
    return (rows * step[0], rows * step[1]) if rows and rows * rows == positions else None
