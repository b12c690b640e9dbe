"""Images that are there more than once, by their exact content.

Cheap first: only files of one size are compared, by their last bytes, and only those that agree are read
whole. Odd: a file stored again with other bytes and the same pixels is not found here; ``data check``, which
decodes everything, finds it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from tesela.core.errors import ImageError
from tesela.data.scan import in_threads
from tesela.data.source import ArrayItems, Items, Selection

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TAIL = 4096
#: Files that a thread reads in one go.
_AT_ONCE = 64


@runtime_checkable
class Sized(Protocol):
    """Items that know the sizes of their encoded images without reading them."""

    def byte_sizes(self) -> NDArray[np.int64]:
        """(N,) bytes of each image; -1 where it has none."""


@runtime_checkable
class Tailed(Protocol):
    """Items whose encoded images can be read from the end."""

    def tail(self, index: int, count: int) -> bytes | None:
        """The last ``count`` bytes of an image; None where it cannot be read."""


def twin_groups(items: Items) -> list[NDArray[np.int64]]:
    """Rows of the same content, for each content that is there twice or more; in the items' order."""
    base = items.items if isinstance(items, Selection) else items
    rows = items.rows if isinstance(items, Selection) else np.arange(len(items))
    groups = [list(range(len(items)))]
    if isinstance(base, Sized):
        sizes = base.byte_sizes()[rows]
        groups = _parted(groups, lambda row: int(sizes[row]) if sizes[row] > 0 else None)
    if isinstance(base, Tailed):
        tailed = base
        groups = _parted(groups, lambda row: tailed.tail(int(rows[row]), _TAIL), threads=True)
    groups = _parted(groups, lambda row: _digest(base, int(rows[row])), threads=isinstance(base, Tailed))
    return [np.array(group, np.int64) for group in groups]


def _parted(
    groups: Sequence[list[int]], key: Callable[[int], Hashable | None], *, threads: bool = False
) -> list[list[int]]:
    """Each group parted by a key; rows that are alone with theirs, or have none, are dropped."""
    rows = [row for group in groups for row in group]
    keys: Iterable[Hashable | None] = map(key, rows)
    if threads:
        parts = [rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE)]
        keys = chain.from_iterable(in_threads(lambda number: list(map(key, parts[number])), len(parts)))
    numbers = (number for number, group in enumerate(groups) for _ in group)
    found: dict[tuple[int, Hashable], list[int]] = {}
    for row, number, value in zip(rows, numbers, keys, strict=True):
        if value is not None:
            found.setdefault((number, value), []).append(row)
    return [group for group in found.values() if len(group) > 1]


def _digest(items: Items, row: int) -> bytes | None:
    """Digest of an image's bytes, or of its pixels where these are stored plainly; None without either."""
    if isinstance(items, ArrayItems):
        return hashlib.blake2b(items.images[row].tobytes(), digest_size=16).digest()
    data = items.raw(row)
    if data is not None:
        return hashlib.blake2b(data, digest_size=16).digest() if data else None
    try:
        pixels = np.ascontiguousarray(items.read(row))
    except ImageError:
        return None
    return hashlib.blake2b(pixels.data, digest_size=16).digest() + str(pixels.shape).encode()
