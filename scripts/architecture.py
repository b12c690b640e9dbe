"""Write docs/architecture.md and its diagram of the rooms from the source itself.

    python scripts/architecture.py          write them
    python scripts/architecture.py --check  exit 1 if they are out of date

The order of the rooms is that of the import contract in pyproject.toml; each line is the first sentence of a
docstring.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "tesela"
PAGE, DIAGRAM = ROOT / "docs" / "architecture.md", ROOT / "docs" / "images" / "rooms.svg"
WIDTH, HEIGHT, GAP = 860, 40, 12

INTRODUCTION = """# Architecture

<!-- written by scripts/architecture.py -->

A room is a folder of `src/tesela`. It imports only from rooms below it; rooms on one line do not know each
other. `make check` fails otherwise, and inside a room modules never import in a circle.

![The rooms of tesela, from the command line down to the foundation](images/rooms.svg)

- `core`, `imaging`, `page`, `runs`, `metrics`, `runtime`, `serve`, `cli` and the description of a task import
  no torch: a bundle runs on a small board, and `tesela --help` answers at once.
- Things that are chosen by name (families, tasks, data sources, attribution methods, foreign formats,
  exporters, recipes) are rows of a table in `core/registry.py`. Other distributions add rows under the entry
  points `tesela.models`, `tesela.heads`, `tesela.tasks`, `tesela.datasets`, `tesela.methods`,
  `tesela.formats` and `tesela.exporters`.
- A run goes through four phases, each of which hands on a frozen value: prepare, decide, fit, finish
  (`training/run.py`).
- A model is a backbone and a head. A task builds the head, the loss, the scorer, the results and its part of
  the report.

"""


def headline(path: Path) -> str:
    """The first sentence of a file's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    line = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<!et al)\.\s", line)[0].rstrip(".:").replace("``", "`")


def floors() -> list[list[str]]:
    """The rooms, from the roof down, those of one line together."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    return [[room.strip().removeprefix("tesela.") for room in line.split("|")] for line in layers]


def diagram() -> str:
    """The rooms as an SVG that is legible on light and dark pages."""
    rows = floors()
    height = len(rows) * (HEIGHT + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'font-family="system-ui, sans-serif" font-size="14">',
        "<title>The rooms of tesela; each imports only from those below</title>",
        "<style>rect{fill:#eef3f6;stroke:#9db4c0}text{fill:#1c2b33}.quiet{fill:#51656f;font-size:12px}"
        "@media (prefers-color-scheme: dark){rect{fill:#20303a;stroke:#4d6675}text{fill:#e8eef1}"
        ".quiet{fill:#a9bac3}}</style>",
    ]
    for number, rooms in enumerate(rows):
        top, width = GAP + number * (HEIGHT + GAP), (WIDTH - GAP * (len(rooms) + 1)) / len(rooms)
        for place, room in enumerate(rooms):
            left = GAP + place * (width + GAP)
            parts.append(
                f'<rect x="{left:.0f}" y="{top}" width="{width:.0f}" height="{HEIGHT}" rx="6"/>'
                f'<text x="{left + 14:.0f}" y="{top + 25}">{room}</text>'
            )
            if len(rooms) == 1:
                said = escape(headline(SOURCE / room / "__init__.py").replace("`", ""))
                parts.append(f'<text class="quiet" x="{left + 130:.0f}" y="{top + 25}">{said}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def page() -> str:
    """The whole page: introduction, a line for each room, and the tree."""
    rooms = ["| room | contents |", "|---|---|"]
    rooms += [
        f"| `{room}` | {headline(SOURCE / room / '__init__.py')} |" for line in floors() for room in line
    ]
    tree = ["## Every file", ""]
    for folder in sorted({path.parent for path in SOURCE.rglob("*.py")}):
        files = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
        about = headline(folder / "__init__.py") if (folder / "__init__.py").is_file() else ""
        tree += [f"### `{folder.relative_to(ROOT / 'src')}`", "", f"{about}.", ""] if about else []
        if files:
            tree += ["| file | contents |", "|---|---|"]
            tree += [f"| `{path.name}` | {headline(path)} |" for path in files] + [""]
    return INTRODUCTION + "\n".join(["## Rooms", "", *rooms, "", *tree]).rstrip() + "\n"


def main() -> int:
    """Write or check both files."""
    wanted = {PAGE: page(), DIAGRAM: diagram()}
    if "--check" in sys.argv:
        stale = [
            path for path, text in wanted.items() if not path.is_file() or path.read_text("utf-8") != text
        ]
        return 1 if stale else 0
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
