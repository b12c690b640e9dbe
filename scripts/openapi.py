"""Writes docs/openapi.json: the API of a server with a model of every task.

python scripts/openapi.py           # writes it
python scripts/openapi.py --check   # exit code 1 if the page is another
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tesela.serve.app import create_app
from tesela.tasks.catalog import find_task

PAGE = Path(__file__).resolve().parents[1] / "docs/openapi.json"
TASKS = ("classify", "segment")


def document() -> str:
    """The page's text."""
    app = create_app({}, tasks=[find_task(name) for name in TASKS])
    return json.dumps(app.openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(PAGE.read_text("utf-8") != document())
    PAGE.write_text(document(), "utf-8")
