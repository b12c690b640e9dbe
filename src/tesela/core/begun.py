"""Folders that a long command fills, with what was asked for at the beginning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tesela.core.errors import ConfigError

#: Longest value that is shown; of longer ones, such as digests, the name says enough.
_SHOWN = 40


def refuse_other_settings(folder: object, begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to go on in a folder that was begun with other settings.

    Args:
        folder: of the command's output, or its address.
        begun: settings by name, as they were written down.
        wanted: settings by name, as they are given now.

    Raises:
        ConfigError: naming those that differ.
    """
    other = []
    for name, value in wanted.items():
        before = begun.get(name)
        if before != value:
            shown = f"{before} to {value}"
            other.append(f"{name} ({shown})" if len(shown) <= _SHOWN else name)
    if other:
        raise ConfigError(
            f"{folder} was begun with other settings: {', '.join(other)}",
            hint="give what was given then, or another --out",
        )
