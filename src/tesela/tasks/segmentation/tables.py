"""A segmenter's scores as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from tesela.core.terminal import name_value_grid

LEAST_SHOWN = 30
NAMES = {
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean recall",
    "dice": "mean Dice",
    "boundary_iou": "boundary IoU",
}


def mask_score_tables(scores: Mapping[str, Any]) -> list[RenderableType]:
    """The scores that matter, and each class, worst first."""
    lines = {title: of_hundred(scores[name]) for name, title in NAMES.items() if name in scores}
    artefacts = scores.get("block_artefacts")
    if artefacts is not None:
        truth = scores.get("block_artefacts_truth")
        beside = f"   truth {truth:.2f}" if truth is not None else ""
        lines["block artefacts"] = f"{artefacts:.2f}{beside}   1 is none"
    return [name_value_grid(list(lines.items())), mask_class_table(scores["per_class"])]


def of_hundred(value: float | None) -> str:
    """A share as a percentage; a dash for one that is not defined."""
    return "-" if value is None else f"{value * 100:.2f} %"


def mask_class_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Scores of each class, worst first, as many as are worth reading."""
    ordered = sorted(rows, key=lambda row: (row["iou"] is None, row["iou"] or 0.0))
    rest = len(ordered) - LEAST_SHOWN
    table = Table(
        title="Classes, worst first",
        title_justify="left",
        caption=f"and {rest} better ones" if rest > 0 else None,
    )
    table.add_column("class", overflow="fold")
    for name in ("IoU", "Dice", "recall", "precision", "boundary", "of the pixels"):
        table.add_column(name, justify="right")
    for row in ordered[:LEAST_SHOWN]:
        names = ("iou", "dice", "recall", "precision", "boundary_iou", "share")
        table.add_row(Text(row["label"]), *(of_hundred(row[name]) for name in names))
    return table
