"""A classifier's scores as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from tesela.core.terminal import name_value_grid

WORST_SHOWN = 20


def score_tables(scores: Mapping[str, Any], *, top: int) -> list[RenderableType]:
    """The scores that matter, each class with the worst first, and the pairs that are confused most."""
    low, high = scores["accuracy_interval"]
    lines = {
        "accuracy": f"{share(scores['accuracy'])}   95 % interval {low * 100:.1f} to {high * 100:.1f} %",
        "majority baseline": f"{share(scores['majority'])}   always the most frequent class",
        **({f"top-{top} accuracy": share(scores[f"top{top}"])} if top < len(scores["per_class"]) else {}),
        "macro F1": share(scores["macro_f1"]),
        "calibration error": f"{share(scores['ece'])}   {scores['ece_bins']} bins of equal width",
        "log loss": f"{scores['nll']:.4f}   Brier score {scores['brier']:.4f}",
    }
    pairs = [_pair_table(scores["most_confused"])] if scores["most_confused"] else []
    return [name_value_grid(list(lines.items())), class_table(scores["per_class"]), *pairs]


def share(value: float | None) -> str:
    """A share as a percentage; a dash for one that is not defined."""
    return "-" if value is None else f"{value * 100:.2f} %"


def class_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Scores of each class, worst first, as many as are worth reading."""
    ordered = sorted(rows, key=lambda row: (row["f1"] is None, row["f1"] or 0.0))
    rest = len(ordered) - WORST_SHOWN
    table = Table(
        title="Classes, worst first",
        title_justify="left",
        caption=f"and {rest} better ones" if rest > 0 else None,
    )
    table.add_column("class", overflow="fold")
    for name in ("F1", "recall", "precision", "images"):
        table.add_column(name, justify="right")
    for row in ordered[:WORST_SHOWN]:
        shares = [share(row[name]) for name in ("f1", "recall", "precision")]
        table.add_row(Text(row["label"]), *shares, f"{row['support']:,}")
    return table


def _pair_table(pairs: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="Confused most", title_justify="left")
    for name in ("true", "predicted"):
        table.add_column(name, overflow="fold")
    for name in ("images", "share of true"):
        table.add_column(name, justify="right")
    for pair in pairs:
        table.add_row(Text(pair["true"]), Text(pair["predicted"]), str(pair["count"]), share(pair["share"]))
    return table
