"""Static files of the web page: a closed list of addresses."""

from __future__ import annotations

from importlib import resources

PARTS = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/static/app.css": ("app.css", "text/css; charset=utf-8"),
    "/static/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/static/icon.svg": ("icon.svg", "image/svg+xml"),
}


def page_files() -> dict[str, tuple[str, bytes]]:
    """Address -> (content type, content)."""
    folder = resources.files("tesela.serve") / "static"
    return {path: (kind, (folder / name).read_bytes()) for path, (name, kind) in PARTS.items()}
