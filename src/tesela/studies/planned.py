"""Planned time of a grid, before anything of it has run."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from tesela.models.factory import create_model
from tesela.studies.cell import Cell
from tesela.studies.facts import DataFacts

STEPS, TRIED = 3, 16
#: A forward pass costs about a third of a training step.
FORWARD = 1 / 3
#: What each run needs beside: opening the data, measuring number formats, writing.
OVERHEAD_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedCell:
    """A cell with the seconds that it is thought to take."""

    cell: Cell
    seconds: float


def planned_cells(cells: Sequence[Cell], facts: DataFacts) -> list[PlannedCell]:
    """The cells with their times: given as minutes, or by a few training steps of each network here."""
    known: dict[str, float] = {}
    found = []
    for cell in cells:
        minutes = cell.settings.get("minutes")
        if minutes is not None:
            found.append(PlannedCell(cell=cell, seconds=60.0 * float(minutes)))
            continue
        network = {
            name: value for name, value in cell.settings.items() if name == "model" or name.startswith("net.")
        }
        key = json.dumps(network, sort_keys=True)
        if key not in known:
            known[key] = image_seconds(network, cell.settings.get("image_size"), facts)
        most = cell.settings.get("data.per_class")
        images = facts.images if most is None else sum(min(count, int(most)) for count in facts.counts)
        passes = float(cell.settings["epochs"]) * images + FORWARD * facts.scored
        found.append(PlannedCell(cell=cell, seconds=OVERHEAD_SECONDS + known[key] * passes))
    return found


def image_seconds(network: Mapping[str, Any], image_size: Any, facts: DataFacts) -> float:
    """Seconds of a training step for each image, in fp32 on the CPU; the fastest of a few steps."""
    size = image_size or (facts.side, facts.side)
    model = create_model(
        network["model"],
        num_classes=len(facts.labels),
        image_size=size if isinstance(size, int) else (int(size[0]), int(size[1])),
        channels=facts.channels,
        seed=0,
        **{name.removeprefix("net."): value for name, value in network.items() if name != "model"},
    )
    height, width = model.config.image_size
    images, targets = torch.zeros(TRIED, facts.channels, height, width), torch.zeros(TRIED, dtype=torch.long)
    times = []
    for _ in range(STEPS):
        begin = time.perf_counter()
        torch.autograd.backward(cross_entropy(model(images), targets))
        times.append(time.perf_counter() - begin)
    return min(times) / TRIED
