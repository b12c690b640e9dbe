"""Coding of masks: classes by stored value, ignored values, colours of the classes.

A stored value is a number 0..255, or a colour as red * 65536 + green * 256 + blue. Decoded masks hold class
numbers and ``IGNORE``.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tesela.core.errors import ConfigError, DataError
from tesela.imaging.mask import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

Colour = tuple[int, int, int]
#: Most classes that a mask of 8 bits can tell apart, beside ``IGNORE``.
MOST_CLASSES = 255
_FIRST: tuple[Colour, ...] = (
    (70, 130, 180), (214, 120, 40), (84, 158, 86), (190, 70, 80), (140, 108, 178), (222, 188, 60),
    (110, 110, 118), (90, 180, 190), (206, 120, 168), (146, 98, 70), (168, 190, 90), (60, 80, 150),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MaskCoding:
    """Classes of masks.

    Attributes:
        names: of the classes.
        values: stored value of each class.
        colours: of each class, in pictures.
        ignored: stored values that belong to no class.
        coloured: whether stored values are colours.
    """

    names: tuple[str, ...]
    values: tuple[int, ...]
    colours: tuple[Colour, ...]
    ignored: tuple[int, ...] = ()
    coloured: bool = False

    def __post_init__(self) -> None:
        """Check that every value has one meaning."""
        values = [*self.values, *self.ignored]
        if len(set(values)) < len(values):
            double = next(value for value in values if values.count(value) > 1)
            raise ConfigError(
                f"the mask value {shown(double, coloured=self.coloured)} stands for two things",
                hint="give each value one class, or ignore it",
            )
        if len(set(self.names)) < len(self.names):
            double_name = next(name for name in self.names if self.names.count(name) > 1)
            raise ConfigError(
                f"the class {double_name!r} is named twice", hint="give each class its own name"
            )
        if len(self.names) > MOST_CLASSES:
            raise ConfigError(
                f"{len(self.names)} classes are more than a mask can hold",
                hint=f"keep {MOST_CLASSES} or fewer",
            )

    def decode(self, stored: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
        """Class numbers (H, W) of stored values.

        Args:
            stored: (H, W), or colours (H, W, 3).
            name: of the mask, for the error.

        Raises:
            DataError: a value is neither a class nor ignored, or the mask has colours and the classes have
                none, or the other way round.
        """
        if (stored.ndim == 3) != self.coloured:
            raise self._wrong_kind(name)
        if not self.coloured:
            classes = self._table()[stored]
            unknown = classes < 0
        else:
            known = np.array([*self.values, *self.ignored])
            numbers = np.array([*range(len(self.values)), *[IGNORE] * len(self.ignored)])
            order = np.argsort(known)
            flat = packed(stored)
            places = np.clip(np.searchsorted(known[order], flat), 0, len(known) - 1)
            unknown = known[order][places] != flat
            classes = numbers[order][places]
        if unknown.any():
            found = np.unique((packed(stored) if self.coloured else stored)[unknown]).tolist()
            raise self._unknown(name, found)
        return classes.astype(np.uint8)

    def _table(self) -> NDArray[np.int16]:
        table = np.full(256, -1, np.int16)
        table[list(self.values)] = np.arange(len(self.values))
        table[list(self.ignored)] = IGNORE
        return table

    def _wrong_kind(self, name: str) -> DataError:
        if self.coloured:
            return DataError(
                f"the mask {name} has one number a pixel, the classes have colours",
                hint="give the classes numbers in the column value of classes.csv",
            )
        return DataError(
            f"the mask {name} has colours, and no class has one",
            hint="write classes.csv beside the data, with the columns value,name and colours such as #804080",
        )

    def _unknown(self, name: str, found: Sequence[int]) -> DataError:
        listed = ", ".join(shown(value, coloured=self.coloured) for value in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        words = "value" if len(found) == 1 else "values"
        return DataError(
            f"the mask {name} has the {words} {listed}{more}, which no class has",
            hint="add them to classes.csv, with yes under 'ignored' where they belong to no class",
        )

    def renumbered(self, labels: Sequence[str]) -> tuple[Colour, ...]:
        """Colours in the order of other labels; new ones for names that are not here."""
        known = dict(zip(self.names, self.colours, strict=True))
        usual = palette(len(labels))
        return tuple(known.get(label, colour) for label, colour in zip(labels, usual, strict=True))


def packed(colours: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Colours (..., 3) as one number each."""
    wide = colours.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def shown(value: int, *, coloured: bool) -> str:
    """A stored value for people."""
    return f"#{value:06x}" if coloured else str(value)


def palette(count: int) -> tuple[Colour, ...]:
    """``count`` colours that are easy to tell apart: a dozen muted ones, then hues at the golden angle."""
    more = []
    for index in range(max(0, count - len(_FIRST))):
        red, green, blue = colorsys.hsv_to_rgb(index * 0.6180339887 % 1.0, 0.55, 0.55 + 0.35 * (index % 2))
        more.append((round(red * 255), round(green * 255), round(blue * 255)))
    return (*_FIRST, *more)[:count]


def coding_of(values: Iterable[int], *, coloured: bool, known_colours: Sequence[Colour] = ()) -> MaskCoding:
    """Classes proposed for the values that masks were seen to have.

    255 beside other numbers is taken as ignored, as most data sets have it; 0 and 255 alone are background
    and foreground.
    """
    found = sorted(set(values))
    ignored: tuple[int, ...] = ()
    names = [f"class {shown(value, coloured=coloured)}" for value in found]
    if not coloured and found in ([0, 255], [0, 1]):
        names = ["background", "foreground"]
    elif not coloured and IGNORE in found and len(found) > 1:
        found, ignored = found[:-1], (IGNORE,)
        names = names[:-1]
    fallback = palette(len(found))
    colours = []
    for place, value in enumerate(found):
        if coloured:
            colours.append((value >> 16, value >> 8 & 255, value & 255))
        else:
            colours.append(known_colours[value] if value < len(known_colours) else fallback[place])
    return MaskCoding(
        names=tuple(names),
        values=tuple(found),
        colours=tuple(colours),
        ignored=ignored,
        coloured=coloured,
    )
