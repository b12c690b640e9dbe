"""Data of an evaluation: the run's own, or other data that is split in the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tesela.core.config import build, read_yaml
from tesela.core.errors import UsageError
from tesela.core.files import read_json
from tesela.data.config import DataConfig
from tesela.data.digest import data_digest
from tesela.data.open import open_source
from tesela.data.source import Source
from tesela.data.targets import Targets
from tesela.runs.folder import Run

CHANGED = (
    "the data has changed since the training: images that were trained on may now be in other splits, "
    "and scores too good"
)


def main_split(source: Source) -> str:
    """The split that a run's scores are about: test, or val without a test split."""
    return "test" if len(source.splits.get("test", ())) else "val"


def has_changed(run: Run, source: Source) -> bool:
    """Whether the run's own data is not what it was trained on, and its splits maybe cut otherwise."""
    recorded = read_json(run.choices).get("data") if run.choices.is_file() else None
    return bool(recorded) and recorded != data_digest(source)


def data_settings(run: Run | None, data: str | Source | None, limits: Mapping[str, Any]) -> DataConfig:
    """The run's own data, or other data split in the same way, so that test images stay such.

    Args:
        run: whose settings are taken, if it has any.
        data: other data.
        limits: of decoding, over the run's.

    Raises:
        UsageError: nothing says which data.
    """
    recorded = read_yaml(run.config).get("data", {}) if run is not None and run.exists() else {}
    recorded = {**recorded, **limits} if recorded or data is not None else {}
    if data is not None:
        other = data if isinstance(data, str) else data.name
        return build(DataConfig, {**recorded, "source": other, "subset": None, "per_class": None})
    if not recorded:
        raise UsageError(
            f"{'the model' if run is None else run.path} does not say what it was trained on",
            hint="name the data: tesela evaluate RUN DATA",
        )
    return build(DataConfig, recorded)


def open_data(
    config: DataConfig,
    targets: Callable[[Source], Targets] | None,
    *,
    own: bool,
    needs_labels: bool = True,
) -> Source:
    """The data with its splits.

    Args:
        config: from ``data_settings``.
        targets: as of ``open_source``.
        own: whether it is the run's own.
        needs_labels: as of ``open_source``.

    Raises:
        UsageError: nothing is there.
        DataError: what is there cannot be used.
    """
    try:
        return open_source(config.source, config=config, targets=targets, needs_labels=needs_labels)
    except UsageError as error:
        if not own:
            raise
        raise UsageError(
            f"the run's own data: {error.message}", hint="name where it is now: tesela evaluate RUN DATA"
        ) from error
