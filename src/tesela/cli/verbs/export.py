"""``tesela export``: a model in the form of another runtime or library, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def export(
    run: str,
    /,
    *,
    to: str,
    out: Path | None = None,
    data: str | None = None,
    precision: str = "fp32",
    weights: Literal["int8"] | None = None,
    with_map: Annotated[bool, Parameter(negative="")] = False,
    with_features: Annotated[bool, Parameter(negative="")] = False,
    force: Annotated[bool, Parameter(negative="")] = False,
    json: bool = False,
) -> None:
    """Write a model for another runtime or library, and check it.

    A program (onnx, openvino, compiled) is held against the fp32 model on real images: differences,
    agreement, score, calibration, latency, memory and size are printed, and written into the bundle and its
    card. A program that breaks the bounds of its precision, or an int8 that is slower than fp32, is refused
    with the numbers (exit code 1).

    Args:
        run: A run folder, a bundle, or a checkpoint as of tesela convert.
        to: The format: onnx, openvino or compiled (programs); hf (a folder for transformers), timm, or jax
            (the paper's .npz).
        out: The folder to write; RUN/FORMAT where it is left out.
        data: Of a program, real images to compare with, and for int8 to calibrate with: a data set, a file, a
            folder, a pattern. By default the run's own training and validation images; random ones for a
            bundle that names no data.
        precision: Of a program's weights and arithmetic: fp32, bf16 (openvino, compiled), int8 (onnx,
            openvino).
        weights: int8 stores the weights alone in int8, for a small file; arithmetic stays fp32 (onnx,
            openvino).
        with_map: Give explanations as further outputs, map (what tesela explain draws) and rollout, so that a
            board without PyTorch explains too (onnx, openvino).
        with_features: Give what the head reads, an embedding of the image, as a further output, features,
            which tesela predict --features prints (onnx, openvino).
        force: Keep a program that breaks its bounds.
        json: Print one JSON object.
    """
    from tesela.cli import output
    from tesela.core.errors import UsageError
    from tesela.exporters.catalog import export_model
    from tesela.exporters.options import ExportOptions

    output.use_json(json)
    if weights is not None and precision != "fp32":
        raise UsageError(
            f"--weights int8 goes with arithmetic in fp32, not in {precision}",
            hint="leave --precision away, or --weights",
        )
    options = ExportOptions(
        precision="int8-weights" if weights else precision,
        data=data,
        with_map=with_map,
        with_features=with_features,
        force=force,
    )
    report = export_model(run, to=to, out=out, options=options)
    for line in report.lines():
        output.say(line)
    for remark in report.mapping().get("remarks", ()):
        output.note(f"note: {remark}")
    output.result(report.mapping(), json)
