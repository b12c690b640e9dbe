"""``tesela predict``: labels or masks for images, folders and patterns."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from tesela.tasks.result import Result


def predict(
    run: str,
    /,
    *images: str,
    top: int | None = None,
    out: Path | None = None,
    windows: Annotated[bool, Parameter(negative="")] = False,
    flip: Annotated[bool, Parameter(negative="")] = False,
    features: Annotated[bool, Parameter(negative="")] = False,
    backend: Literal["auto", "onnxruntime", "openvino", "torch", "compiled"] = "auto",
    precision: Literal["auto", "fp32", "bf16", "int8", "int8-weights"] = "auto",
    threads: int | None = None,
    max_ms: float | None = None,
    batch: int = 32,
    formats: Annotated[list[str] | None, Parameter(negative="")] = None,
    max_pixels: int | None = None,
    engine: Literal["local"] = "local",  # noqa: ARG001
    json: bool = False,
) -> int:
    """Labels, or masks, for images, folders and globs; exit code 1 if an image could not be read.

    Args:
        run: A run folder, or a bundle.
        images: Image files, folders (with all below them) and quoted patterns.
        top: How many labels a classifier shows for each image; 5 by default.
        out: A file for the results, which are not printed then: .jsonl, .csv or .parquet; or a folder, for
            masks as PNG files beside a results.jsonl, with overlays in overlays/.
        windows: Let a segmenter look at each image at its own size, through windows that overlap by half.
        flip: Average a segmenter's answer with that for the mirror image.
        features: Give what the model's head reads of each image, an embedding, instead of its answer; of a
            program, where it was exported --with-features.
        backend: What computes; auto measures what can be used here, once, and takes the fastest.
        precision: Number format of the network; auto takes bf16 where it is faster and the answers agree.
        threads: Threads to compute with; each backend's own choice where it is left out.
        max_ms: Most milliseconds of one image in the network: where the model's own size takes longer, images
            are made smaller, and what that costs is measured and said.
        batch: Images computed at once.
        formats: The only image formats to open, with commas between; by default all of JPEG, PNG, WEBP, BMP,
            GIF, TIFF, AVIF, HEIF, JPEG2000 and PPM.
        max_pixels: Most pixels of an image; 250 million by default.
        engine: Where it runs: on this machine.
        json: Print one JSON object per image and line.
    """
    from tesela.cli import output
    from tesela.core.errors import UsageError
    from tesela.core.progress import progress_bar, stderr_console
    from tesela.core.terminal import line_text
    from tesela.imaging.limits import local_limits
    from tesela.runs.folder import Run
    from tesela.runtime.predictor import Predictor
    from tesela.runtime.result_folder import ResultFolder
    from tesela.runtime.sources import find_images
    from tesela.runtime.table import PredictionTable

    output.use_json(json)
    try:
        paths = find_images(images, root=Run(run).data_root)
    except UsageError:
        Predictor(run, backend="auto")  # what is wrong with the model is said first
        raise
    given: dict[str, Any] = {"backend": backend, "precision": precision, "threads": threads, "sample": paths}
    given["limits"] = local_limits(formats or (), max_pixels)
    if max_ms is None:
        predictor = Predictor(run, **given)
    else:
        from tesela.evaluation.dial import open_within

        predictor, curve = open_within(run, max_ms=max_ms, **given)
        output.note(curve.line())
    pictures = None
    if out is not None and not out.suffix and predictor.task.unreadable().body_schema and not features:
        pictures = ResultFolder(out, paths, limits=predictor.limits)
        out = pictures.table
    table = PredictionTable(out) if out is not None else None
    if predictor.choice is not None and predictor.choice.line():
        output.note(predictor.choice.line())
    options: dict[str, Any] = {} if top is None else {"top": top}
    ways = {"windows": windows, "flip": flip, "features": features}
    options |= {name: True for name, wanted in ways.items() if wanted}
    unreadable: list[Result] = []
    bar_console = stderr_console() if out is not None else None
    with table or contextlib.nullcontext(), progress_bar(bar_console, "predict", len(paths)) as bar:
        for path, result in zip(paths, predictor.stream(paths, batch=batch, **options), strict=True):
            extra = {} if pictures is None else {"files": pictures.write(path, result)}
            if table is not None:
                table.append(result, **extra)
            if result.failure is not None:
                unreadable.append(result.bare())
            bar.advance()
            if json:
                output.result(result.to_mapping())
            elif out is None:
                output.say(result.line())
    if out is not None:
        output.note_unreadable(result.line() for result in unreadable)
        output.note(f"{len(paths)} results written to {line_text(out)}")
    if unreadable:
        output.note(f"{len(unreadable)} of {len(paths)} images could not be read")
    return 1 if unreadable else 0
