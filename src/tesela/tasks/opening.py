"""Data opened for a task, without torch."""

from __future__ import annotations

from tesela.data.config import DataConfig
from tesela.data.open import open_source
from tesela.data.source import Source
from tesela.tasks.catalog import AUTO, find_task, task_for


def open_for_task(task: str, config: DataConfig) -> Source:
    """The data of a run, with its splits, checked for what the task learns of it.

    Args:
        task: a task's name, or auto.
        config: of the data.

    Raises:
        UsageError: nothing is there, or no task suits it.
        DataError: what is there cannot be trained on.
    """
    return open_source(
        config.source,
        config=config,
        targets=lambda found: task_for(task, found).targets(found),
        needs_labels=task == AUTO or find_task(task).needs_labels,
    )
