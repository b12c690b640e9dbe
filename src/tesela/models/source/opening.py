"""Earlier name of ``tesela.checkpoints.open``, for programs that import it from here.

Odd: looked up by text, since this room may not know that one; nothing of tesela imports this module.
"""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    return getattr(importlib.import_module("tesela.checkpoints.open"), name)
