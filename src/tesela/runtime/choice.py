"""Choice of backend and precision by measurement, kept for the next time.

Every way to compute a bundle here is opened, compared with the first one (fp32 where there is one) on the
same images, and timed at batch 1 and at a few images; the fastest of those that agree is taken. All that
takes at most about ``SECONDS``; what has no time left is not tried. A model that answers within
``AT_ONCE`` is not measured further: there is nothing to gain.

The choice is kept beside the bundle (``.NAME.speed.json``), or among the caches where that folder cannot be
written, under a key of machine, threads, versions and the bundle's digests.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tesela.core.errors import StorageError, TeselaError, UsageError
from tesela.core.files import home, read_json, sha256_bytes, write_json
from tesela.core.packages import installed
from tesela.core.version import __version__
from tesela.hardware.machine import processor, version
from tesela.metrics.probability import softmax
from tesela.models.bundle import BundleInfo
from tesela.runtime.backends.base import Backend, Precision, open_backend, own_precision, usable

#: Seconds for all measurements together, of one timing, and of an image that needs no faster way.
SECONDS, EACH, AT_ONCE = 5.0, 0.25, 0.002
#: Most images of the larger batch, and the seconds that the first way may take for them.
MOST_IMAGES, FIRST_SECONDS = 8, 0.5
#: Largest difference of a probability, and smallest share of equal labels, of a way that agrees with fp32.
TOLERANCE, SAME_LABELS = 0.02, 0.995
#: How much faster than the first way another one has to be: differences within the noise decide nothing.
GAIN = 1.1
FORMAT = "tesela-speed/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One way to compute a bundle: a backend and a precision."""

    backend: str
    precision: Precision

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedBackend:
    """Figures of one way.

    Attributes:
        backend: its name.
        precision: of the arithmetic.
        single: seconds of one image alone.
        batched: seconds of an image in a batch.
        difference: largest absolute difference of a probability from the first way's.
        same_label: share of images (or pixels) with the first way's label, ties aside.
    """

    backend: str
    precision: Precision
    single: float
    batched: float
    difference: float
    same_label: float

    @property
    def agrees(self) -> bool:
        """Whether its answers may stand for the first way's."""
        return self.difference <= TOLERANCE and self.same_label >= SAME_LABELS

    @property
    def cost(self) -> float:
        """One figure of both times: their geometric mean."""
        return float(np.sqrt(self.single * self.batched))


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The way that was taken, and why.

    Attributes:
        way: what computes.
        timed: all that were measured, the first way first; empty where there was one way only.
        images: ``real`` or ``random``, what they were compared on.
        batch: images of the larger batch.
        kept: the file that holds the choice; None where it was not kept.
        remembered: whether it was measured earlier.
    """

    way: Way
    timed: tuple[TimedBackend, ...] = ()
    images: str = "random"
    batch: int = 1
    kept: Path | None = None
    remembered: bool = False

    def line(self) -> str:
        """The choice for a person; empty where there was none."""
        if len(self.timed) < 2:
            return ""
        taken = next(
            one
            for one in self.timed
            if (one.backend, one.precision) == (self.way.backend, self.way.precision)
        )
        first = self.timed[0]
        text = f"{self.way}: {taken.batched * 1e3:.1f} ms an image in batches of {self.batch}"
        if taken is not first:
            text += (
                f", {first.cost / taken.cost:.1f}x as fast as {first.backend} {first.precision}; on "
                f"{self.batch} {self.images} images {taken.difference:.1e} off in a probability, same label "
                f"for {taken.same_label:.1%}"
            )
        return text + (" (measured earlier)" if self.remembered else " (measured now)")


def ways(bundle: Path, info: BundleInfo) -> list[Way]:
    """All ways to compute a bundle on this machine, the plainest first.

    Weights are not compiled for this: it would take a minute.
    """
    own, found = own_precision(info), usable(bundle)
    if (bundle / "model.pt2").is_file():
        found = [name for name in found if name != "torch"]
    else:
        found = [name for name in found if name != "compiled"]
    result = [Way(backend=name, precision=own) for name in found]
    if own == "fp32" and computes_bf16():
        # the most promising ones come before other engines in fp32, should the time run out
        result[1:1] = [Way(backend=name, precision="bf16") for name in found if name in ("openvino", "torch")]
    return result


def computes_bf16() -> bool:
    """Whether the processor multiplies in bf16; elsewhere it is slower than fp32."""
    return any("bf16" in feature for feature in processor()["features"])


def choose_way(
    bundle: Path,
    info: BundleInfo,
    *,
    backend: str = "auto",
    precision: Precision | None = None,
    threads: int | None = None,
    sample: NDArray[np.float32] | None = None,
) -> tuple[Choice, Backend]:
    """The fastest way that agrees, and the backend, opened.

    Args:
        bundle: the folder.
        info: its description.
        backend: the only one to consider, or ``auto``.
        precision: the only one to consider; None for all.
        threads: threads per operator; None leaves each backend's own choice.
        sample: (B, C, h, w) normalised images to compare on; random ones if None.

    Raises:
        UsageError: no way is of that backend and precision.
        WeightsError: the bundle is damaged.
    """
    chosen = [
        way
        for way in ways(bundle, info)
        if backend in ("auto", way.backend) and precision in (None, way.precision)
    ]
    if not chosen:
        raise UsageError(
            f"nothing here computes {bundle} in {precision or 'any precision'}",
            hint="ways that do: " + (", ".join(map(str, ways(bundle, info))) or "none"),
        )
    if len(chosen) == 1:
        return Choice(way=chosen[0]), _opened(chosen[0], bundle, info, threads)
    key = choice_key(info, chosen, threads)
    known = remembered(bundle, key)
    if known is not None and known.way in chosen:
        return known, _opened(known.way, bundle, info, threads)
    real = sample is not None and len(sample) > 0
    images = sample if real and sample is not None else random_batch(info)
    choice, engine = measured(chosen, bundle, info, images, threads=threads)
    return keep(bundle, key, replace(choice, images="real" if real else "random")), engine


def measured(
    chosen: Sequence[Way], bundle: Path, info: BundleInfo, images: NDArray[np.float32], *, threads: int | None
) -> tuple[Choice, Backend]:
    """Measure the ways one after the other; the best, opened."""
    end = time.perf_counter() + SECONDS
    best = _opened(chosen[0], bundle, info, threads)
    one, _ = _timing(best, images[:1])
    if one <= AT_ONCE:
        return Choice(way=chosen[0]), best
    count = min(len(images), max(1, int(FIRST_SECONDS / one)))
    rows: list[TimedBackend] = []
    wanted: NDArray[np.float64] | None = None
    winner = 0
    for way in chosen:
        if rows and time.perf_counter() + 2 * one > end:
            break
        try:
            engine = _opened(way, bundle, info, threads) if rows else best
            single, _ = _timing(engine, images[:1]) if rows else (one, None)
            batched, outputs = _timing(engine, images[:count])
        except (TeselaError, RuntimeError, ImportError):
            if not rows:
                raise
            continue  # an engine that cannot compute it is no candidate
        found = shares(outputs)
        wanted = found if wanted is None else wanted
        difference, same = agreement(found, wanted)
        rows.append(
            TimedBackend(
                backend=way.backend,
                precision=way.precision,
                single=single,
                batched=batched / count,
                difference=difference,
                same_label=same,
            )
        )
        bar = rows[winner].cost / (GAIN if winner == 0 else 1.0)
        if rows[-1].agrees and rows[-1].cost < bar:
            winner, best = len(rows) - 1, engine
    taken = rows[winner]
    way = Way(backend=taken.backend, precision=taken.precision)
    return Choice(way=way, timed=tuple(rows), batch=count), best


def _timing(engine: Backend, images: NDArray[np.float32]) -> tuple[float, NDArray[np.float32]]:
    """The fastest call within ``EACH`` seconds, and its outputs; other programs only ever add time."""
    start = time.perf_counter()
    end = start + EACH
    outputs = engine.logits(images)
    best = time.perf_counter() - start
    while time.perf_counter() + best < end:  # the first call, which warms up, counts if it takes all the time
        start = time.perf_counter()
        outputs = engine.logits(images)
        best = min(best, time.perf_counter() - start)
    return best, outputs


def shares(outputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities of outputs (B, K, ...) along the second axis; single outputs as they are."""
    if outputs.ndim < 2 or outputs.shape[1] < 2:
        return outputs.astype(np.float64)
    return np.moveaxis(softmax(outputs), 1, -1)


def agreement(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> tuple[float, float]:
    """Largest difference (of pixels, but for a thousandth), and the share of equal labels, ties aside."""
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return float("inf"), 0.0
    off = np.abs(found - wanted).max(axis=-1)
    difference = float(off.max() if off.ndim < 2 else np.quantile(off, 0.999))
    if wanted.ndim < 2 or wanted.shape[-1] < 2:
        return difference, 1.0
    ordered = np.sort(wanted, axis=-1)
    tied = ordered[..., -1] - ordered[..., -2] <= TOLERANCE
    return difference, float((tied | (found.argmax(-1) == wanted.argmax(-1))).mean())


def random_batch(info: BundleInfo) -> NDArray[np.float32]:
    """Smooth random images (B, C, h, w) as a model sees normalised ones, from a fixed seed."""
    spec, random = info.image, np.random.default_rng(0)
    coarse = random.standard_normal((MOST_IMAGES, spec.channels, 8, 8), dtype=np.float32)
    rows = np.arange(spec.height) * 8 // spec.height
    columns = np.arange(spec.width) * 8 // spec.width
    noise = random.standard_normal((MOST_IMAGES, spec.channels, *spec.size), dtype=np.float32)
    result: NDArray[np.float32] = coarse[:, :, rows][:, :, :, columns] + np.float32(0.2) * noise
    return result


def choice_key(info: BundleInfo, chosen: Sequence[Way], threads: int | None) -> str:
    """Digest of everything that a measurement depends on."""
    machine = processor()
    packages = {name: version(name) for name in ("torch", "onnxruntime", "openvino") if installed(name)}
    facts: list[Any] = [
        FORMAT,
        __version__,
        machine,
        packages,
        threads,
        list(map(str, chosen)),
        info.digests,
        list(info.image.size),
    ]
    return sha256_bytes(json.dumps(facts, sort_keys=True).encode())[:16]


def places(bundle: Path, key: str) -> tuple[Path, Path]:
    """The files that may hold a choice: beside the bundle, and among the caches."""
    folder = bundle.resolve()
    return folder.parent / f".{folder.name}.speed.json", home() / "speed" / f"{key}.json"


def remembered(bundle: Path, key: str) -> Choice | None:
    """The choice that was kept under that key, if it can be read."""
    for path in places(bundle, key):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, StopIteration):
            tree = read_json(path)
            if tree["format"] == FORMAT and tree["key"] == key:
                return Choice(
                    way=Way(**tree["way"]),
                    timed=tuple(TimedBackend(**row) for row in tree["timed"]),
                    images=str(tree["images"]),
                    batch=int(tree["batch"]),
                    kept=path,
                    remembered=True,
                )
    return None


def keep(bundle: Path, key: str, choice: Choice) -> Choice:
    """Keep a choice that was measured; with the file where it lies, if any place could be written."""
    if len(choice.timed) < 2:
        return choice
    tree = {
        "format": FORMAT,
        "key": key,
        "way": asdict(choice.way),
        "timed": [asdict(one) for one in choice.timed],
        "images": choice.images,
        "batch": choice.batch,
    }
    for path in places(bundle, key):
        with contextlib.suppress(StorageError):
            write_json(path, tree)
            return replace(choice, kept=path)
    return choice


def _opened(way: Way, bundle: Path, info: BundleInfo, threads: int | None) -> Backend:
    return open_backend(way.backend, bundle, info, threads=threads, precision=way.precision)
