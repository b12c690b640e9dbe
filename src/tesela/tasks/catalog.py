"""Tasks by name, and the task that suits a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tesela.core.errors import DataError, UsageError
from tesela.core.registry import lookup, names, register
from tesela.tasks.classification.config import ClassificationConfig
from tesela.tasks.pretraining.config import PretrainConfig
from tesela.tasks.segmentation.config import SegmentationConfig

if TYPE_CHECKING:
    from tesela.data.source import Source
    from tesela.tasks.task import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class NoSettings:
    """Settings of an objective that has none."""


AUTO = "auto"
#: The task of runs that were written before runs named theirs.
DEFAULT_TASK = "classify"

register(
    "task",
    "classify",
    target="tesela.tasks.classification.task:Classification",
    config=ClassificationConfig,
    summary="one label per image",
)
register(
    "task",
    "segment",
    target="tesela.tasks.segmentation.task:SegmentationTask",
    config=SegmentationConfig,
    summary="a class for each pixel",
)
register(
    "task",
    "pretrain",
    target="tesela.tasks.pretraining.task:Pretraining",
    config=PretrainConfig,
    summary="images alone, before few labels are learned",
)


def task_names() -> list[str]:
    """All tasks, sorted."""
    return names("task")


def objective_config(name: str) -> type[Any]:
    """The settings of a task's objective, a dataclass; found without NumPy or torch.

    Raises:
        UnknownNameError: with the nearest names.
    """
    return lookup("task", name).config or NoSettings


def find_task(name: str) -> Task:
    """The task of that name.

    Raises:
        UnknownNameError: with the nearest names.
    """
    task: Task = lookup("task", name).load()()
    return task


def task_for(name: str, source: Source) -> Task:
    """The task of that name; ``auto`` takes the only one that suits the source.

    Raises:
        UnknownNameError: no such task.
        DataError: none suits the source.
        UsageError: several do.
    """
    if name != AUTO:
        return find_task(name)
    suited = [task for task in map(find_task, task_names()) if task.suits(source)]
    if not suited:
        raise DataError(
            f"no task suits {source.name}: it has neither labels nor other targets",
            hint="name the task: tesela train DATA --task " + "|".join(task_names()),
        )
    if len(suited) > 1:
        listed = ", ".join(task.name for task in suited)
        raise UsageError(
            f"several tasks suit {source.name}: {listed}", hint="name one: tesela train DATA --task NAME"
        )
    return suited[0]
