"""One engine of OpenVINO for the whole process."""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def openvino_core() -> Any:
    """The process's one ``openvino.Core``, which lives as long as the process.

    On processors with AMX each engine gives the thread that first uses it a signal stack of its own. When
    engines end in another order than they began, or on another thread, OpenVINO (2026.4) leaves the thread
    with a stack that is freed already: the next signal with a handler (Ctrl-C, a child that ends) then kills
    the process.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    import openvino

    return openvino.Core()
