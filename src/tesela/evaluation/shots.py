"""Shots: a few images of each class, drawn several times over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tesela.core.errors import ConfigError, DataError
from tesela.data.random import bits

#: Classifiers of frozen features, as they are called on pages and in tables.
CLASSIFIERS = {"ridge": "ridge regression", "knn": "nearest neighbours", "probe": "linear probe"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ShotDraws:
    """Draws of images, so that a draw of more shots holds those of fewer.

    Attributes:
        shots: numbers of images of each class, ascending.
        rows: per draw (K, most shots) numbers of images, in the order in which they are taken.
    """

    shots: tuple[int, ...]
    rows: tuple[NDArray[np.int64], ...]

    def chosen(self, draw: int, shots: int) -> NDArray[np.int64]:
        """(K * shots,) numbers of the images of one draw, class by class."""
        return self.rows[draw][:, :shots].reshape(-1)

    def every(self) -> NDArray[np.int64]:
        """Numbers of all images that are drawn, each once, ascending."""
        return np.unique(np.concatenate([rows.reshape(-1) for rows in self.rows]))


def spread_text(found: Mapping[str, Any]) -> str:
    """Mean and deviation of one classifier over the draws, in per cent."""
    deviation = "" if found["deviation"] is None else f" ± {found['deviation'] * 100:.2f}"
    return f"{found['mean'] * 100:.2f}{deviation} %"


def check_shots(shots: Sequence[int], draws: int) -> tuple[int, ...]:
    """The numbers of shots in ascending order, each once.

    Raises:
        ConfigError: there is none, or one is below 1.
    """
    if not shots or min(shots) < 1:
        wrong = f"not {min(shots)}" if shots else "and none is given"
        raise ConfigError(f"shots must be 1 or more, {wrong}", hint="1,5,10,25,100 is usual")
    if draws < 1:
        raise ConfigError(f"draws must be 1 or more, not {draws}", hint="5 is usual")
    return tuple(sorted(set(shots)))


def draw_shots(
    targets: NDArray[np.int64],
    labels: Sequence[str],
    shots: Sequence[int],
    *,
    draws: int,
    seed: int,
    without: Sequence[int] = (),
) -> ShotDraws:
    """Images of each class, a function of (seed, draw, number of the image).

    Args:
        targets: (N,) class of each image.
        labels: names of the K classes.
        shots: how many of each class.
        draws: how many times.
        seed: another number draws others.
        without: numbers of images that cannot be read.

    Raises:
        ConfigError: a number of shots or of draws is below 1.
        DataError: a class has fewer images than shots; it is named.
    """
    wanted = check_shots(shots, draws)
    usable = np.ones(len(targets), bool)
    usable[list(without)] = False
    counts = np.bincount(targets[usable], minlength=len(labels))
    least = int(counts.argmin())
    if counts[least] < wanted[-1]:
        raise DataError(
            f"class {labels[least]!r} has {counts[least]} training images"
            f"{' that can be read' if len(without) else ''}, fewer than {wanted[-1]} shots",
            hint=f"ask for at most {counts[least]} shots, or add images of it"
            if counts[least]
            else "add training images of it, or leave the class out",
        )
    found = []
    for draw in range(draws):
        order = np.argsort(bits(seed, draw, np.arange(len(targets)), "few-shot")[:, 0], kind="stable")
        order = order[usable[order]]
        members = [order[targets[order] == number][: wanted[-1]] for number in range(len(labels))]
        found.append(np.stack(members).astype(np.int64))
    return ShotDraws(shots=wanted, rows=tuple(found))
