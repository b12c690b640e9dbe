"""``tesela bench``: speed and memory per backend and precision, with the limit."""

from __future__ import annotations

from typing import Any


def bench(
    run_or_model: str,
    /,
    *,
    batch: str = "1,8",
    threads: int | None = None,
    seconds: float = 2.0,
    json: bool = False,
) -> None:
    """Measure how fast a model runs here.

    Args:
        run_or_model: A run folder (with the exports in it), a bundle, or a name of ``tesela models`` (with
            random weights).
        batch: Batch sizes, separated by commas.
        threads: Threads to use; each backend's own choice where it is left out.
        seconds: How long to measure each row.
        json: Print one JSON object.
    """
    from tesela.cli import output
    from tesela.runtime.bench import measure_model

    output.use_json(json)
    sizes = batch_sizes(batch)
    found = measure_model(run_or_model, sizes=sizes, threads=threads, seconds=seconds)
    output.say(table(found["model"], tuple(found["image"]), found["results"]))
    output.say(
        "matrix product: "
        + ", ".join(
            f"{precision} {rate / 1e12:.2f} TFLOP/s"
            for precision, rate in found["matrix_product"].items()
            if rate is not None
        )
    )
    output.result(found, json)


def batch_sizes(words: str) -> list[int]:
    """The batch sizes of ``1,8``, checked."""
    from tesela.core.config import convert_value
    from tesela.core.errors import UsageError

    sizes: list[int] = convert_value(list[int], words, "batch")
    if not sizes or min(sizes) < 1:
        raise UsageError("batch sizes must be 1 or more", hint="write --batch 1,8")
    return list(dict.fromkeys(sizes))


def table(name: str, shape: tuple[int, int, int], rows: list[dict[str, Any]]) -> Any:
    """The rows for people; the fastest of each batch size is marked."""
    from rich.table import Table

    channels, height, width = shape
    grid = Table(
        title=f"{name}, {height} x {width} x {channels}", box=None, padding=(0, 2, 0, 0), title_justify="left"
    )
    for title in (
        "batch",
        "backend",
        "precision",
        "ms p50 (quartiles)",
        "p99",
        "images/s",
        "of matrix product",
        "memory",
        "difference",
    ):
        grid.add_column(title, justify="left" if title in ("backend", "precision") else "right")
    for row in rows:
        best = max(other["images_per_second"] for other in rows if other["batch"] == row["batch"])
        grid.add_row(
            str(row["batch"]),
            row["backend"],
            row["precision"],
            f"{row['milliseconds']:.2f} ({row['milliseconds_low']:.2f}-{row['milliseconds_high']:.2f})",
            f"{row['milliseconds_p99']:.2f}",
            f"{row['images_per_second']:,.1f}",
            "" if row["share_of_matrix_product"] is None else f"{row['share_of_matrix_product']:.0%}",
            "" if row["resident_bytes"] is None else f"{row['resident_bytes'] / 1e6:,.0f} MB",
            f"{row['max_abs_probability_difference']:.1e}",
            style="bold" if row["images_per_second"] == best else None,
        )
    return grid
