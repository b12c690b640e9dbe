"""The documentation builds into a site without a warning, and its pages load nothing from another host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]


def test_the_site_builds_and_needs_no_network(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        "docs",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.glob("*.html"))
    names = {path.name for path in pages}
    assert {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")} <= names
    for path in pages:
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        loaded = [tag.get("src") for tag in page.find_all(["script", "img", "iframe"])]
        loaded += [tag.get("href") for tag in page.find_all("link")]
        assert not [address for address in loaded if address and str(address).startswith(("http", "//"))]
    assert "Raises" in (tmp_path / "api.html").read_text(encoding="utf-8")
    assert "tesela train" in (tmp_path / "commands.html").read_text(encoding="utf-8")
