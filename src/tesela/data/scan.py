"""Scan of all images for unreadable ones: listed by cause, refused above a share.

Reading runs in threads (decoders release the interpreter's lock); the result is in the items' order whatever
the number of threads. Odd: plain arrays have nothing to fail and are not read.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from tesela.core.errors import DataError, ImageError
from tesela.data.source import ArrayItems, Items, Selection

_T = TypeVar("_T")
#: Names in an error message; the whole list belongs to ``tesela data check``.
_NAMED = 5
#: Images that are looked at for the causes where none can be read.
_LOOKED_AT = 100


@dataclass(frozen=True, slots=True)
class Unreadable:
    """One image that cannot be decoded.

    Attributes:
        index: its number in the items.
        name: the items' name for it.
        code: one of ``tesela.imaging.decode.CODES``.
        message: what is wrong.
        cause: one or two words for counting, such as the format that is not opened.
        hint: what to do about it.
    """

    index: int
    name: str
    code: str
    message: str
    cause: str = ""
    hint: str = ""


def scan(items: Items) -> list[Unreadable]:
    """All unreadable images, in order."""
    base = items.items if isinstance(items, Selection) else items
    if is_plain(items) or getattr(base, "verified", False):  # decoded when it was written
        return []
    attempts = enumerate(
        in_threads(lambda index: attempt(items, index, lambda: _decodes(items, index)), len(items))
    )
    return [result for _, result in attempts if isinstance(result, Unreadable)]


def _decodes(items: Items, index: int) -> None:
    items.read(index, size_hint=(1, 1))


def attempt(items: Items, index: int, work: Callable[[], _T]) -> _T | Unreadable:
    """The work's result, or why the image cannot be read."""
    try:
        return work()
    except ImageError as error:
        return Unreadable(index, items.name(index), error.code, error.message, error.cause, error.hint)


def in_threads(work: Callable[[int], _T], count: int) -> Iterator[_T]:
    """``work(0)``, ``work(1)``, ...

    In order, computed by as many threads as there are cores, a few chunks ahead.
    """
    threads = min(16, os.cpu_count() or 1)
    chunk = 128 * threads
    few = max(1, min(16, count // (8 * threads)))  # small images take less time than a future

    def several(first: int, end: int) -> list[_T]:
        return [work(index) for index in range(first, min(first + few, end))]

    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, count, chunk):
            end = min(start + chunk, count)
            for results in pool.map(several, range(start, end, few), itertools.repeat(end)):
                yield from results


def is_plain(items: Items) -> bool:
    """Whether the pixels are stored without encoding."""
    return isinstance(items.items if isinstance(items, Selection) else items, ArrayItems)


def refuse_too_many(unreadable: list[Unreadable], total: int, *, limit: float) -> None:
    """Raise DataError where more than the share ``limit`` of ``total`` images is unreadable."""
    if len(unreadable) <= limit * total:
        return
    named = ", ".join(f"{bad.name} ({bad.code})" for bad in unreadable[:_NAMED])
    more = f" and {len(unreadable) - _NAMED} more" if len(unreadable) > _NAMED else ""
    raise DataError(
        f"{len(unreadable)} of {total} images are unreadable, the limit is {limit:.1%}: "
        f"{causes(unreadable)}: "
        f"{named}{more}",
        hint=_cure(unreadable, "mend or remove them, or raise --max-unreadable"),
    )


def nothing_readable(items: Items) -> DataError:
    """The error of a set of which no image can be read, with the causes of its first ones."""
    found = scan(Selection(items, range(min(len(items), _LOOKED_AT))))
    return DataError(
        f"not one of {len(items)} images can be read" + (f": {causes(found)}" if found else ""),
        hint=_cure(found, "mend or replace them"),
    )


def _cure(unreadable: Iterable[Unreadable], otherwise: str) -> str:
    """What options and packages can do about them, where the list is, and what else can be done."""
    offered = dict.fromkeys(bad.hint for bad in unreadable if "--" in bad.hint or "pip " in bad.hint)
    return "; ".join([*offered, "'tesela data check DATA' lists them all", otherwise])


def causes(unreadable: Iterable[Unreadable]) -> str:
    """Numbers of images by cause, the most first: ``22 TIFF, 19 GIF``."""
    counts = Counter(bad.cause or bad.code for bad in unreadable)
    return ", ".join(f"{number} {cause}" for cause, number in counts.most_common())
