"""Export formats by name: each a function of (source, out) that writes, checks, and reports."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Protocol

from tesela.core.errors import UnknownNameError, UsageError
from tesela.core.registry import lookup, names, register
from tesela.exporters.options import PRECISIONS, ExportOptions

register("exporter", "onnx", target="tesela.exporters.onnx:export_onnx", summary="ONNX graph")
register(
    "exporter", "openvino", target="tesela.exporters.openvino:export_openvino", summary="OpenVINO's format"
)
register(
    "exporter", "compiled", target="tesela.exporters.compiled:export_compiled", summary="compiled PyTorch"
)
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
    source: str | Path, *, to: str, out: str | Path | None = None, options: ExportOptions | None = None
) -> ExportReport:
    """Write a model for another runtime or library, and check what was written.

    Args:
        source: a run, a bundle, or a foreign checkpoint.
        to: the format.
        out: the folder to write; beside or inside the source if None.
        options: of programs: precision, images to compare with, further outputs.

    Raises:
        UnknownNameError: no such format or precision.
        UsageError: there is nothing at ``source``, ``out`` holds something else, or the format has no such
            option.
        WeightsError: what was written differs from the model, or there is no place for the model in that
            format.
    """
    if to not in export_formats():
        raise UnknownNameError("format", to, export_formats())
    exporter = lookup("exporter", to).load()
    report: ExportReport
    if "options" in inspect.signature(exporter).parameters:
        if options is not None and options.precision not in PRECISIONS:
            raise UnknownNameError("precision", options.precision, list(PRECISIONS))
        report = exporter(source, out, options=options)
        return report
    if options is not None and options.data is not None:
        raise UsageError(
            f"{to} needs no images: what is written is read back and compared tensor by tensor",
            hint="leave --data away",
        )
    if options is not None and options != ExportOptions():
        raise UsageError(
            f"{to} holds the weights as they are: it has no precision, maps or bounds to choose",
            hint="leave --precision, --weights, --with-map, --with-features and --force away, or export a "
            "program: --to onnx",
        )
    report = exporter(source, out)
    return report
