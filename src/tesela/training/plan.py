"""Plan of a run, shown before its first step: images, steps, time, memory, disk.

A run that cannot be saved is refused here rather than after an hour.
"""

from __future__ import annotations

from collections.abc import Mapping
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
        data: name of the data.
        images: number of images by split.
        classes: number of classes.
        model: name of the model.
        parameters: number of its weights.
        view: height, width and channels that the model sees.
        batch_size: images per step.
        steps: of the whole run.
        epochs: of the whole run, with a fraction where a time budget ends within one.
        seconds: estimated time of all steps and validations.
        precision: number format and attention kernel, and how they were chosen.
        device: where it computes, with threads.
        memory: estimated bytes of weights, optimizer and activations.
        memory_free: bytes that are free on the device.
        disk: bytes that the run folder will take.
        trainable: how many weights are trained; all if None.
        tuning: how it is trained where not every weight is, such as ``head``; else empty.
        features: where and how long the frozen body's features are computed; empty where they are not kept.
        notes: remarks on how the data was read.
    """

    out: Path
    data: str
    images: Mapping[str, int]
    classes: int
    model: str
    parameters: int
    view: tuple[int, int, int]
    batch_size: int
    steps: int
    epochs: float
    seconds: float
    precision: str
    device: str
    memory: int
    memory_free: int
    disk: int
    trainable: int | None = None
    tuning: str = ""
    features: str = ""
    notes: tuple[str, ...] = ()

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
        """Label and text, line by line."""
        height, width, channels = self.view
        short = "  (more than is free)" if self.memory > self.memory_free else ""
        return [
            (
                "data",
                f"{self.data}: "
                + ", ".join(f"{count:,} {split}" for split, count in self.images.items())
                + f"; {self.classes} classes",
            ),
            *(("note", note) for note in self.notes),
            ("model", f"{self.model}, {self.parameters:,} parameters, images of {height}x{width}x{channels}"),
            *self._tuned(),
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

    def _tuned(self) -> list[tuple[str, str]]:
        if not self.tuning:
            return []
        trainable = self.parameters if self.trainable is None else self.trainable
        share = 100 * trainable / max(self.parameters, 1)
        rows = [
            ("trained", f"{self.tuning}: {trainable:,} of {self.parameters:,} parameters ({share:.3g} %)")
        ]
        return [*rows, ("features", self.features)] if self.features else rows

    def table(self) -> Table:
        """For a terminal."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title="Plan", title_justify="left", show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for row in self.rows():
            table.add_row(*(Text(cell) for cell in row))
        return table
