"""``tesela predict``: labels for images, folders and patterns, shown as they come and written whole."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def predict(
    run: str,
    *images: str,
    top: int = 5,
    out: Path | None = None,
    backend: Literal["auto", "onnxruntime", "torch"] = "auto",
    batch: int = 32,
    engine: Literal["local"] = "local",  # noqa: ARG001
    json: bool = False,
) -> int:
    """Labels for images, folders and globs.

    Args:
        run: A run folder, or a bundle.
        images: Image files, folders (with all below them) and quoted patterns.
        top: How many labels to show for each image.
        out: A file for the results: .jsonl, .csv or .parquet.
        backend: What computes; auto prefers an exported ONNX graph.
        batch: Images computed at once.
        engine: Where it runs: on this machine.
        json: Print one JSON object per image and line.
    """
    from tesela.cli import output
    from tesela.runtime.predictor import Predictor
    from tesela.runtime.results import Prediction
    from tesela.runtime.sources import find_images
    from tesela.runtime.table import write_predictions, writer_for

    output.use_json(json)
    if out is not None:
        writer_for(out)
    predictor = Predictor(run, backend=backend)
    found: list[Prediction] = []
    for prediction in predictor.stream(find_images(images), top=top, batch=batch):
        found.append(prediction)
        if json:
            output.result(prediction.to_mapping())
        else:
            output.say(line(prediction))
    if out is not None:
        write_predictions(out, found)
        output.note(f"{len(found)} results written to {out}")
    unreadable = [prediction for prediction in found if prediction.failure]
    if unreadable:
        output.note(f"{len(unreadable)} of {len(found)} images could not be read")
    return 1 if len(unreadable) == len(found) else 0


def line(prediction: object) -> str:
    """One image's result as a line of text."""
    from tesela.runtime.results import Prediction

    assert isinstance(prediction, Prediction)
    if prediction.failure:
        return f"{prediction.source}: unreadable ({prediction.failure.code}): {prediction.failure.message}"
    return f"{prediction.source}: " + "  ".join(
        f"{score.label} {score.probability:.1%}" for score in prediction.scores
    )
