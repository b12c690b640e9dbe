"""Section of a page: a title, a note and HTML."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Self


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One titled part of a page.

    Attributes:
        title: plain text.
        note: plain text below the title.
        body: HTML; a section without it is left out.
    """

    title: str
    note: str = ""
    body: str = ""

    @classmethod
    def of(cls, title: str, *parts: str, text: str = "") -> Self:
        """A section of several pieces of HTML."""
        return cls(title=title, note=text, body="".join(parts))

    @classmethod
    def none(cls) -> Self:
        """A section that is left out."""
        return cls(title="")

    def html(self) -> str:
        """The section as HTML; nothing without a body."""
        if not self.body:
            return ""
        note = f'<p class="muted">{escape(self.note)}</p>' if self.note else ""
        return f"<section><h2>{escape(self.title)}</h2>{note}{self.body}</section>"
