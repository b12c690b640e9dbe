"""Optional packages: whether they are there, without importing them."""

from __future__ import annotations

import importlib.util


def installed(package: str) -> bool:
    """Whether a package can be imported, without importing it.

    A folder of its name where Python looks, such as an exported ``timm`` beside a notebook, is none.
    """
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return False
    return found is not None and found.origin is not None
