"""``tesela predict``: labels or masks for images, folders and patterns."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import islice
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
    parts: int | None = None,
    dedupe: Annotated[bool, Parameter(negative="")] = False,
    engine: Literal["local", "ray"] = "local",
    json: bool = False,
) -> int:
    """Labels, or masks, for images, folders and globs; exit code 1 if an image could not be read.

    Args:
        run: A run folder, or a bundle.
        images: Image files, folders (with all below them) and quoted patterns; shards and Parquet files, or
            folders or addresses (s3://bucket/shards) of such.
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
            are made smaller or, in a plain ViT, alike patches are merged; what that costs is measured and
            said.
        batch: Images computed at once.
        formats: The only image formats to open, with commas between; by default all of JPEG, PNG, WEBP, BMP,
            GIF, TIFF, AVIF, HEIF, JPEG2000 and PPM.
        max_pixels: Most pixels of an image; 250 million by default.
        parts: For very many images: write --out as a folder of parts of so many rows, in constant memory; the
            same command takes up a scoring that ended early, and no image gets two rows or none. With
            --json the last line says how many.
        dedupe: With --parts: leave out images with the bytes of an earlier one, and list them in
            _duplicates/.
        engine: With --parts: compute on this machine, or with ray on a cluster, all of whose machines see the
            run and the images under the same names.
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
    from tesela.runtime.scoring.score import check_parts
    from tesela.runtime.stored import find_sources, stream_sources
    from tesela.runtime.table import PredictionTable

    output.use_json(json)
    if parts is None and dedupe:
        raise UsageError("--dedupe belongs to a scoring in parts", hint="add --parts 2000")
    if parts is None and engine == "ray":
        raise UsageError("--engine ray belongs to a scoring in parts", hint="add --parts 2000")
    try:
        if parts is None:
            paths = find_sources(images, root=Run(run).data_root)
        else:
            check_parts(out, parts)
            paths = list(islice(stream_sources(images, root=Run(run).data_root), 8))
    except UsageError:
        Predictor(run, backend="auto")  # what is wrong with the model is said first
        raise
    given: dict[str, Any] = {"backend": backend, "precision": precision, "threads": threads, "sample": paths}
    given["limits"] = local_limits(formats or (), max_pixels)
    options: dict[str, Any] = {} if top is None else {"top": top}
    told = {"windows": windows, "flip": flip, "features": features}
    options |= {name: True for name, wanted in told.items() if wanted}
    if parts is not None and out is not None:
        if max_ms is not None:
            raise UsageError("--max-ms and --parts exclude one another", hint="leave one of them out")
        asked = {"formats": formats or [], "max_pixels": max_pixels}
        ways = {"dedupe": dedupe, "ray": engine == "ray"}
        return score(run, images, out, parts, given, options, asked, **ways, batch=batch, json=json)
    if max_ms is None:
        predictor = Predictor(run, **given)
    else:
        from tesela.evaluation.dial import open_within

        predictor, curve = open_within(run, max_ms=max_ms, **given)
        output.note(curve.line())
    pictures = None
    if out is not None and not out.suffix and predictor.blank(features=features).body_schema:
        pictures = ResultFolder(out, paths, limits=predictor.limits)
        out = pictures.table
    table = PredictionTable(out) if out is not None else None
    if predictor.choice is not None and predictor.choice.line():
        output.note(predictor.choice.line())
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


def score(
    run: str,
    images: Sequence[str],
    out: Path,
    size: int,
    given: dict[str, Any],
    options: dict[str, Any],
    asked: dict[str, Any],
    *,
    dedupe: bool,
    ray: bool,
    batch: int,
    json: bool,
) -> int:
    """Score very many images into a folder of parts; exit code 1 if one could not be read.

    Args:
        run: a run or bundle.
        images: names of files and folders, and patterns.
        out: the folder.
        size: rows of a part.
        given: arguments of the predictor.
        options: of the task's results.
        asked: limits of decoding, which belong to the scoring's settings.
        dedupe: leave out images with the bytes of an earlier one.
        ray: compute on a cluster.
        batch: images computed at once.
        json: print the counts as JSON.
    """
    from dataclasses import asdict

    from tesela.cli import output
    from tesela.core.files import json_text, sha256_bytes
    from tesela.core.progress import progress_bar, stderr_console
    from tesela.core.terminal import line_text
    from tesela.runs.folder import Run
    from tesela.runtime.predictor import Predictor
    from tesela.runtime.scoring.cluster import RayStream, ray_data
    from tesela.runtime.scoring.journal import Journal, begun_settings
    from tesela.runtime.scoring.score import Scoring
    from tesela.runtime.stored import absolute_word, stream_sources

    if ray:
        ray_data()  # what is missing is said before anything is written
    begun = begun_settings(out)
    if begun is not None and given["backend"] == "auto":  # what was chosen then computes the rest
        given |= {name: begun.get(name, given[name]) for name in ("backend", "precision")}
    with Run(out).locked("scoring"):
        predictor = Predictor(run, **given)
        way = predictor.choice.way if predictor.choice is not None else None
        settings = {
            "model": sha256_bytes(json_text(predictor.info.digests).encode()),
            "images": [absolute_word(word) for word in images],
            "backend": way.backend if way else given["backend"],
            "precision": way.precision if way else given["precision"],
            "options": options,
            "rows": size,
            "dedupe": dedupe,
            **asked,
        }
        root = Run(run).data_root
        journal = Journal(out, settings)
        scoring = Scoring(out, lambda: stream_sources(images, root=root), journal, size=size, dedupe=dedupe)
        stream = RayStream(run, predictor, threads=given["threads"]) if ray else None
        told = 0

        def tell(line: str) -> None:
            nonlocal told
            told += 1
            if told <= output.MOST_NAMED:
                output.note(line)

        with progress_bar(stderr_console(), "predict", 1) as bar:
            found = scoring.run(
                predictor,
                batch=batch,
                bar=bar,
                stream=stream,
                unreadable=lambda result: tell(result.line()),
                **options,
            )
    if told > output.MOST_NAMED:
        output.note(f"... and {told - output.MOST_NAMED:,} more")
    output.note(f"{found.rows} results written to {line_text(out)}, {found.computed} of them now")
    if found.duplicates:
        output.note(
            f"images with the bytes of earlier ones: {found.duplicates}, in {line_text(out / '_duplicates')}"
        )
    if found.unreadable:
        output.note(f"{found.unreadable} of {found.rows} images could not be read")
    output.result({"out": str(out), **asdict(found)}, json)
    return 1 if found.unreadable else 0
