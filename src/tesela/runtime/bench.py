"""Inference speed of a model per backend and precision, beside the machine's limit.

Every variant is first compared with the first one (fp32 where there is one) on the same images; the rates
count the network alone, images decoded and prepared. The limit is the rate of a matrix product.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tesela.core.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tesela.models.bundle import BundleInfo
    from tesela.models.config import ModelConfig
    from tesela.models.model import Model
    from tesela.runtime.backends.base import Precision

Compute: TypeAlias = "Callable[[NDArray[np.float32]], NDArray[np.float32]]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One way to compute a model.

    Attributes:
        backend: the engine.
        precision: of the arithmetic.
        logits: the function from normalised images to outputs.
        bundle: the folder that it was opened from; None for a model in memory.
    """

    backend: str
    precision: Precision
    logits: Compute
    bundle: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is measured: the model's name, its input (C, h, w), operations of an image, and its variants."""

    name: str
    shape: tuple[int, int, int]
    flops: float
    variants: tuple[Variant, ...]


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
        subject = open_subject(str(source), threads=threads)
    else:
        subject = model_subject(source, threads=threads)
    limits = measure_limits(subject.variants, threads=threads)
    rows = measure_variants(subject, list(sizes), seconds=seconds, limits=limits, threads=threads)
    return {
        "model": subject.name,
        "image": list(subject.shape),
        "flops": subject.flops,
        "matrix_product": limits,
        "results": rows,
    }


def open_subject(run_or_model: str, *, threads: int | None) -> Subject:
    """A run with its exports, a bundle, or a name of the catalogue."""
    from tesela.core.config import build
    from tesela.models import catalog

    path = Path(run_or_model)
    if not path.exists() and path.name == run_or_model:
        return named_subject(run_or_model, threads=threads)
    from tesela.checkpoints.cache import bundle_of
    from tesela.models.bundle import read_info
    from tesela.runtime.backends.base import choose_backend, open_backend
    from tesela.runtime.choice import ways

    bundle = bundle_of(path)
    choose_backend(bundle, "auto")  # says what is missing
    info = read_info(bundle)
    variants: dict[tuple[str, str], Variant] = {}
    for place in (bundle, *exports_of(path, info)):
        described = read_info(place)
        for way in ways(place, described):
            if (way.backend, way.precision) not in variants:
                engine = open_backend(way.backend, place, described, threads=threads, precision=way.precision)
                variants[way.backend, way.precision] = Variant(
                    backend=way.backend, precision=way.precision, logits=engine.logits, bundle=place
                )
    spec = info.image
    config: ModelConfig = build(catalog.family(info.architecture).config or dict, info.model)
    return Subject(
        name=info.name,
        shape=(spec.channels, spec.height, spec.width),
        flops=config.flops(info.num_classes, image_size=spec.size),
        variants=tuple(variants.values()),
    )


def exports_of(run: Path, info: BundleInfo) -> Iterator[Path]:
    """The programs of the same model that were exported into a run's folder."""
    from tesela.models.bundle import CONFIG, read_info
    from tesela.runtime.backends.base import usable

    for place in sorted(run.iterdir()) if run.is_dir() else ():
        if place.name == "bundle" or not (place / CONFIG).is_file() or not usable(place):
            continue
        other = read_info(place)
        if (other.model, other.labels, other.image) == (info.model, info.labels, info.image):
            yield place


def named_subject(name: str, *, threads: int | None) -> Subject:
    """A model of the catalogue with random weights, in torch."""
    import torch

    from tesela.models.factory import create_model

    model = create_model(name, seed=0)
    for parameter in model.head.parameters():  # a new head is all zero, which would hide every difference
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    found = model_subject(model, threads=threads)
    return Subject(name=name, shape=found.shape, flops=found.flops, variants=found.variants)


def model_subject(model: Model, *, threads: int | None) -> Subject:
    """A model in memory, in torch on the CPU; the model itself is left as it is."""
    from tesela.runtime.backends.torch import network_logits

    config = model.config
    chosen: tuple[Precision, ...] = ("fp32", "bf16")
    variants = tuple(
        Variant(
            backend="torch",
            precision=precision,
            logits=network_logits(copy.deepcopy(model).cpu(), threads=threads, precision=precision),
        )
        for precision in chosen
    )
    return Subject(
        name=model.info.name if model.info is not None else type(model).__name__,
        shape=(config.channels, *config.image_size),
        flops=config.flops(model.num_classes),
        variants=variants,
    )


def measure_limits(variants: Sequence[Variant], *, threads: int | None) -> dict[str, float | None]:
    """Operations per second of a matrix product for each precision among the variants.

    None where nothing here can measure it: without torch there is fp32 alone.
    """
    from tesela.core.packages import installed
    from tesela.hardware.speed import matrix_rate

    engine = "torch" if installed("torch") else "numpy"
    limits: dict[str, float | None] = {}
    for variant in variants:
        kind = "int8" if variant.precision == "int8" else variant.precision.replace("int8-weights", "fp32")
        if variant.precision not in limits:
            try:
                limits[variant.precision] = matrix_rate(kind, engine=engine, threads=threads)
            except MissingExtraError:
                limits[variant.precision] = None
    return limits


def measure_variants(
    subject: Subject,
    sizes: list[int],
    *,
    seconds: float,
    limits: dict[str, float | None],
    threads: int | None,
) -> list[dict[str, Any]]:
    """One row per batch size and variant; the variants of one size run after each other."""
    import functools

    import numpy as np

    from tesela.hardware.speed import measure_speed
    from tesela.runtime.choice import agreement, shares
    from tesela.runtime.footprint import resident_bytes

    memory: dict[tuple[str, str, int], int | None] = {}
    for variant in subject.variants:
        if variant.bundle is not None:
            peaks = resident_bytes(variant.bundle, variant.backend, variant.precision, sizes, threads=threads)
            keys = ((variant.backend, variant.precision, size) for size in sizes)
            memory.update(zip(keys, peaks, strict=True))
    rows = []
    for size in sizes:
        images = np.random.default_rng(size).standard_normal((size, *subject.shape), dtype=np.float32)
        reference = shares(subject.variants[0].logits(images))
        for variant in subject.variants:
            backend, precision = variant.backend, variant.precision
            difference, same = agreement(shares(variant.logits(images)), reference)
            timing = measure_speed(functools.partial(variant.logits, images), seconds=seconds)
            limit = limits[precision]
            rows.append(
                {
                    "batch": size,
                    "backend": backend,
                    "precision": precision,
                    "milliseconds": timing.median * 1e3,
                    "milliseconds_low": timing.low * 1e3,
                    "milliseconds_high": timing.high * 1e3,
                    "milliseconds_p99": timing.p99 * 1e3,
                    "images_per_second": size / timing.median,
                    "share_of_matrix_product": limit and subject.flops * size / timing.median / limit,
                    "max_abs_probability_difference": difference,
                    "same_label": same,
                    "resident_bytes": memory.get((backend, precision, size)),
                    "calls": timing.calls,
                }
            )
    return rows
