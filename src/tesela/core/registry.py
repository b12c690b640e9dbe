"""Names for things that can be chosen: models, data sources, objectives, recipes, methods.

What a thing *is* (its configuration) is registered when its light module is imported; what it *does* is a
``module:attribute`` string and is imported only when somebody asks for it. So the command line can list and
describe everything without importing torch. Plug-ins register the same way through entry points.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, TypeVar

from tesela.core.errors import UnknownNameError

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One registered thing.

    Attributes:
        kind: the table it belongs to, such as ``model``.
        name: its name in that table.
        config: the configuration class, or None where it has none.
        target: ``module:attribute`` of the implementation.
        summary: one line for lists.
        facts: what else must be known before it is imported.
    """

    kind: str
    name: str
    config: type[Any] | None
    target: str
    summary: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Any:
        """Import and return the implementation."""
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)


_entries: dict[str, dict[str, Entry]] = {}
_plugged: set[str] = set()


def register(
    kind: str,
    name: str,
    *,
    target: str,
    config: type[Any] | None = None,
    summary: str = "",
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Add one entry.

    Raises:
        ValueError: the name is taken in this table, or ``target`` is not of the form ``module:attribute``.
    """
    table = _entries.setdefault(kind, {})
    if name in table:
        raise ValueError(f"{kind} {name!r} is registered twice: {table[name].target} and {target}")
    if ":" not in target:
        raise ValueError(f"target of {kind} {name!r} must read 'module:attribute', not {target!r}")
    table[name] = Entry(
        kind=kind, name=name, config=config, target=target, summary=summary, facts=facts or {}
    )


def registered_config(
    kind: str, name: str, *, target: str, summary: str = ""
) -> Callable[[type[_T]], type[_T]]:
    """Class decorator: register the decorated configuration class for ``target``."""

    def add(config: type[_T]) -> type[_T]:
        register(kind, name, target=target, config=config, summary=summary)
        return config

    return add


def lookup(kind: str, name: str) -> Entry:
    """The entry of that name.

    Raises:
        UnknownNameError: with the nearest names.
    """
    _load_plugins(kind)
    table = _entries.get(kind, {})
    if name not in table:
        raise UnknownNameError(kind, name, table)
    return table[name]


def entries(kind: str) -> list[Entry]:
    """All entries of a table in the order of their registration, those of other distributions last."""
    _load_plugins(kind)
    return list(_entries.get(kind, {}).values())


def names(kind: str) -> list[str]:
    """All names of a table, sorted."""
    _load_plugins(kind)
    return sorted(_entries.get(kind, {}))


def _load_plugins(kind: str) -> None:
    """Import, once, the modules under the entry point group ``tesela.<kind>s``."""
    if kind in _plugged:
        return
    _plugged.add(kind)
    for point in entry_points(group=f"tesela.{kind}s"):
        point.load()
