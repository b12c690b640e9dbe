"""``tesela export``: a trained model in the form of another runtime, kept only if its results are torch's."""

from __future__ import annotations

from pathlib import Path

#: Format -> what it is. Others are refused with this list.
FORMATS = ("onnx",)


def export(run: str, *, to: str, out: Path | None = None, data: str | None = None, precision: str = "fp32", json: bool = False) -> None:
    """Write a model for another runtime, with its difference measured.

    Args:
        run: A run folder, or a bundle.
        to: The format: onnx.
        out: The folder to write; RUN/onnx where it is left out.
        data: Images for the comparison (a file, a folder, a pattern); random ones where it is left out.
        precision: Of weights and arithmetic: fp32.
        json: Print one JSON object.
    """
    from tesela.cli import output
    from tesela.core.errors import UnknownNameError
    from tesela.export.onnx import export_onnx
    from tesela.runtime.sources import find_images

    output.use_json(json)
    if to not in FORMATS:
        raise UnknownNameError("format", to, FORMATS)
    if precision != "fp32":
        raise UnknownNameError("precision", precision, ["fp32"])
    report = export_onnx(run, out, images=find_images([data])[:30] if data else ())
    output.say(f"{report.bundle}: ONNX, {report.bytes / 1e6:.1f} MB, {report.seconds:.1f} s")
    output.say(
        f"difference to torch on {report.images} images, batches of {' and '.join(map(str, report.batches))}: "
        f"{report.max_abs_logits:.2e} in a logit, {report.max_abs_probability:.2e} in a probability, "
        f"same label for {report.same_label:.1%}"
    )
    output.result(
        {
            "format": to,
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
