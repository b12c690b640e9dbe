"""Stratified validation and test splits, reproducible and independent of disk order.

Each item gets a random word from (split_seed, its name); within a class the items are ranked by it, and the
first ones go to test, the next to val. A class of three or more images gives at least one to each split that
is cut; smaller ones keep what they can for training. Odd: a subset takes the best-ranked of every class in
turn, so it is balanced and larger subsets contain the smaller ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tesela.core.errors import ConfigError, UnknownNameError
from tesela.data.random import name_keys
from tesela.data.source import SPLITS, Items, Selection, Source
from tesela.data.sources.tables.labels import label_text
from tesela.data.sources.twins import twin_groups

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
    shares = {split: fractions.get(split, 0.0) for split in missing}
    twins = twin_groups(train) if any(shares.values()) else []
    parts = cut(train, targets.strata(train), shares, seed=seed, twins=twins)
    splits = {split: parts[split] if split in parts else source.splits[split] for split in SPLITS}
    return source.with_splits(splits, cut=tuple(missing))


def cut(
    items: Items,
    strata: NDArray[np.int64],
    fractions: Mapping[str, float],
    *,
    seed: int,
    twins: Sequence[NDArray[np.int64]] = (),
) -> dict[str, Items]:
    """``train`` and the splits named in ``fractions``; every part keeps the items' own order.

    Args:
        items: of the training split.
        strata: (N,) of each item.
        fractions: share of each split.
        seed: another number gives another cut.
        twins: rows that have to stay together; they count as one, and where their strata differ they stay in
            train.
    """
    leader = np.arange(len(items))
    for group in twins:
        first = min(group.tolist(), key=items.name)
        leader[group] = first if len(np.unique(strata[group])) == 1 else -1
    single = np.flatnonzero(leader == np.arange(len(items)))
    names = [*sorted(fractions), "train"]  # test before val: a validation share does not change the test set
    side = np.full(len(items), len(fractions))
    side[single] = _sides(Selection(items, single), strata[single], fractions, seed=seed)
    side = np.where(leader >= 0, side[leader], len(fractions))
    return {name: Selection(items, np.flatnonzero(side == place)) for place, name in enumerate(names)}


def _sides(
    items: Items, strata: NDArray[np.int64], fractions: Mapping[str, float], *, seed: int
) -> NDArray[np.int64]:
    """The place of each item's split among the sorted ones, and their number for train."""
    ranks = ranks_in_strata(items, strata, seed=seed)
    counts = np.bincount(strata)[strata] if len(items) else np.zeros(0, np.int64)
    taken = np.zeros(len(items), np.int64)
    sides = np.full(len(items), len(fractions))
    for place, split in enumerate(sorted(fractions)):
        share = np.floor(counts * fractions[split] + 0.5).astype(np.int64)
        share = np.where((share == 0) & (fractions[split] > 0) & (counts >= 3), 1, share)
        share = np.minimum(share, np.maximum(counts - taken - 1, 0))
        sides[(ranks >= taken) & (ranks < taken + share)] = place
        taken += share
    return sides


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
    alike = [label_text(label) for label in labels]
    if word in labels or label_text(word) in alike:
        return list(labels).index(word) if word in labels else alike.index(label_text(word))
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
