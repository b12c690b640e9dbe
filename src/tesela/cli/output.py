"""Output of verbs: results for people, or one JSON object as the last line.

With ``--json`` the text for people moves to standard error, so that standard output can be read by a program.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from tesela.core.files import json_text
from tesela.core.pathnames import path_text

_to_stderr = False
#: Unreadable images that are named one by one; the files of results hold all.
MOST_NAMED = 100


def use_json(active: bool) -> None:
    """Send text for people to standard error from now on (or back to standard output)."""
    global _to_stderr
    _to_stderr = active


def say(*parts: Any, markup: bool = False) -> None:
    """Show text or a rich renderable to the person at the terminal."""
    console = Console(
        stderr=_to_stderr,
        highlight=False,
        emoji=False,
        soft_wrap=all(isinstance(part, str) for part in parts),
    )
    if not console.is_terminal and not console.soft_wrap:
        console.width = max(console.width, 100)
    console.print(*parts, markup=markup)


def note(text: str) -> None:
    """A remark about the work itself, always on standard error."""
    print(text, file=sys.stderr, flush=True)


def note_unreadable(lines: Iterable[str]) -> None:
    """A remark for each image that could not be read; of very many, the first and how many more there are."""
    shown = list(lines)
    for line in shown[:MOST_NAMED]:
        note(line)
    if len(shown) > MOST_NAMED:
        note(f"... and {len(shown) - MOST_NAMED:,} more")


def result(value: Mapping[str, Any], active: bool = True) -> None:
    """Print ``value`` as one line of JSON on standard output, if ``active`` (the verb's ``--json``)."""
    if active:
        utf8 = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "") == "utf8"
        print(json_text(value, ascii_only=not utf8, default=_plain, allow_nan=False), flush=True)


def raw(text: str) -> None:
    """Print text on standard output exactly as it is."""
    print(text, flush=True)


def _plain(value: Any) -> Any:
    """What JSON has no form for: paths, dataclasses, NumPy scalars and arrays."""
    if isinstance(value, Path):
        return path_text(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")
