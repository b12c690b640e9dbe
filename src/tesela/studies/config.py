"""Configuration of a study, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tesela.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyConfig:
    """A study as it was asked for; what is left empty is chosen by its kind.

    Attributes:
        kind: name of the kind.
        data: DATA of the command line.
        models: families (vit, hybrid, cct, cnn) or names of models, each perhaps with settings:
            ``vit_nano:depth=2``.
        labels: training images of each class.
        seeds: number of seeds.
        first_seed: the first of them.
        epochs: training lengths in epochs; excludes ``minutes``.
        minutes: training lengths in minutes, for everything that a compared way of training needs.
        pretrain_share: share of the minutes that goes into pre-training.
        settings: further settings of every run, by dotted name as in ``tesela train``.
    """

    kind: str
    data: str
    models: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    seeds: int = 3
    first_seed: int = 0
    epochs: tuple[int, ...] = ()
    minutes: tuple[float, ...] = ()
    pretrain_share: float = 0.5
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"seeds must be 1 or more, not {self.seeds}", hint="3 is usual")
        if self.first_seed < 0:
            raise ConfigError(
                f"first_seed must be 0 or more, not {self.first_seed}", hint="leave it out to begin with 0"
            )
        if self.epochs and self.minutes:
            raise ConfigError("epochs and minutes exclude one another", hint="give one of them")
        for name in ("labels", "epochs", "minutes"):
            values = getattr(self, name)
            if any(not value > 0 for value in values):
                raise ConfigError(f"{name} must be above 0, not {min(values)}", hint="give larger numbers")
        for name in ("models", "labels", "epochs", "minutes"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                twice = next(value for value in values if values.count(value) > 1)
                raise ConfigError(f"{name} names {twice} twice", hint="name each once")
        if not 0 < self.pretrain_share < 1:
            raise ConfigError(
                f"pretrain_share must lie between 0 and 1, not {self.pretrain_share}", hint="0.5 is usual"
            )
        if "seed" in self.settings:
            raise ConfigError("a study has seeds of its own", hint="give their number: --seeds 3")
        for name in (
            "out",
            "epochs",
            "minutes",
            "model",
            "from_",
            "data.source",
            "data.per_class",
        ):
            if name in self.settings:
                raise ConfigError(
                    f"{name.rstrip('_')} is set by the study", hint="leave it out; see: tesela study --help"
                )

    @property
    def seed_numbers(self) -> range:
        """The seeds."""
        return range(self.first_seed, self.first_seed + self.seeds)

    @property
    def budgets(self) -> tuple[tuple[str, float], ...]:
        """The training lengths: ``epochs`` or ``minutes``, and how many."""
        return tuple(("epochs", value) for value in self.epochs) + tuple(
            ("minutes", value) for value in self.minutes
        )

    @property
    def budget(self) -> tuple[str, float]:
        """The only training length.

        Raises:
            ConfigError: there are several.
        """
        if len(self.budgets) != 1:
            raise ConfigError(
                f"study {self.kind} takes one training length, not {len(self.budgets)}",
                hint="several are compared by: tesela study compute",
            )
        return self.budgets[0]
