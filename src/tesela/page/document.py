"""Pages from Jinja2 templates: one HTML file with its style, script and pictures.

A template is named ``package/file`` and lies in the package's folder ``templates``. Every value is escaped
unless it is ``Markup`` or states itself as HTML (``__html__``), so that no name, label or setting can become
a tag.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from tesela.core.version import __version__
from tesela.page.section import Section

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def read(name: str) -> str:
        package, _, file = name.partition("/")
        return (files(package) / "templates" / file).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = data_uri
    return environment


def render(template: str, **values: Any) -> Markup:
    """A template, such as ``tesela.page/table.html.j2``, with its values filled in."""
    return Markup(_environment().get_template(template).render(values))  # noqa: S704 - escaped by the template


def document(
    title: str,
    *,
    lead: str,
    tiles: Iterable[tuple[str, str, str]] = (),
    sections: Iterable[Section] = (),
    style: str = "",
    script: str = "",
) -> str:
    """A whole HTML page.

    Args:
        title: headline of the page and title of the window.
        lead: one sentence below it.
        tiles: the numbers that matter: name, value and note of each.
        sections: the parts of the page; those without a body are left out.
        style: CSS in addition to that of all pages.
        script: JavaScript at the end of the page.
    """
    return render(
        "tesela.page/document.html.j2",
        title=title,
        lead=lead,
        tiles=list(tiles),
        sections=[section for section in sections if section.body],
        style=Markup(css("chart.css") + css("style.css") + style),  # noqa: S704 - files of this package
        script=Markup(script),  # noqa: S704 - a file of this package
        version=__version__,
    )


def css(name: str) -> str:
    """A style sheet of this package."""
    return (files("tesela.page") / name).read_text(encoding="utf-8")


def data_table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> Markup:
    """A table that scrolls sideways on a phone.

    Args:
        columns: title and kind of each: ``n`` for numbers, ``name`` and ``text`` for words that may be long,
            ``meter`` for bars whose cells are percentages, ``swatch`` for colours; no head is shown if no
            column has a title.
        rows: the cells.
    """
    return render("tesela.page/table.html.j2", columns=columns, rows=rows)


def data_uri(picture: bytes, kind: str = "png") -> str:
    """A picture's file as a ``data:`` address, so that the page needs no other file.

    Args:
        picture: the file.
        kind: png or gif.
    """
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode("ascii")
