"""Networks, their sizes, and bundles.

Descriptions (``config.py``, ``catalog.py``) import without torch; networks need it. Odd: this module can be
called, for ``tesela.models`` is both this room and the function that lists it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """The module, which lists the models where it is called."""

    def __call__(self, pattern: str | None = None) -> list[dict[str, Any]]:
        """As ``tesela.answers.models``.

        Args:
            pattern: a family such as resnet, part of a name, or a glob such as ``vit_s*``; all if None.
        """
        from tesela.models.listing import list_models

        return list_models(pattern)


sys.modules[__name__].__class__ = _Room
