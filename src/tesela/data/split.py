"""Stratified validation and test splits, reproducible and independent of disk order.

Each item gets a random word from (split_seed, its name); within a class the items are ranked by it, and the
first ones go to test, the next to val. A class of three or more images gives at least one to each split that
is cut; smaller ones keep what they can for training. Odd: a subset takes the best-ranked of every class in
turn, so it is balanced and larger subsets contain the smaller ones.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tesela.core.errors import ConfigError, DataError, UnknownNameError
from tesela.core.files import write_atomic
from tesela.data.random import name_keys
from tesela.data.source import SPLITS, Items, Selection, Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tesela.data.targets import Targets


def complete(source: Source, targets: Targets, *, fractions: Mapping[str, float], seed: int) -> Source:
    """The source with all of train, val and test; missing ones are cut out of train.

    Args:
        source: with at least ``train``.
        targets: say into which strata the items fall.
        fractions: share of the training images per split that may be missing.
        seed: another number gives another cut.
    """
    missing = [split for split in SPLITS[1:] if split not in source.splits]
    if not missing:
        return source
    train = source.splits["train"]
    parts = cut(
        train, targets.strata(train), {split: fractions.get(split, 0.0) for split in missing}, seed=seed
    )
    splits = {split: parts[split] if split in parts else source.splits[split] for split in SPLITS}
    return source.with_splits(splits, cut=tuple(missing))


def cut(
    items: Items, strata: NDArray[np.int64], fractions: Mapping[str, float], *, seed: int
) -> dict[str, Items]:
    """``train`` and the splits named in ``fractions``; every part keeps the items' own order."""
    ranks = ranks_in_strata(items, strata, seed=seed)
    counts = np.bincount(strata)[strata] if len(items) else np.zeros(0, np.int64)
    taken = np.zeros(len(items), np.int64)
    parts: dict[str, Items] = {}
    for split in sorted(fractions):  # test before val: a validation share does not change the test set
        share = np.floor(counts * fractions[split] + 0.5).astype(np.int64)
        share = np.where((share == 0) & (fractions[split] > 0) & (counts >= 3), 1, share)
        share = np.minimum(share, np.maximum(counts - taken - 1, 0))
        parts[split] = Selection(items, np.flatnonzero((ranks >= taken) & (ranks < taken + share)))
        taken += share
    return {"train": Selection(items, np.flatnonzero(ranks >= taken)), **parts}


def subset(items: Items, strata: NDArray[np.int64], size: int, *, seed: int) -> Items:
    """``size`` of the items, balanced over the strata as far as these have images."""
    if size >= len(items):
        return items
    order = np.lexsort((strata, ranks_in_strata(items, strata, seed=seed)))
    return Selection(items, np.sort(order[:size]))


def few_per_class(items: Items, strata: NDArray[np.int64], most: int, *, seed: int) -> Items:
    """At most ``most`` items of each stratum."""
    rows = np.flatnonzero(ranks_in_strata(items, strata, seed=seed) < most)
    return items if len(rows) == len(items) else Selection(items, rows)


def only_classes(source: Source, wanted: Sequence[str]) -> Source:
    """The source with images of some classes only, numbered in the order in which they are named.

    Args:
        source: split or not.
        wanted: labels, or numbers from 0 where no label reads so.

    Raises:
        UnknownNameError: there is no such class.
        ConfigError: a class is named twice.
    """
    numbers = [_class_number(word, source.labels) for word in wanted]
    for place, number in enumerate(numbers):
        if number in numbers[:place]:
            raise ConfigError(
                f"data.classes names {source.labels[number]!r} twice", hint="name each class once"
            )
    places = np.full(len(source.labels), -1, np.int64)
    places[numbers] = np.arange(len(numbers))
    splits: dict[str, Items] = {}
    for split, items in source.splits.items():
        chosen = Selection(items, np.flatnonzero(places[items.targets] >= 0))
        chosen.targets = places[chosen.targets]
        splits[split] = chosen
    return replace(source, labels=tuple(source.labels[number] for number in numbers), splits=splits)


def _class_number(word: str, labels: Sequence[str]) -> int:
    if word in labels:
        return list(labels).index(word)
    if word.isdecimal() and int(word) < len(labels):
        return int(word)
    raise UnknownNameError("class", word, labels)


def ranks_in_strata(items: Items, strata: NDArray[np.int64], *, seed: int) -> NDArray[np.int64]:
    """The place of each item among those of its stratum, in an order that is a function of (seed, name)."""
    names = [items.name(index) for index in range(len(items))]
    order = np.lexsort((np.array(names), name_keys(seed, names), strata)) if names else np.zeros(0, np.int64)
    ranks = np.zeros(len(names), np.int64)
    in_order = strata[order]
    ranks[order] = np.arange(len(names)) - np.searchsorted(in_order, in_order, side="left")
    return ranks


def manifest_text(source: Source, *, folder: Path | None) -> str:
    """The splits as CSV: path, label or mask, split.

    Paths are below ``folder`` where they name files there, else absolute or rows.

    Raises:
        DataError: the masks are no files.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label" if source.masks is None else "mask", "split"))
    for split, items in source.splits.items():
        for index in range(len(items)):
            told = (
                source.labels[items.targets[index]] if source.masks is None else _mask(items, index, folder)
            )
            writer.writerow((_located(items.name(index), folder), told, split))
    return text.getvalue()


def _mask(items: Items, index: int, folder: Path | None) -> str:
    """Where the mask of an image is."""
    base: object = items.items if isinstance(items, Selection) else items
    row = int(items.rows[index]) if isinstance(items, Selection) else index
    paths = getattr(base, "masks", None)
    if paths is None:
        raise DataError(
            "the masks of this data set are no files that a manifest could name",
            hint="keep the data set as it is; its splits are cut the same way each time",
        )
    return _located(paths[row], folder)


def write_manifest(source: Source, out: Path, *, root: Path | None) -> None:
    """Save the splits as a manifest that ``open_source`` reads again."""
    folder = None if root is None else _relative(root.resolve(), out.resolve().parent)
    write_atomic(out, manifest_text(source, folder=folder).encode("utf-8"))


def _relative(path: Path, start: Path) -> Path:
    import os

    return Path(os.path.relpath(path, start))


def _located(name: str, folder: Path | None) -> str:
    return name if folder is None else (folder / name).as_posix()
