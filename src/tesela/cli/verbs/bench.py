"""``tesela bench``: inference speed per backend and precision, with the machine's limit.

The limit is the rate of a matrix product.

Every variant is first compared with fp32 in torch (or the only variant there is) on the same images; the
rates count the network alone, images decoded and prepared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tesela.models.config import ModelConfig

Variants = dict[tuple[str, str], "Callable[[NDArray[np.float32]], NDArray[np.float32]]"]


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
        run_or_model: A run folder, a bundle, or a name of ``tesela models`` (with random weights).
        batch: Batch sizes, separated by commas.
        threads: Threads to use; each backend's own choice where it is left out.
        seconds: How long to measure each row.
        json: Print one JSON object.
    """
    from tesela.cli import output

    output.use_json(json)
    sizes = batch_sizes(batch)
    name, shape, flops, variants = open_variants(run_or_model, threads=threads)
    limits = measure_limits(variants, threads=threads)
    rows = measure_variants(variants, shape, sizes, seconds=seconds, flops=flops, limits=limits)
    output.say(table(name, shape, rows))
    output.say(
        "matrix product: "
        + ", ".join(f"{precision} {rate / 1e12:.2f} TFLOP/s" for precision, rate in limits.items())
    )
    output.result(
        {"model": name, "image": list(shape), "flops": flops, "matrix_product": limits, "results": rows}, json
    )


def batch_sizes(words: str) -> list[int]:
    """The batch sizes of ``1,8``, checked."""
    from tesela.core.config import convert_value
    from tesela.core.errors import UsageError

    sizes: list[int] = convert_value(list[int], words, "batch")
    if not sizes or min(sizes) < 1:
        raise UsageError("batch sizes must be 1 or more", hint="write --batch 1,8")
    return list(dict.fromkeys(sizes))


def open_variants(
    run_or_model: str, *, threads: int | None
) -> tuple[str, tuple[int, int, int], float, Variants]:
    """The model's name, its input (C, h, w), the operations for one image, and what can compute it."""
    from pathlib import Path

    from tesela.core.config import build
    from tesela.models import catalog

    path = Path(run_or_model)
    if not path.exists() and path.name == run_or_model:
        return named_variants(run_or_model, threads=threads)
    from tesela.runtime.backends.base import Precision, usable
    from tesela.runtime.predictor import Predictor

    first = Predictor(path, threads=threads)
    exported = path / "onnx"  # where ``tesela export`` puts a run's graph
    variants: Variants = {}
    chosen: list[tuple[str, Precision]] = [("torch", "fp32"), ("torch", "bf16"), ("onnxruntime", "fp32")]
    for backend, precision in chosen:
        for place in (first.bundle, exported):
            if backend in usable(place) and (backend, precision) not in variants:
                variants[backend, precision] = Predictor(
                    place, backend=backend, precision=precision, threads=threads
                ).backend.logits
    spec = first.info.image
    config: ModelConfig = build(catalog.family(first.info.architecture).config or dict, first.info.model)
    return (
        first.info.name,
        (spec.channels, spec.height, spec.width),
        config.flops(first.info.num_classes, image_size=spec.size),
        variants,
    )


def named_variants(name: str, *, threads: int | None) -> tuple[str, tuple[int, int, int], float, Variants]:
    """A model of the catalogue with random weights, in torch."""
    import copy

    import torch

    from tesela.models.factory import create_model
    from tesela.runtime.backends.torch import network_logits

    model = create_model(name, seed=0)
    for parameter in model.head.parameters():  # a new head is all zero, which would hide every difference
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    config = model.config
    variants: Variants = {
        ("torch", precision): network_logits(copy.deepcopy(model), threads=threads, precision=precision)
        for precision in ("fp32", "bf16")
    }
    return name, (config.channels, *config.image_size), config.flops(model.num_classes), variants


def measure_limits(variants: Variants, *, threads: int | None) -> dict[str, float]:
    """The rate of a matrix product for each precision among the variants, operations per second."""
    from tesela.hardware.speed import matrix_rate

    engine = "torch" if any(backend == "torch" for backend, _ in variants) else "numpy"
    return {
        precision: matrix_rate(precision, engine=engine, threads=threads)
        for precision in dict.fromkeys(p for _, p in variants)
    }


def measure_variants(
    variants: Variants,
    shape: tuple[int, int, int],
    sizes: list[int],
    *,
    seconds: float,
    flops: float,
    limits: dict[str, float],
) -> list[dict[str, Any]]:
    """One row per batch size and variant; the variants of one size run after each other."""
    import functools

    import numpy as np

    from tesela.hardware.speed import measure_speed
    from tesela.metrics.probability import softmax

    rows = []
    for size in sizes:
        images = np.random.default_rng(size).standard_normal((size, *shape), dtype=np.float32)
        reference = softmax(next(iter(variants.values()))(images))
        for (backend, precision), logits in variants.items():
            difference = float(np.abs(softmax(logits(images)) - reference).max())
            timing = measure_speed(functools.partial(logits, images), seconds=seconds)
            rows.append(
                {
                    "batch": size,
                    "backend": backend,
                    "precision": precision,
                    "milliseconds": timing.median * 1e3,
                    "milliseconds_low": timing.low * 1e3,
                    "milliseconds_high": timing.high * 1e3,
                    "images_per_second": size / timing.median,
                    "share_of_matrix_product": flops * size / timing.median / limits[precision],
                    "max_abs_probability_difference": difference,
                    "calls": timing.calls,
                }
            )
    return rows


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
        "ms (quartiles)",
        "images/s",
        "of matrix product",
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
            f"{row['images_per_second']:,.1f}",
            f"{row['share_of_matrix_product']:.0%}",
            f"{row['max_abs_probability_difference']:.1e}",
            style="bold" if row["images_per_second"] == best else None,
        )
    return grid
