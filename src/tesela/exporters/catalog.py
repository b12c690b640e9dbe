"""Export formats by name: each a function of (source, out) that writes, checks, and reports."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tesela.core.errors import UnknownNameError, UsageError
from tesela.core.registry import lookup, names, register

register("exporter", "onnx", target="tesela.exporters.onnx:export_onnx", summary="ONNX graph")
register(
    "exporter", "hf", target="tesela.checkpoints.huggingface.write:export_huggingface", summary="transformers"
)
register("exporter", "timm", target="tesela.checkpoints.timm.write:export_timm", summary="timm")
register(
    "exporter", "jax", target="tesela.checkpoints.jax.write:export_jax", summary=".npz of the paper's code"
)


class ExportReport(Protocol):
    """What an export wrote, and how it was checked."""

    def lines(self) -> list[str]:
        """Lines for a person."""

    def mapping(self) -> dict[str, Any]:
        """All values, for JSON."""


def export_formats() -> list[str]:
    """All names."""
    return names("exporter")


def export_model(
    source: str | Path, *, to: str, out: str | Path | None = None, images: Sequence[Any] = ()
) -> ExportReport:
    """Write a model for another runtime or library, and check what was written.

    Args:
        source: a run, a bundle, or a foreign checkpoint.
        to: the format.
        out: the folder to write; beside or inside the source if None.
        images: for the comparison with torch, in formats that are compared by their outputs.

    Raises:
        UnknownNameError: no such format.
        UsageError: there is nothing at ``source``, ``out`` holds something else, or the format needs no
            images.
        WeightsError: what was written differs from the model, or there is no place for the model in that
            format.
    """
    if to not in export_formats():
        raise UnknownNameError("format", to, export_formats())
    exporter = lookup("exporter", to).load()
    compared = "images" in inspect.signature(exporter).parameters
    if images and not compared:
        raise UsageError(
            f"{to} needs no images: what is written is read back and compared tensor by tensor",
            hint="leave --data away",
        )
    report: ExportReport = exporter(source, out, images=images) if compared else exporter(source, out)
    return report
