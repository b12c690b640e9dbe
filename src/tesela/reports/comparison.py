"""Comparison of runs: score and cost; runs that differ in their seed alone are a group.

Everything is read from run folders, no model is loaded. Odd: the standard deviation over seeds is that of a
sample (n - 1), and a single run has none.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tesela.core.config import build, read_yaml
from tesela.core.errors import TeselaError, UsageError
from tesela.core.files import read_json
from tesela.models.bundle import read_info
from tesela.models.catalog import family
from tesela.runs.folder import Run
from tesela.runs.settings import FREE_SETTINGS
from tesela.tasks.catalog import DEFAULT_TASK, find_task


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """One run.

    Attributes:
        run: its folder.
        model: name of the model.
        data: name of the data, with the split that was scored.
        seed: of the run.
        score: the task's model-selection metric on that split.
        parameters: number of weights.
        trainable: number of weights that were trained.
        flops: operations of one image's forward pass, two per multiply-add; None if the model has no closed
            form.
        seconds: wall time of the whole run.
        images_per_second: of prediction, as measured by the evaluation; None without one.
        training_images_per_second: of training.
        settings: the configuration by dotted name, without seed, folder and all that cannot change a result.
    """

    run: str
    model: str
    data: str
    seed: int
    score: float | None
    parameters: int
    trainable: int
    flops: int | None
    seconds: float
    images_per_second: float | None
    training_images_per_second: float
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Mean, standard deviation (None for a single run) and range of one number over runs."""

    mean: float
    deviation: float | None
    low: float
    high: float


COSTS = ("parameters", "trainable", "flops", "seconds", "images_per_second", "training_images_per_second")
MEASURES = ("score", *COSTS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Runs that differ only in their seed.

    Attributes:
        name: the settings that set it apart from the other groups.
        runs: its members.
        values: by a name of ``MEASURES``; measures that no member has are missing.
    """

    name: str
    runs: tuple[Contender, ...]
    values: dict[str, Spread]

    @property
    def data(self) -> str:
        """Data and split that its runs were scored on."""
        return self.runs[0].data

    @property
    def folders(self) -> str:
        """Names of its runs' folders."""
        return ", ".join(Path(run.run).name or run.run for run in self.runs)

    def mapping(self) -> dict[str, Any]:
        """As plain values."""
        first, kept = self.runs[0], ("run", "seed", "score", "seconds")
        members = [{name: getattr(run, name) for name in kept} for run in self.runs]
        about = {"name": self.name, "model": first.model, "data": first.data, "n": len(self.runs)}
        return {**about, **{name: asdict(spread) for name, spread in self.values.items()}, "runs": members}


def group_runs(paths: Iterable[Path | str], *, skipped: list[UsageError] | None = None) -> list[Group]:
    """The runs in these folders in groups of equal settings, the best group first.

    Args:
        paths: of the runs.
        skipped: where the errors of folders without a finished run go, so that the others are compared; such
            a folder ends the comparison if None.

    Raises:
        UsageError: a folder holds no finished run, none does, or one is named twice.
    """
    contenders: dict[Path, Contender] = {}
    for path in paths:
        place = Path(path).resolve()
        if place in contenders:
            raise UsageError(f"{path} is named twice", hint="name each run once")
        try:
            contenders[place] = read_run(Path(path))
        except UsageError as error:
            if skipped is None:
                raise
            skipped.append(error)
    if skipped and not contenders:
        raise skipped[0]
    if not contenders:
        raise UsageError("no run was named", hint="tesela compare RUN RUN ...")
    alike: dict[str, list[Contender]] = {}
    for contender in contenders.values():
        key = json.dumps([contender.data, contender.model, contender.settings], sort_keys=True, default=str)
        alike.setdefault(key, []).append(contender)
    members_of = [sorted(members, key=lambda run: run.seed) for members in alike.values()]
    names = group_names([members[0] for members in members_of])
    groups = [
        Group(name=name, runs=tuple(members), values=_values(members))
        for name, members in zip(names, members_of, strict=True)
    ]
    return sorted(groups, key=lambda group: -group.values["score"].mean if "score" in group.values else 1.0)


def by_data(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Groups by what they were scored on: scores on different data say nothing about each other."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.data, []).append(group)
    return found


def read_run(path: Path) -> Contender:
    """Score and cost of a finished run.

    Raises:
        UsageError: there is no run, or it is not finished.
    """
    run = Run(path)
    if not run.exists():
        raise UsageError(f"{path} is not a run folder", hint="name folders that tesela train --out wrote")
    if not run.result.is_file():
        raise UsageError(f"the run in {path} is not finished", hint=f"tesela train --out {path} --resume")
    result, settings = read_json(run.result), _flat(read_yaml(run.config))
    evaluation = read_json(run.evaluation) if run.evaluation.is_file() else {}
    return Contender(
        run=str(path),
        model=result["model"],
        data=f"{evaluation.get('data') or settings.get('data.source')}, {result['split']}",
        seed=int(settings.get("seed") or 0),
        score=result[find_task(result.get("task") or DEFAULT_TASK).score],
        parameters=result["parameters"],
        trainable=result.get("trainable") or result["parameters"],
        flops=_flops(run),
        seconds=result["seconds"],
        images_per_second=evaluation.get("images_per_second"),
        training_images_per_second=result["images_per_second"],
        settings={
            name: value for name, value in settings.items() if name not in FREE_SETTINGS and name != "seed"
        },
    )


def group_names(members: Sequence[Contender]) -> list[str]:
    """Each run's model and the settings in which it differs from the others; its folder if there are none."""
    differing = differing_settings(members)
    several = len({member.model for member in members}) > 1
    names = []
    for member in members:
        parts = [member.model] if several or len(members) == 1 else []
        parts += [f"{name.rstrip('_')}={_short(member.settings.get(name))}" for name in differing]
        names.append(" ".join(parts) or Path(member.run).name)
    return [
        name if names.count(name) == 1 else f"{name} ({Path(member.run).name})"
        for name, member in zip(names, members, strict=True)
    ]


def differing_settings(members: Sequence[Contender]) -> list[str]:
    """Dotted names of the settings, the model's own name apart, that are not the same in all runs."""
    everywhere = {name for member in members for name in member.settings if name != "model"}
    return sorted(
        name
        for name in everywhere
        if len({json.dumps(member.settings.get(name), default=str) for member in members}) > 1
    )


def settings_table(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of a table of the settings that differ: a row each, a column for each group."""
    members = [group.runs[0] for group in groups]
    return ["setting", *(str(number) for number in range(1, len(groups) + 1))], [
        [name.rstrip("_"), *(_short(member.settings.get(name)) for member in members)]
        for name in differing_settings(members)
    ]


def _values(members: Sequence[Contender]) -> dict[str, Spread]:
    values = {}
    for name in MEASURES:
        numbers = [float(value) for run in members if (value := getattr(run, name)) is not None]
        if numbers:
            deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
            mean, low, high = statistics.fmean(numbers), min(numbers), max(numbers)
            values[name] = Spread(mean=mean, deviation=deviation, low=low, high=high)
    return values


def _flops(run: Run) -> int | None:
    """Operations by the closed form of the bundle's configuration, computed without torch."""
    try:
        info = read_info(run.bundle)
        config: Any = build(family(info.architecture).config or dict, info.model)
        return int(config.flops(info.num_classes))
    except (TeselaError, AttributeError):
        return None


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _short(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 24 else f"...{text[-21:]}"
