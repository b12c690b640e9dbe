"""Stateless random numbers: a function of (seed, epoch, index, stream).

No order, worker or batch can change them.

SplitMix64's finaliser (Steele et al. 2014) over a chain of the four keys, vectorised over indices: the same
bits on every machine and NumPy version, which NumPy's own generators do not promise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from tesela.core.pathnames import text_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def stream_key(name: str) -> int:
    """A number for a named purpose, so that no two purposes share their draws."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: each output bit depends on each input bit."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * _MIX1
        values = (values ^ (values >> np.uint64(27))) * _MIX2
    return values ^ (values >> np.uint64(31))


def bits(
    seed: int, epoch: int, indices: NDArray[np.int64], purpose: str, count: int = 1
) -> NDArray[np.uint64]:
    """(len(indices), count) words of 64 random bits."""
    key = np.zeros(1, np.uint64)
    with np.errstate(over="ignore"):
        for part in (seed, epoch, stream_key(purpose)):
            key = mix(key * _STEP + np.uint64(part % 2**64) + _STEP)
        rows = mix(key + (indices.astype(np.uint64) + np.uint64(1)) * _STEP)
        columns = np.arange(1, count + 1, dtype=np.uint64) * _STEP
        return mix(rows[:, None] + columns[None, :])


def uniforms(
    seed: int, epoch: int, indices: NDArray[np.int64], purpose: str, count: int = 1
) -> NDArray[np.float64]:
    """(len(indices), count) numbers, even in [0, 1)."""
    return (bits(seed, epoch, indices, purpose, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(seed: int, epoch: int, length: int, purpose: str = "order") -> NDArray[np.int64]:
    """A random order of 0..length-1."""
    return np.argsort(bits(seed, epoch, np.arange(length), purpose)[:, 0], kind="stable")


def grouped_permutation(
    seed: int, epoch: int, groups: NDArray[np.int64], *, buffer: int
) -> NDArray[np.int64]:
    """A random order of 0..N-1 that goes through a few groups at a time and mixes these.

    Args:
        seed: of the run.
        epoch: of the run.
        groups: (N,) group of each.
        buffer: groups that are mixed.
    """
    found, group = np.unique(groups, return_inverse=True)
    rank = np.empty(len(found), np.int64)
    rank[permutation(seed, epoch, len(found), "groups")] = np.arange(len(found))
    words = bits(seed, epoch, np.arange(len(groups)), "order")[:, 0]
    return np.lexsort((words, rank[group] // buffer))


def name_keys(seed: int, names: Iterable[str]) -> NDArray[np.uint64]:
    """One random word per name: what a split is cut by, whatever the order on disk.

    Of a name that escapes bytes (see ``core/pathnames.py``) the bytes count.
    """
    prefix = f"{seed}/"
    said = (prefix + str(text_path(name) if "\\" in name else name) for name in names)
    encoded = (text.encode("utf-8", "surrogateescape") for text in said)
    words = [int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") for data in encoded]
    return np.array(words, np.uint64)
