"""Settings of the documentation's site; ``make docs`` builds it, without a network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "src"))

project = "tesela"
author = "the tesela contributors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "tesela"
html_static_path: list[str] = []
exclude_patterns = ["_generated"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
suppress_warnings = ["myst.xref_missing"]

VERBS = (
    *(
        "train",
        "evaluate",
        "predict",
        "explain",
        "inspect",
        "compare",
        "study",
        "export",
        "convert",
        "serve",
        "bench",
    ),
    *("demo", "doctor", "models", "data check", "data show", "data split", "label suggest"),
)


def write_commands() -> None:
    """Write the help of every verb as a page."""
    parts = []
    for verb in VERBS:
        command = [sys.executable, "-m", "tesela", *verb.split(), "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE.parent / "src")
        parts.append(f"## tesela {verb}\n\n```text\n{done.stdout.rstrip()}\n```\n")
    (HERE / "_generated").mkdir(exist_ok=True)
    (HERE / "_generated" / "commands.md").write_text("\n".join(parts), encoding="utf-8")


write_commands()
