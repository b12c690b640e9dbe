"""Report sections of every task: headline, curves, commands, environment.

A section without its material is empty and left out, so a report of an interrupted run, or of a run without
test images, is shorter and never broken.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import yaml

from tesela.core.format import duration, percent
from tesela.page.charts.figure import charts_row
from tesela.page.charts.line import Series, line_chart
from tesela.page.document import data_table, render
from tesela.page.section import Section
from tesela.tasks.material import Material
from tesela.tasks.task import Task


def headline(material: Material, task: Task) -> dict[str, Any]:
    """Title, lead and tiles, as keyword arguments of ``document``."""
    scores, tiles = material.scores, []
    name = scores.get("model") or material.config.get("model") or "model"
    source = scores.get("data") or material.config.get("data", {}).get("source") or "data"
    if scores:
        tiles = list(task.tiles(scores))
        if material.seconds:
            epochs = len(material.of_kind("epoch"))
            tiles.append(("Training time", unbroken(duration(material.seconds)), f"{epochs} epochs"))
    lead = task.lead(scores) if scores else "This run has not been evaluated yet."
    return {"title": f"{name} on {source}", "lead": lead, "tiles": tiles}


def curves(material: Material, task: Task) -> Section:
    """Loss, the task's scores and learning rate over the training."""
    epochs, steps = material.of_kind("epoch"), material.of_kind("step")
    if not epochs and not steps:
        return Section(title="Curves")
    ends = [0, *(int(row["step"]) for row in epochs)]

    def place(row: Mapping[str, Any]) -> float:
        """Where a row lies on an axis of epochs, by the steps at which the epochs ended."""
        return float(np.interp(row["step"], ends, range(len(ends)))) if epochs else float(row["step"])

    def series(name: str, rows: Sequence[Mapping[str, Any]], key: str, tone: int) -> Series:
        points = [(place(row), row[key]) for row in rows if isinstance(row.get(key), (int, float))]
        return Series(name=name, points=points, tone=tone, faint=name == "each step")

    def both(key: str) -> list[Series]:
        return [
            series("training", epochs, f"train_{key}", 1),
            series("validation", epochs, f"val_{key}", 2),
        ]

    chart = partial(line_chart, x_label="epoch", whole=True)
    charts = [
        chart([series("each step", steps, "loss", 1), *both("loss")], title="Loss", low=0),
        *(chart(both(key), title=title, y_format=percent, high=1.0) for key, title in task.curves.items()),
        chart([series("learning rate", steps, "lr", 3)], title="Learning rate", low=0),
    ]
    softened = any(material.config.get("objective", {}).values())
    mixed = any(material.config.get("augment", {}).get(name) for name in ("mixup", "cutmix"))
    reason = (
        " Training loss is taken on augmented images and softened targets, so it can exceed validation loss."
        if softened or mixed
        else ""
    )
    return Section(title="Curves", note=f"Over {len(epochs)} epochs.{reason}", body=charts_row(*charts))


def commands(material: Material) -> Section:
    """What was run, and the commands that run it again."""
    title = "Run it again"
    if not material.config:
        return Section(title=title)
    source, folder = str(material.config.get("data", {}).get("source") or "DATA"), str(material.path)
    words = ["tesela", "train", source, "--config", f"{folder}/config.yaml", "--out", f"{folder}-again"]
    files = {"config.yaml": material.config, "What was measured and chosen on the machine": material.choices}
    return Section(
        title=title,
        note="The configuration is whole: the same file, data and machine give the same bits.",
        body=render(
            "tesela.reports/commands.html.j2",
            commands=[shlex.join(words), shlex.join(["tesela", "evaluate", folder])],
            files={
                name: yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
                for name, values in files.items()
                if values
            },
        ),
    )


def environment_table(material: Material) -> Section:
    """Versions and machine."""
    values = {**material.scores.get("environment", {})}
    if material.scores:
        values |= {"evaluated with": f"{material.scores['precision']} on {material.scores['device']}"}
    rows = [(str(name), str(value)) for name, value in values.items()]
    return Section(title="Environment", body=data_table((("", ""), ("", "")), rows) if rows else "")


def unbroken(text: str) -> str:
    """A duration that breaks between its two units only: each number stays with its unit."""
    words = text.split()
    pairs = ["\u00a0".join(words[place : place + 2]) for place in range(0, len(words), 2)]
    return " ".join(pairs)
