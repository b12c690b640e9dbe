"""``tesela export``: a trained model in the form of another runtime or library, kept only if it is whole."""

from __future__ import annotations

from pathlib import Path

#: Format -> what it is. Others are refused with this list.
FORMATS = ("onnx", "hf", "timm", "jax")


def export(
    run: str,
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
        data: With onnx, images for the comparison (a file, a folder, a pattern); random ones where it is left out.
        precision: Of weights and arithmetic: fp32.
        json: Print one JSON object.
    """
    from tesela.cli import output
    from tesela.core.errors import UnknownNameError, UsageError

    output.use_json(json)
    if to not in FORMATS:
        raise UnknownNameError("format", to, FORMATS)
    if precision != "fp32":
        raise UnknownNameError("precision", precision, ["fp32"])
    if to == "onnx":
        _onnx(run, out, data, json)
        return
    if data is not None:
        raise UsageError(
            f"{to} needs no images: what is written is read back and compared tensor by tensor",
            hint="leave --data away",
        )
    _checkpoint(run, to, out, json)


def _onnx(run: str, out: Path | None, data: str | None, json: bool) -> None:
    from tesela.cli import output
    from tesela.exporters.onnx import export_onnx
    from tesela.runtime.sources import find_images

    report = export_onnx(run, out, images=find_images([data])[:30] if data else ())
    output.say(f"{report.bundle}: ONNX, {report.bytes / 1e6:.1f} MB, {report.seconds:.1f} s")
    output.say(
        f"difference to torch on {report.images} images, batches of {' and '.join(map(str, report.batches))}: "
        f"{report.max_abs_logits:.2e} in a logit, {report.max_abs_probability:.2e} in a probability, "
        f"same label for {report.same_label:.1%}"
    )
    output.result(
        {
            "format": "onnx",
            "bundle": report.bundle,
            "bytes": report.bytes,
            "images": report.images,
            "batches": report.batches,
            "max_abs_logits": report.max_abs_logits,
            "max_abs_probability": report.max_abs_probability,
            "same_label": report.same_label,
            "seconds": report.seconds,
        },
        json,
    )


def _checkpoint(run: str, to: str, out: Path | None, json: bool) -> None:
    from tesela.checkpoints.export import export_checkpoint
    from tesela.cli import output

    report = export_checkpoint(run, to=to, out=out)
    size = sum(report.files.values())
    output.say(
        f"{report.folder}: {report.architecture}, {report.tensors} tensors, {size / 1e6:.1f} MB, {report.seconds:.1f} s"
    )
    output.say("read back: every tensor equal")
    for remark in report.remarks:
        output.note(f"note: {remark}")
    output.result(
        {
            "format": report.format,
            "folder": report.folder,
            "architecture": report.architecture,
            "tensors": report.tensors,
            "bytes": size,
            "files": report.files,
            "remarks": report.remarks,
            "seconds": report.seconds,
        },
        json,
    )
