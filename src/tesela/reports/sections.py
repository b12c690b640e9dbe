"""The report's sections that every task has: title, curves, how to run it again, environment.

Every text that comes from a file or a person goes through ``escape``. A section without its material is empty and left
out, so a report of an interrupted run, or of a run without test images, is shorter and never broken.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
import yaml

from tesela.page.charts import Series, line_chart, percent
from tesela.page.document import tiles
from tesela.page.section import Section
from tesela.tasks.material import Material
from tesela.tasks.task import Task


def headline(material: Material, task: Task) -> str:
    """The title, one sentence and the numbers that matter."""
    scores = material.scores
    name = str(scores.get("model") or material.config.get("model") or "model")
    source = str(scores.get("data") or material.config.get("data", {}).get("source") or "data")
    head = f"<h1>{escape(name)} on {escape(source)}</h1>"
    if not scores:
        return head + '<p class="lead">This run has not been evaluated yet.</p>'
    rows = list(task.tiles(scores))
    if material.seconds:
        epochs = len(material.of_kind("epoch"))
        rows.append(("Training time", duration(material.seconds), f"{epochs} epochs"))
    return f'{head}<p class="lead">{escape(task.lead(scores))}</p>{tiles(rows)}'


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def curves(material: Material, task: Task) -> Section:
    """Loss, the task's scores and learning rate over the training."""
    epochs, steps = material.of_kind("epoch"), material.of_kind("step")
    if not epochs and not steps:
        return Section.none()
    place = _epoch_of(epochs)
    loss = [
        Series(
            name="each step",
            points=[(place(row), row["loss"]) for row in _with(steps, "loss")],
            tone=1,
            faint=True,
        ),
        Series(name="training", points=_points(epochs, "train_loss"), tone=1),
        Series(name="validation", points=_points(epochs, "val_loss"), tone=2),
    ]
    scored = {
        title: [
            Series(name="training", points=_points(epochs, f"train_{name}"), tone=1),
            Series(name="validation", points=_points(epochs, f"val_{name}"), tone=2),
        ]
        for name, title in task.curves.items()
    }
    rate = [
        Series(name="learning rate", points=[(place(row), row["lr"]) for row in _with(steps, "lr")], tone=3)
    ]
    charts = [
        line_chart(loss, title="Loss", x_label="epoch", low=0),
        *(
            line_chart(lines, title=title, x_label="epoch", y_format=percent, high=1.0)
            for title, lines in scored.items()
        ),
        line_chart(rate, title="Learning rate", x_label="epoch", low=0),
    ]
    smooth = any(material.config.get("objective", {}).values())
    mixes = any(material.config.get("augment", {}).get(name) for name in ("mixup", "cutmix"))
    reason = (
        " Training loss is taken on augmented images and softened targets, so it can lie above validation loss."
        if smooth or mixes
        else ""
    )
    return Section.of(
        "Curves", f'<div class="charts">{"".join(charts)}</div>', text=f"Over {len(epochs)} epochs.{reason}"
    )


def _with(rows: Iterable[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [row for row in rows if isinstance(row.get(name), (int, float))]


def _points(epochs: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [
        (index, row[name]) for index, row in enumerate(epochs, 1) if isinstance(row.get(name), (int, float))
    ]


def _epoch_of(epochs: Sequence[dict[str, Any]]) -> Any:
    """Where a step's row lies on an axis of epochs: by the steps at which the epochs ended."""
    ends = [0, *(int(row["step"]) for row in epochs)]
    return lambda row: (
        float(np.interp(row["step"], ends, range(len(ends)))) if len(ends) > 1 else float(row["step"])
    )


def again(material: Material) -> Section:
    """What was run, and the commands that run it again."""
    if not material.config:
        return Section.none()
    source, folder = str(material.config.get("data", {}).get("source") or "DATA"), str(material.path)
    words = ["tesela", "train", source, "--config", f"{folder}/config.yaml", "--out", f"{folder}-again"]
    commands = [shlex.join(words), shlex.join(["tesela", "evaluate", folder])]
    text = escape(yaml.safe_dump(material.config, sort_keys=False, allow_unicode=True))
    parts = [
        f"<pre>{escape(chr(10).join(commands))}</pre>",
        f"<details><summary>config.yaml</summary><pre>{text}</pre></details>",
    ]
    if material.choices:
        chosen = escape(yaml.safe_dump(material.choices, sort_keys=False, allow_unicode=True))
        parts.append(
            f"<details><summary>What was measured and chosen on the machine</summary><pre>{chosen}</pre></details>"
        )
    return Section.of(
        "Run it again",
        *parts,
        text="The configuration is whole: the same file, data and machine give the same bits.",
    )


def surroundings(material: Material) -> Section:
    """Versions and machine."""
    values = {**material.scores.get("environment", {})}
    if material.scores:
        values |= {"evaluated with": f"{material.scores['precision']} on {material.scores['device']}"}
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>"
        for name, value in values.items()
    )
    return Section.of("Environment", f'<div class="scroll"><table>{rows}</table></div>' if rows else "")
