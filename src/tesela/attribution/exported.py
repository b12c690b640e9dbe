"""Explanations that an exported program gives itself, without torch: its maps as files.

A program may have further outputs: ``map``, the default map of the predicted class, and ``rollout``. They are
at the size of the model's view, (B, h, w), as those of ``tesela.attribution.explain``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tesela.attribution.draw.figure import Panel, draw_comparison
from tesela.attribution.draw.heatmap import overlay, to_original, write_arrays
from tesela.attribution.draw.stem import label_stem
from tesela.checkpoints.open import bundle_at
from tesela.core.errors import ImageError, UsageError
from tesela.core.files import file_stem, unique_names, write_atomic
from tesela.core.pathnames import path_text
from tesela.imaging.decode import decode
from tesela.imaging.preprocess import fit_image, normalize
from tesela.metrics.probability import softmax
from tesela.models.bundle import WEIGHTS
from tesela.runtime.backends.base import BACKENDS
from tesela.runtime.inputs import prepared_images
from tesela.runtime.predictor import Predictor

#: What ``--method`` calls the outputs of a program.
METHODS = {"auto": "map", "rollout": "rollout"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramMaps:
    """Maps that a program gives of B images, each for the class that it predicts.

    As ``tesela.attribution.explain.Explanation``, in arrays.

    Attributes:
        map: (B, 1, h, w), float32, at the size of the model's view.
        scores: (B, 1), the classes' logits; over a segmenter's pixels, their mean.
        probabilities: (B, 1), their probabilities.
        targets: (B, 1), the classes.
        method: ``auto`` or ``rollout``.
    """

    map: NDArray[np.float32]
    scores: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    targets: NDArray[np.int64]
    method: str


def maps_of_images(
    program: Path, images: Any, *, method: str, asked: Mapping[str, Any], root: Path | None
) -> ProgramMaps:
    """Maps of what ``tesela.runtime.inputs.prepared_images`` takes, by a program.

    Args:
        program: its bundle.
        images: what to explain.
        method: ``auto`` or ``rollout``.
        asked: options of methods, which a program does not have: each must be its usual value.
        root: folder that names are below.

    Raises:
        UsageError: something else is asked, or the program has no map of that method.
    """
    usual = {"head_fusion": "mean", "discard": 0.0, "residual": 0.5, "seed": 0}
    check_program_options(
        {name: one for name, one in asked.items() if not (one is None or one == usual.get(name))}
    )
    predictor = Predictor(program)
    return program_maps(predictor, prepared_images(predictor.info.image, images, root), method)


def program_maps(predictor: Predictor, images: NDArray[np.float32], method: str) -> ProgramMaps:
    """Maps of normalised images (B, C, h, w) by a program's own output.

    Raises:
        UsageError: the program has no map of that method.
    """
    output = program_output(predictor, method)
    found = [predicted_target(predictor, logits) for logits in predictor.backend.logits(images)]
    targets, scores, probabilities = zip(*found, strict=True)
    return ProgramMaps(
        map=predictor.backend.output(output, images)[:, None],
        scores=np.array(scores, np.float32)[:, None],
        probabilities=np.array(probabilities, np.float32)[:, None],
        targets=np.array(targets, np.int64)[:, None],
        method=method,
    )


def explain_with_program(
    predictor: Predictor, files: Sequence[Path], *, methods: Sequence[str], out: Path, colours: str
) -> list[dict[str, Any]]:
    """Write the maps of image files; a row for each, with ``error`` where it cannot be read.

    Args:
        predictor: of a program with maps.
        files: the images.
        methods: names of ``METHODS``.
        out: the folder.
        colours: a name of ``tesela.attribution.draw.heatmap.COLOURS``.

    Raises:
        UsageError: the program has no such map, or its task no labels.
        StorageError: the file system refused.
    """
    outputs = [program_output(predictor, method) for method in methods]
    rows: list[dict[str, Any]] = []
    for file, name in zip(files, unique_names(map(file_stem, files)), strict=True):
        row: dict[str, Any] = {"image": path_text(file)}
        rows.append(row)
        try:
            image = decode(file, channels=predictor.info.image.channels, limits=predictor.limits)
        except ImageError as error:
            row["error"] = {"code": error.code, "message": error.message, "hint": error.hint}
            continue
        row.update(_explained(predictor, image, name, dict(zip(methods, outputs, strict=True)), out, colours))
    return rows


def exported_program(run: str) -> Path | None:
    """The bundle of an exported program, if a path names one that holds no weights."""
    found = bundle_at(run)
    if found is None or (found / WEIGHTS).is_file():
        return None
    return found if any(entry.file(found) for entry in BACKENDS.values()) else None


def check_program_options(given: Mapping[str, Any]) -> None:
    """Refuse what an exported program cannot be asked.

    Raises:
        UsageError: something is given; the message names it.
    """
    for name in given:
        raise UsageError(
            f"an exported program explains the class that it predicts, without --{name.replace('_', '-')}",
            hint="leave it away, or name the run that the program was exported from",
        )


def program_output(predictor: Predictor, method: str) -> str:
    """The output of a program that holds the maps of a method.

    Raises:
        UsageError: there is none.
    """
    given = [name for name in predictor.backend.outputs if name in METHODS.values()]
    wanted = METHODS.get(method, method)
    if wanted not in given:
        able = [known for known, output in METHODS.items() if output in given]
        raise UsageError(
            f"the program {predictor.bundle} gives no maps of the method {method}",
            hint="use --method " + " or ".join(able)
            if able
            else "export it with its maps: tesela export RUN --to onnx --with-map; or name the run",
        )
    return wanted


def _explained(
    predictor: Predictor,
    image: NDArray[np.uint8],
    name: str,
    outputs: dict[str, str],
    out: Path,
    colours: str,
) -> dict[str, Any]:
    """Write the files of one image; its row."""
    info, backend = predictor.info, predictor.backend
    batch = normalize(fit_image(image, info.image)[None], info.image)
    logits = backend.logits(batch)[0]
    target, score, probability = predicted_target(predictor, logits)
    size, label = (image.shape[0], image.shape[1]), info.labels[target]
    groups, panels, seen = [], [], None
    for method, output in outputs.items():
        stem = name if len(outputs) == 1 else f"{name}.{method}"
        heat, seen = to_original(backend.output(output, batch)[0], size, info.image)
        picture = out / f"{stem}.{label_stem(label, target)}.png"
        write_atomic(picture, overlay(image, heat, seen=seen, colours=colours, side=0))
        entry = {
            "label": label,
            "index": target,
            "prefix_mass": None,
            "score": score,
            "probability": probability,
            "peak": [int(place) for place in np.unravel_index(int(heat.argmax()), heat.shape)],
            "png": path_text(picture),
        }
        arrays = {"map": heat[None], "targets": np.array([target]), "labels": np.array([label])}
        arrays |= {"probability": np.array([probability]), "method": np.array(method)}
        write_arrays(out / f"{stem}.npz", arrays)
        groups.append({"method": method, "classes": [entry], "npz": path_text(out / f"{stem}.npz")})
        panels.append(Panel(heat=heat, note="", warning=False))
    figure = out / f"{name}.figure.png"
    picture_bytes = draw_comparison(
        image,
        [tuple(panels)],
        rows=[f"{label}, {probability:.1%}"],
        columns=list(outputs),
        seen=seen,
        colours=colours,
        title=name,
    )
    write_atomic(figure, picture_bytes)
    return {**groups[0], "figure": path_text(figure), "methods": groups}


def predicted_target(predictor: Predictor, logits: NDArray[np.float32]) -> tuple[int, float, float]:
    """The class that a program's map explains, with its score and probability.

    Args:
        predictor: of the program.
        logits: (K,), or (K, h, w) of a segmenter, whose class is that of most pixels.
    """
    found = predictor.task.probabilities(logits[None])
    if found is not None:
        target = int(found[0].argmax())
        return target, float(logits[target]), float(found[0, target])
    pixels = logits.argmax(0)
    target = int(np.bincount(pixels.ravel(), minlength=logits.shape[0]).argmax())
    won = pixels == target
    return target, float(logits[target][won].mean()), float(softmax(logits[None])[0, target][won].mean())
