"""Inference speed of a model per backend and precision, beside the machine's limit.

Every variant is first compared with fp32 in torch (or the only variant there is) on the same images; the
rates count the network alone, images decoded and prepared. The limit is the rate of a matrix product.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tesela.core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tesela.models.config import ModelConfig
    from tesela.models.model import Model

Variants = dict[tuple[str, str], "Callable[[NDArray[np.float32]], NDArray[np.float32]]"]


def measure_model(
    source: str | Path | Model, *, sizes: Sequence[int], threads: int | None = None, seconds: float = 2.0
) -> dict[str, Any]:
    """Speed of a model here.

    Args:
        source: a run, a bundle, a name of the catalogue (with random weights), or a loaded model.
        sizes: batch sizes.
        threads: threads to use; each backend's own choice if None.
        seconds: how long each row is measured.

    Returns:
        the model's name, its input (C, h, w), operations of an image, the matrix product's rate, and a row
        for each batch size, backend and precision.

    Raises:
        UsageError: there is no such model, or a batch size below 1.
    """
    if not sizes or min(sizes) < 1:
        raise UsageError("batch sizes must be 1 or more", hint="give sizes such as 1,8")
    if isinstance(source, (str, Path)):
        name, shape, flops, variants = open_variants(str(source), threads=threads)
    else:
        name, shape, flops, variants = model_variants(source, threads=threads)
    limits = measure_limits(variants, threads=threads)
    rows = measure_variants(variants, shape, list(sizes), seconds=seconds, flops=flops, limits=limits)
    return {"model": name, "image": list(shape), "flops": flops, "matrix_product": limits, "results": rows}


def open_variants(
    run_or_model: str, *, threads: int | None
) -> tuple[str, tuple[int, int, int], float, Variants]:
    """The model's name, its input (C, h, w), the operations for one image, and what can compute it."""
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
    import torch

    from tesela.models.factory import create_model

    model = create_model(name, seed=0)
    for parameter in model.head.parameters():  # a new head is all zero, which would hide every difference
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    _, shape, flops, variants = model_variants(model, threads=threads)
    return name, shape, flops, variants


def model_variants(model: Model, *, threads: int | None) -> tuple[str, tuple[int, int, int], float, Variants]:
    """A model in memory, in torch on the CPU; the model itself is left as it is."""
    from tesela.runtime.backends.torch import network_logits

    config = model.config
    variants: Variants = {
        ("torch", precision): network_logits(copy.deepcopy(model).cpu(), threads=threads, precision=precision)
        for precision in ("fp32", "bf16")
    }
    name = model.info.name if model.info is not None else type(model).__name__
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
