"""``tesela evaluate``: the scores of a run or bundle, the classes it does worst, the pairs it confuses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter

WORST_SHOWN = 20


def evaluate(
    run: str,
    data: str | None = None,
    *,
    split: str = "test",
    top: int = 5,
    batch_size: Annotated[int, Parameter(name=["--batch-size", "--batch"])] = 256,
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    json: bool = False,
) -> None:
    """Score a run or bundle on a split: accuracy, top-k, calibration, classes, confusion.

    A run's own test scores are kept in the run folder and its report is written anew; others go to evaluations/ below it.

    Args:
        run: Run folder, bundle, or a checkpoint of Hugging Face, timm or the JAX files.
        data: Another data set, whose labels are matched by name; by default the run's own.
        split: train, val or test.
        top: The k of top-k accuracy.
        batch_size: Images at a time; changes only the speed.
        precision: Number format of the matrix products; auto is what the run was trained with.
        device: Where to compute; auto takes a GPU where there is one.
        json: Print one JSON object as the last line.
    """
    from pathlib import Path

    from tesela.cli import output
    from tesela.core.errors import UsageError
    from tesela.core.progress import stderr_console

    output.use_json(json)
    if top < 1 or batch_size < 1:
        raise UsageError("--top and --batch-size must be 1 or more", hint="5 and 256 are usual")
    from tesela.evaluation.evaluate import evaluate_run
    from tesela.reports.report import write_report

    scores = evaluate_run(
        run,
        data=data,
        split=split,
        top=top,
        batch_size=batch_size,
        precision=precision,
        device=device,
        console=stderr_console(),
    )
    report = write_report(run) if scores["folder"] == Path(run) else None
    show(scores, top=top)
    if scores["folder"] is not None:
        output.say(f"kept in {scores['folder']}" + (f", shown in {report}" if report else ""))
    output.result({**scores, "run": run, "report": report}, json)


def show(scores: dict[str, Any], *, top: int) -> None:
    """The scores as tables for people."""
    from tesela.cli import output

    low, high = scores["accuracy_interval"]
    output.say(
        f"{scores['model']} ({scores['parameters']:,} parameters) on {scores['data']}, {scores['split']} split, {scores['images']:,} images"
    )
    lines = {
        "accuracy": f"{share(scores['accuracy'])}   95 % interval {low * 100:.1f} to {high * 100:.1f} %",
        f"top-{top} accuracy": share(scores[f"top{top}"]),
        "macro F1": share(scores["macro_f1"]),
        "calibration error": f"{share(scores['ece'])}   {scores['ece_bins']} bins of equal width",
        "log loss": f"{scores['nll']:.4f}   Brier score {scores['brier']:.4f}",
        "speed": f"{scores['images_per_second']:,.0f} images/s",
    }
    if scores["unreadable"]:
        lines["unreadable"] = (
            f"{len(scores['unreadable'])} images left out, such as {scores['unreadable'][0]['name']}"
        )
    output.say(columns(list(lines.items())))
    output.say(class_table(scores["per_class"]))
    if scores["most_confused"]:
        output.say(pair_table(scores["most_confused"]))


def share(value: float | None) -> str:
    """A share as a percentage; a dash where it is not defined."""
    return "-" if value is None else f"{value * 100:.2f} %"


def columns(rows: list[tuple[str, str]]) -> Any:
    """Names and values side by side."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    return table


def class_table(rows: list[dict[str, Any]]) -> Any:
    """Scores of each class, worst first, as many as are worth reading."""
    from rich.table import Table
    from rich.text import Text

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
        table.add_row(
            Text(row["label"]),
            share(row["f1"]),
            share(row["recall"]),
            share(row["precision"]),
            f"{row['support']:,}",
        )
    return table


def pair_table(pairs: list[dict[str, Any]]) -> Any:
    """The pairs of classes that are confused most."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Confused most", title_justify="left")
    for name in ("true", "predicted"):
        table.add_column(name, overflow="fold")
    for name in ("images", "share of true"):
        table.add_column(name, justify="right")
    for pair in pairs:
        table.add_row(Text(pair["true"]), Text(pair["predicted"]), str(pair["count"]), share(pair["share"]))
    return table
