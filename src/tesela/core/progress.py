"""Progress bars and messages on standard error.

rich bars on a terminal, plain lines elsewhere.

Nothing here prints to standard output: that belongs to results. ``NO_COLOR`` is respected by rich.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Bar(Protocol):
    """What a long loop tells about itself."""

    def advance(self, steps: int = 1, **fields: float) -> None:
        """Move on by ``steps`` and show ``fields`` (loss, accuracy, images/s)."""

    def resize(self, total: int) -> None:
        """The loop turned out to have ``total`` steps."""

    def line(self, text: str) -> None:
        """Leave a line of text above the bar."""


class SilentBar:
    """Shows nothing."""

    def advance(self, steps: int = 1, **fields: float) -> None:
        """Do nothing."""

    def resize(self, total: int) -> None:
        """Do nothing."""

    def line(self, text: str) -> None:
        """Do nothing."""


def stderr_console(*, quiet: bool = False) -> Console:
    """A console on standard error; 100 columns where it is no terminal."""
    console = Console(stderr=True, quiet=quiet, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 100
    return console


@contextlib.contextmanager
def progress_bar(console: Console | None, label: str, total: int) -> Iterator[Bar]:
    """A bar over ``total`` steps.

    Drawn on a terminal, a plain line every 10 s elsewhere, nothing without a console.
    """
    if console is None or console.quiet:
        yield SilentBar()
    elif not console.is_terminal:
        yield PlainBar(console, label, total)
    else:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            yield RichBar(progress, label, total)


class RichBar:
    """A bar of rich, redrawn at most ten times a second."""

    def __init__(self, progress: Progress, label: str, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task(label, total=total, text="")

    def advance(self, steps: int = 1, **fields: float) -> None:
        """Move on and show the fields behind the bar."""
        self._progress.update(self._task, advance=steps, text=describe_fields(fields))

    def resize(self, total: int) -> None:
        """Change the bar's length."""
        self._progress.update(self._task, total=total)

    def line(self, text: str) -> None:
        """Print above the bar."""
        self._progress.console.print(text, markup=False, soft_wrap=True)


class PlainBar:
    """A line of text at most every ten seconds and at the end."""

    def __init__(self, console: Console, label: str, total: int, *, every: float = 10.0) -> None:
        self._console, self._label, self._total, self._every = console, label, total, every
        self._done = 0
        self._last = time.monotonic()

    def advance(self, steps: int = 1, **fields: float) -> None:
        """Move on; print when it is time."""
        self._done += steps
        now = time.monotonic()
        if now - self._last >= self._every or self._done >= self._total:
            self._last = now
            self._console.print(
                f"{self._label} {self._done}/{self._total} {describe_fields(fields)}".rstrip()
            )

    def resize(self, total: int) -> None:
        """Count to another number."""
        self._total = total

    def line(self, text: str) -> None:
        """Print it; the next line of the bar waits its time from now on."""
        self._last = time.monotonic()
        self._console.print(text, markup=False, soft_wrap=True)


def describe_fields(fields: Mapping[str, float]) -> str:
    """``{"loss": 0.5}`` as ``loss 0.500``, large values without decimals."""
    return "  ".join(
        f"{name.replace('_', ' ')} {value:,.{0 if abs(value) >= 100 else 3}f}"
        for name, value in fields.items()
    )
