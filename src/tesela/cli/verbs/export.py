"""``tesela export``: a model in the form of another runtime or library, checked."""

from __future__ import annotations

from pathlib import Path


def export(
    run: str,
    /,
    *,
    to: str,
    out: Path | None = None,
    data: str | None = None,
    precision: str = "fp32",
    json: bool = False,
) -> None:
    """Write a model for another runtime or library, and check it.

    Args:
        run: A run folder, a bundle, or a checkpoint as of tesela convert.
        to: The format: onnx; hf (a folder for transformers), timm, or jax (the paper's .npz).
        out: The folder to write; RUN/FORMAT where it is left out.
        data: With onnx, images for the comparison (a file, a folder, a pattern); random ones where it is left
            out.
        precision: Of weights and arithmetic: fp32.
        json: Print one JSON object.
    """
    from tesela.cli import output
    from tesela.core.errors import UnknownNameError
    from tesela.exporters.catalog import export_model
    from tesela.runtime.sources import find_images

    output.use_json(json)
    if precision != "fp32":
        raise UnknownNameError("precision", precision, ["fp32"])
    report = export_model(run, to=to, out=out, images=find_images([data])[:30] if data else ())
    for line in report.lines():
        output.say(line)
    for remark in report.mapping().get("remarks", ()):
        output.note(f"note: {remark}")
    output.result(report.mapping(), json)
