"""``report.html``: one file that shows what a run reached, made from the run folder alone.

It needs no network, no script and no data set: charts are inline SVG, images inline PNG, style and colours
(light and dark) in the page. The images were cut out when the run was evaluated
(``tesela.evaluation.pictures``).

Odd: explanations need the model, so they are made once, when the run is finished, kept in ``explanations/``,
and shown again whenever the report is rebuilt.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tesela.core.config import read_yaml
from tesela.core.errors import UsageError
from tesela.core.files import read_json, write_atomic, write_text
from tesela.models.bundle import CONFIG, read_info
from tesela.page.document import document
from tesela.reports import sections
from tesela.reports.few_shot import few_shot_section
from tesela.runs.folder import Run
from tesela.runs.history import elapsed_seconds
from tesela.tasks.catalog import AUTO, DEFAULT_TASK, find_task
from tesela.tasks.material import Material
from tesela.tasks.task import Task


def write_report(run: Run | Path | str, *, explain: bool = False) -> Path:
    """Write ``report.html`` into the run folder, from the files there.

    Args:
        run: the run folder.
        explain: make the pictures of the section "Explanations" with the run's model; otherwise those of an
            earlier call are shown, if any.

    Returns:
        path of the report.

    Raises:
        UsageError: the folder holds no run.
    """
    run = run if isinstance(run, Run) else Run(run)
    if not run.exists():
        raise UsageError(
            f"{run.path} is not a run folder", hint="name the folder that tesela train --out wrote"
        )
    if explain:
        keep_explanations(run)
    material = read_material(run)
    write_text(run.report, page(material, task_of(run)))
    return run.report


def task_of(run: Run) -> Task:
    """The run's task, as its bundle says, or its configuration as long as there is no bundle."""
    if (run.bundle / CONFIG).is_file():
        return find_task(read_info(run.bundle).task)
    named = str(read_yaml(run.config).get("task", AUTO))
    return find_task(DEFAULT_TASK if named == AUTO else named)


def read_material(run: Run) -> Material:
    """Everything the report shows; missing files leave their fields empty."""
    arrays = _read_arrays(run.predictions)
    return Material(
        path=run.path,
        config=read_yaml(run.config),
        choices=_read_mapping(run.choices),
        rows=read_rows(run.metrics),
        seconds=elapsed_seconds(run),
        scores=_read_mapping(run.evaluation) if arrays else {},
        arrays=arrays,
        few_shot=_read_mapping(run.few_shot),
        explanations=[path.read_bytes() for path in sorted((run.path / "explanations").glob("*.png"))],
    )


def keep_explanations(run: Run) -> None:
    """Explain the predicted labels of the images kept for it, as PNG files in ``explanations/``.

    Raises:
        UsageError: the model cannot be explained; earlier files stay.
    """
    from tesela.attribution.draw.report import explain_for_report
    from tesela.models.bundle import load_bundle

    images = _read_arrays(run.predictions).get("shown_images", ())
    if not len(images):
        return
    model, info = load_bundle(run.bundle)
    method = find_task(info.task).explanation
    pictures = explain_for_report(model, list(images), spec=info.image, method=method)
    place = run.path / "explanations"
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


def page(material: Material, task: Task) -> str:
    """The whole HTML page."""
    return document(
        **sections.headline(material, task),
        sections=[
            sections.curves(material, task),
            *task.sections(material),
            few_shot_section(material),
            sections.commands(material),
            sections.environment_table(material),
        ],
    )
