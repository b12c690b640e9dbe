"""``report.html``: one file that shows what a run reached, made from the run folder alone.

It needs no network, no script and no data set: charts are inline SVG, images inline PNG, style and colours (light and dark) in
the page. The images were cut out when the run was evaluated (``tesela.evaluation.pictures``).

Odd: training may not import the room that explains, so explanations come through a callable; what it gives is kept in
``explanations/`` and shown again when the report is rebuilt without it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tesela.core.config import read_yaml
from tesela.core.errors import UsageError
from tesela.core.files import read_json, write_atomic
from tesela.page.document import document
from tesela.reports import sections
from tesela.reports.sections import Material
from tesela.runs.folder import Run
from tesela.runs.history import elapsed_seconds

Explain = Callable[[npt.NDArray[np.uint8]], Sequence[bytes]]
"""From images at the model's size, uint8 (B, h, w, C), to one PNG file each."""

ORDER = (
    sections.headline,
    sections.curves,
    sections.classes,
    sections.samples,
    sections.mistakes,
    sections.explanations,
    sections.calibration,
    sections.again,
    sections.surroundings,
)


def write_report(run: Run | Path | str, explain: Explain | None = None) -> Path:
    """Write ``report.html`` into the run folder, from what lies there.

    Args:
        run: the run folder.
        explain: makes the pictures of the section "Explanations"; None shows those of an earlier call, if any.

    Returns:
        where the report is.

    Raises:
        UsageError: the folder holds no run.
    """
    run = run if isinstance(run, Run) else Run(run)
    if not run.exists():
        raise UsageError(
            f"{run.path} is not a run folder", hint="name the folder that tesela train --out wrote"
        )
    material = read_material(run, explain)
    write_atomic(run.report, page(material).encode())
    return run.report


def read_material(run: Run, explain: Explain | None = None) -> Material:
    """Everything the report shows; what is missing stays empty."""
    arrays = _read_arrays(run.predictions)
    if explain is not None and len(arrays.get("shown_images", ())):
        keep_explanations(run.path, explain(arrays["shown_images"]))
    return Material(
        path=run.path,
        config=read_yaml(run.config),
        choices=_read_mapping(run.choices),
        rows=read_rows(run.metrics),
        seconds=elapsed_seconds(run),
        scores=_read_mapping(run.evaluation) if arrays else {},
        arrays=arrays,
        explanations=[path.read_bytes() for path in sorted((run.path / "explanations").glob("*.png"))],
    )


def keep_explanations(folder: Path, pictures: Sequence[bytes]) -> None:
    """Put PNG files into ``explanations/``, in their order, in place of earlier ones."""
    place = folder / "explanations"
    for index, data in enumerate(pictures):
        write_atomic(place / f"{index:02d}.png", data)
    for old in sorted(place.glob("*.png"))[len(pictures) :]:
        old.unlink()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``.jsonl`` file; a last line that was cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]


def _read_mapping(path: Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.is_file() else {}


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def page(material: Material) -> str:
    """The whole HTML page."""
    body = "\n".join(part(material) for part in ORDER)
    return document(
        f"{material.scores.get('model') or material.config.get('model') or 'tesela'}: report", body
    )
