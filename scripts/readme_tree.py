"""Writes the tree in README.md from the disk: each source file with the first sentence of its header.

    python scripts/readme_tree.py          write it
    python scripts/readme_tree.py --check  exit 1 if it is out of date

Folders whose files need no line each (tests, docs) are named with one line, kept in FOLDERS below.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "tesela"

# Top-level files and folders, in the order in which they are shown.
TOP = {
    "README.md": "this page",
    "CONTRIBUTING.md": "where to go to change something, and how a change is checked",
    "CHANGELOG.md": "what users see change",
    "LOG.md": "what was tried and measured, negative results included",
    "SECURITY.md": "how to report a weakness, and what is promised",
    "CITATION.cff": "how to cite",
    "LICENSE": "Apache 2.0",
    "Makefile": "demo, test, check, bench, web",
    "pyproject.toml": "packaging, extras, and the settings of every tool",
    "constraints.txt": "the versions that the tests ran with",
    ".ci/run": "what decides whether a change lands",
    "docs/*": "one page per task; their code blocks run in the tests",
    "examples/*": "programs to start from; they run in the tests",
    "benchmarks/*": "one script per question, peers side by side",
    "scripts/*": "long proofs and upkeep, started by hand",
    "tests/*": "a mirror of src, and house, contracts and parity",
}
STATIC = {"src/tesela/serve/static/*": "the page that the server shows"}


def headline(path: Path) -> str:
    """The first sentence of a file's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    line = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<!et al)\.\s", line)[0].rstrip(".:").replace("``", "")


def lines() -> list[str]:
    """The tree's lines: top level first, then every package and file of the product."""
    rows = dict(TOP)
    for path in sorted(
        SOURCE.rglob("*.py"), key=lambda path: (path.parent, path.name != "__init__.py", path.name)
    ):
        name = str(path.relative_to(ROOT))
        rows[name.removesuffix("__init__.py")] = headline(path)
    rows.update(STATIC)
    rows = {name: text for name, text in rows.items() if (ROOT / name.removesuffix("/*")).exists()}
    width = max(map(len, rows))
    return [f"{name:<{width}}  {text}" for name, text in rows.items()]


def main() -> int:
    """Write or check the block."""
    readme = ROOT / "README.md"
    old = readme.read_text(encoding="utf-8")
    block = "```tree\n" + "\n".join(lines()) + "\n```"
    new = re.sub(r"```tree\n.*?```", lambda _: block, old, flags=re.DOTALL)
    if "--check" in sys.argv:
        return 0 if new == old else 1
    readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
