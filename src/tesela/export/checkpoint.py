"""Other libraries' checkpoints by the word after ``--to``; each module is imported when its format is asked for."""

from __future__ import annotations

import importlib
from pathlib import Path

from tesela.core.errors import UnknownNameError
from tesela.export.foreign import CheckpointReport

#: Word after ``--to`` -> the function that writes it.
CHECKPOINTS = {
    "hf": "tesela.export.huggingface:export_huggingface",
    "timm": "tesela.export.timm:export_timm",
    "jax": "tesela.export.jax:export_jax",
}


def export_checkpoint(source: str | Path, *, to: str, out: str | Path | None = None) -> CheckpointReport:
    """Write a run, bundle or checkpoint in the form of another library.

    Raises:
        UnknownNameError: no such format.
        UsageError: there is nothing at ``source``, or ``out`` holds something else.
        WeightsError: the library has no place for the model, or what was written reads back differently.
    """
    if to not in CHECKPOINTS:
        raise UnknownNameError("export format", to, CHECKPOINTS)
    module, _, name = CHECKPOINTS[to].partition(":")
    report: CheckpointReport = getattr(importlib.import_module(module), name)(source, out)
    return report
