"""Section of a page: a title, a note and HTML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class HasHtml(Protocol):
    """Anything that states itself as HTML: ``markupsafe.Markup``, a chart."""

    def __html__(self) -> str:
        """The HTML, which is not escaped again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One titled part of a page.

    Attributes:
        title: plain text.
        note: plain text below the title.
        body: HTML, or text, which is escaped; a section without a body is left out of the page.
    """

    title: str
    note: str = ""
    body: HasHtml | str = ""
