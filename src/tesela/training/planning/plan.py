"""Plan of a run, shown before its first step: images, steps, time, memory, disk.

A run that cannot be saved is refused here rather than after an hour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tesela.core.errors import StorageError
from tesela.core.files import free_bytes
from tesela.core.format import byte_size, duration

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The numbers of a run before it begins.

    Attributes:
        out: the run folder.
        batch_size: images per step.
        steps: of the whole run.
        epochs: of the whole run, with a fraction where a time budget ends within one.
        seconds: estimated time of the whole run, from the command to the report.
        precision: number format and attention kernel, and how they were chosen.
        device: where it computes, with threads.
        memory: estimated bytes of weights, optimizer and activations.
        memory_free: bytes that are free on the device.
        disk: bytes that the run folder will take.
        features: where and how long the frozen body's features are computed; empty where they are not kept.
    """

    out: Path
    batch_size: int
    steps: int
    epochs: float
    seconds: float
    precision: str
    device: str
    memory: int
    memory_free: int
    disk: int
    features: str = ""

    def check(self) -> None:
        """Refuse a run that will not fit on the disk.

        Raises:
            StorageError: with needed and free bytes.
        """
        free = free_bytes(self.out)
        if 0 <= free < self.disk:
            raise StorageError(
                f"no space for the run in {self.out}: {self.disk:,} bytes needed, {free:,} free",
                hint="free some space or choose another folder with --out",
            )

    def rows(self) -> list[tuple[str, str]]:
        """What was chosen and measured, line by line."""
        short = "  (more than is free)" if self.memory > self.memory_free else ""
        return [
            *([("features", self.features)] if self.features else []),
            (
                "steps",
                f"{self.steps:,} of {self.batch_size} images, {self.epochs:g} "
                f"epoch{'s' if self.epochs != 1 else ''}",
            ),
            ("time", f"about {duration(self.seconds)}"),
            ("computing", f"{self.device}, {self.precision}"),
            ("memory", f"about {byte_size(self.memory)} of {byte_size(self.memory_free)} free{short}"),
            ("disk", f"{byte_size(self.disk)} of {byte_size(free_bytes(self.out))} free in {self.out}"),
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """The part of a plan that is known before anything is measured.

    Attributes:
        data: name of the data.
        images: number of images by split.
        classes: number of classes.
        model: name of the model.
        parameters: number of its weights.
        trainable: how many of them are trained.
        tuning: how it is trained where not every weight is, such as ``head``; else empty.
        view: height, width and channels that the model sees.
        notes: further remarks, each with its label.
    """

    data: str
    images: Mapping[str, int]
    classes: int
    model: str
    parameters: int
    trainable: int
    tuning: str
    view: tuple[int, int, int]
    notes: Sequence[tuple[str, str]] = ()

    def rows(self) -> list[tuple[str, str]]:
        """Label and text, line by line."""
        height, width, channels = self.view
        counts = ", ".join(f"{count:,} {split}" for split, count in self.images.items())
        share = 100 * self.trainable / max(self.parameters, 1)
        trained = f"{self.tuning}: {self.trainable:,} of {self.parameters:,} parameters ({share:.3g} %)"
        return [
            ("data", f"{self.data}: {counts}" + (f"; {self.classes} classes" if self.classes else "")),
            ("model", f"{self.model}, {self.parameters:,} parameters, images of {height}x{width}x{channels}"),
            *([("trained", trained)] if self.tuning else []),
            *self.notes,
        ]


def plan_table(rows: Sequence[tuple[str, str]], *, title: str | None = None) -> Table:
    """Rows of label and text, for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", min_width=10)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
