"""The frame of a page: head, style, sections, tiles and pictures, all in one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from tesela.core.version import __version__


def document(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """A whole HTML page.

    Args:
        title: plain text.
        body: HTML.
        style: CSS beside that of all pages.
        script: JavaScript at the end of the page.
    """
    shared = (files("tesela.page") / "style.css").read_text(encoding="utf-8")
    programme = f"<script>\n{script}</script>\n" if script else ""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{shared}{style}</style>\n</head>\n<body>\n<main>\n{body}\n"
        f"<footer>Written by tesela {escape(__version__)}.</footer>\n</main>\n{programme}</body>\n</html>\n"
    )


def section(title: str, *parts: str, text: str = "") -> str:
    """A titled section; nothing where it has no parts."""
    body = "".join(parts)
    note = f'<p class="muted">{escape(text)}</p>' if text else ""
    return f"<section><h2>{escape(title)}</h2>{note}{body}</section>" if body else ""


def tiles(rows: Sequence[tuple[str, str, str]]) -> str:
    """Numbers that matter: (name, value, note) each."""
    return f'<dl class="tiles">{"".join(tile(*row) for row in rows)}</dl>'


def tile(name: str, value: str, note: str) -> str:
    """One number with its name above and a note below."""
    return f'<div class="tile"><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>'


def data_uri(data: bytes) -> str:
    """A PNG file as a ``data:`` address, so that the page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")
