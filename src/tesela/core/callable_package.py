"""A package that can be called like a function, for the three verbs that are rooms too: ``ts.train``, ``ts.explain``, ``ts.export``.

Odd: importing ``tesela.explain.rollout`` makes Python bind the name ``explain`` of the package ``tesela`` to the room, over the function of
the same name. So the room itself passes a call on to that function, and ``ts.explain(...)`` works before and after.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A module whose call goes to the function named in ``__call_target__`` (``module:function``)."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function."""
        module, _, function = str(self.__dict__["__call_target__"]).partition(":")
        return getattr(importlib.import_module(module), function)(*arguments, **options)


def make_callable(package: str, *, target: str) -> None:
    """Let calls of an imported package go to ``target``."""
    module = sys.modules[package]
    module.__dict__["__call_target__"] = target
    module.__class__ = CallablePackage
