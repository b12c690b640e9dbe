"""Other libraries' checkpoints by the word after ``--to``; each module is imported when its format is asked for."""

from __future__ import annotations

import importlib
from pathlib import Path

from tesela.checkpoints.write import CheckpointReport
from tesela.core.errors import UnknownNameError

#: Word after ``--to`` -> the function that writes it.
CHECKPOINTS = {
    "hf": "tesela.checkpoints.huggingface.write:export_huggingface",
    "timm": "tesela.checkpoints.timm.write:export_timm",
    "jax": "tesela.checkpoints.jax.write:export_jax",
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
