"""Plain tables and single lines for a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tesela.core.pathnames import path_text

if TYPE_CHECKING:
    from rich.table import Table

#: Characters that end lines, command terminals or turn the direction of what follows.
UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def line_text(text: str | Path) -> str:
    """A path, or a text, on one line that commands no terminal.

    Bytes of the characters of UNSHOWN are written as ``path_text`` writes those of names that are no UTF-8;
    ``text_path`` reads them back.
    """
    shown = path_text(text) if isinstance(text, Path) else text
    return UNSHOWN.sub(lambda match: "".join(f"\\x{byte:02x}" for byte in match[0].encode()), shown)


def name_value_grid(rows: Iterable[tuple[str, str]]) -> Table:
    """Names and values side by side."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for name, value in rows:
        grid.add_row(Text(name), Text(value))
    return grid
