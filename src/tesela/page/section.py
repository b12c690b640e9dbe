"""Section of a page: a title, a note and HTML."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One titled part of a page.

    Attributes:
        title: plain text.
        note: plain text below the title.
        body: ``Markup``, or plain text, which is escaped; a section without a body is left out of the page.
    """

    title: str
    note: str = ""
    body: str = ""
