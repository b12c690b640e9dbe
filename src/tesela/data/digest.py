"""Digest of a data set: which images there are, in which split, with which target."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tesela.data.source import Items, Selection, Source


def data_digest(source: Source) -> str:
    """SHA-256 of each split's names, targets and file sizes, in their order.

    Contents are not read: a file that was replaced by another of the same size goes unnoticed.
    """
    digest = hashlib.sha256(repr(source.labels).encode())
    for split, items in source.splits.items():
        base: object = items.items if isinstance(items, Selection) else items
        root, masks = getattr(base, "root", None), getattr(base, "masks", None)
        digest.update(f"\n{split} {len(items)}".encode())
        for index in range(len(items)):
            names = [items.name(index), *([masks[_row(items, index)]] if masks is not None else [])]
            sizes = [_size(root, name) for name in names] if root is not None else []
            digest.update(repr((names, int(items.targets[index]), sizes)).encode())
    return digest.hexdigest()


def image_counts(source: Source) -> dict[str, int]:
    """Images of each split."""
    return {split: len(items) for split, items in source.splits.items()}


def _row(items: Items, index: int) -> int:
    return int(items.rows[index]) if isinstance(items, Selection) else index


def _size(root: object, name: str) -> int:
    try:
        return (root / name).stat().st_size if isinstance(root, Path) else -1
    except OSError:
        return -1
