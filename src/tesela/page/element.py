"""Builder of single HTML and SVG elements that escapes its texts.

Whole pieces of HTML are templates.
"""

from __future__ import annotations

from markupsafe import Markup

_ATTRIBUTE, _EMPTY, _FULL = Markup(' {}="{}"'), Markup("<{}{}/>"), Markup("<{0}{1}>{2}</{0}>")


def element(tag: str, kind: str = "", *children: str, **attributes: str | float) -> Markup:
    """One element.

    Args:
        tag: its name.
        kind: its CSS classes.
        *children: text, which is escaped, or ``Markup``.
        **attributes: by name, with ``_`` for ``-``; numbers are rounded to two decimals.
    """
    named: dict[str, str | float] = {"class": kind} if kind else {}
    written = Markup("").join(
        _ATTRIBUTE.format(name.replace("_", "-"), value if isinstance(value, str) else f"{round(value, 2):g}")
        for name, value in (named | attributes).items()
    )
    inside = Markup("").join(children)
    return _FULL.format(tag, written, inside) if children else _EMPTY.format(tag, written)
