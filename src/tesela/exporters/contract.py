"""Contract of an export: the program held against its fp32 model, within stated bounds.

Difference of outputs, agreement of the predicted classes, score, calibration, latency, memory and size stand
in the bundle, on its card, and on the terminal. A program beyond a bound is not kept unless it is forced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tesela.core.errors import WeightsError
from tesela.core.format import byte_size
from tesela.hardware.speed import measure_speed
from tesela.metrics.probability import softmax

if TYPE_CHECKING:
    from tesela.exporters.samples import Samples
    from tesela.models.bundle import BundleInfo
    from tesela.tasks.task import Task

Computation = Callable[[NDArray[np.float32]], NDArray[np.float32]]
#: Batch sizes whose latency is measured, and seconds for each, round by round.
BATCHES, TIMED, ROUNDS = (1, 8), 0.2, 4
#: A latency within this factor of the other is the same: machines are noisy.
LATENCY_NOISE = 1.05
#: Scores that a contract names, where the task has them.
CALIBRATION = "ece"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """Bounds of a program.

    Attributes:
        logits: largest difference of a logit and of a probability; None where rounding makes it meaningless.
        agreement: least share of the images (pixels of a segmenter) with the same predicted class.
        score: most that the task's score may fall.
        faster: whether it must be at least as fast as fp32 in the same engine.
        features: least mean cosine similarity of its features, if it gives them.
    """

    logits: float | None
    agreement: float
    score: float
    faster: bool
    features: float = 0.99


#: By precision. Measured differences of fp32 are near 1e-6.
BOUNDS = {
    "fp32": Bounds(logits=1e-3, agreement=0.0, score=0.001, faster=False, features=0.99999),
    "bf16": Bounds(logits=None, agreement=0.98, score=0.01, faster=False),
    "int8-weights": Bounds(logits=None, agreement=0.99, score=0.01, faster=False),
    "int8": Bounds(logits=None, agreement=0.99, score=0.01, faster=True),
}


@dataclass(kw_only=True, slots=True)
class ProgramRow:
    """Measured values of one program.

    Attributes:
        name: of the program, for people.
        max_abs_logits: largest absolute difference of a logit from the fp32 model.
        max_abs_probability: likewise, of a probability.
        agreement: share of the images, or pixels, with the same predicted class.
        scores: the task's score, and the calibration error; empty without labels.
        latency: seconds of a batch, by its size.
        memory: most memory of a fresh process that predicts, in bytes; None where that is not known.
        bytes: size on disk.
        features: mean cosine similarity of its features with the model's; None where it gives none.
    """

    name: str
    max_abs_logits: float = 0.0
    max_abs_probability: float = 0.0
    agreement: float = 1.0
    scores: dict[str, float] = field(default_factory=dict)
    latency: dict[str, float] = field(default_factory=dict)
    memory: int | None = None
    bytes: int | None = None
    features: float | None = None

    def cells(self, score: str) -> list[str]:
        """The row of the table."""
        value, error = self.scores.get(score), self.scores.get(CALIBRATION)
        return [
            self.name,
            f"{self.max_abs_logits:.1e}",
            f"{self.agreement:.2%}",
            "-" if value is None else f"{value:.4f}",
            "-" if error is None else f"{error:.4f}",
            *(f"{1e3 * self.latency[str(size)]:.2f}" if self.latency else "-" for size in BATCHES),
            byte_size(self.memory) if self.memory else "-",
            byte_size(self.bytes) if self.bytes else "-",
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """The program beside what it is compared with, on the same images.

    Attributes:
        images: what they are.
        kind: ``real`` or ``random``.
        count: how many.
        score: name of the task's score.
        reference: the fp32 model in PyTorch.
        others: the same engine in other precisions.
        program: what is exported.
        bounds: that it was held against.
        problems: bounds that it breaks, each with the numbers.
    """

    images: str
    kind: str
    count: int
    score: str
    reference: ProgramRow
    others: list[ProgramRow]
    program: ProgramRow
    bounds: Bounds
    problems: list[str]

    def table(self) -> list[list[str]]:
        """Header and rows."""
        head = ["program", "logit diff.", "agreement", self.score.replace("_", " "), "ECE"]
        head += [*(f"ms, batch {size}" for size in BATCHES), "memory", "size"]
        return [head, *(row.cells(self.score) for row in (self.reference, *self.others, self.program))]

    def lines(self) -> list[str]:
        """The table for a terminal."""
        rows = self.table()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return [
            f"compared on {self.images}:",
            *(
                "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                for row in rows
            ),
        ]

    def hold_features(self, similarity: float) -> None:
        """Note how alike the features are, and hold that against its bound."""
        self.program.features = similarity
        if not similarity >= self.bounds.features:
            self.problems.append(
                f"its features have a mean cosine similarity of {similarity:.4f} with those of the model, "
                f"less than {self.bounds.features}"
            )

    def markdown(self) -> str:
        """The table for the card."""
        head, *rows = self.table()
        lines = [head, ["---"] * len(head), *rows]
        return f"Compared on {self.images}.\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in lines)

    def mapping(self) -> dict[str, Any]:
        """All values, for JSON."""
        return asdict(self)

    def refuse(self, *, force: bool) -> None:
        """Raise where a bound is broken, unless it is forced.

        Raises:
            WeightsError: with the numbers.
        """
        if self.problems and not force:
            raise WeightsError(
                f"the {self.program.name} program was not kept: {'; '.join(self.problems)}",
                hint="--force keeps it all the same; another --precision may do, or --data with more images",
            )


def measure_contract(
    samples: Samples,
    task: Task,
    info: BundleInfo,
    *,
    reference: Computation,
    others: Sequence[tuple[ProgramRow, Computation]],
    program: tuple[ProgramRow, Computation],
    bounds: Bounds,
) -> Contract:
    """Run all programs over the samples, time them in turns, and hold the program against the bounds."""
    first = ProgramRow(name="PyTorch fp32")
    rows = [(first, reference), *others, program]
    _compare(samples, task, info, rows)
    for size in BATCHES:
        images = samples.first(size)
        times: dict[int, list[float]] = {place: [] for place in range(len(rows))}
        for _ in range(ROUNDS):
            for place, (_, compute) in enumerate(rows):
                timing = measure_speed(partial(compute, images), seconds=TIMED, least=3, warm_up=1)
                times[place].append(timing.low)
        for place, (row, _) in enumerate(rows):
            row.latency[str(size)] = float(np.median(times[place]))
    row = program[0]
    return Contract(
        images=samples.name,
        kind=samples.kind,
        count=samples.count,
        score=task.score,
        reference=first,
        others=[other for other, _ in others],
        program=row,
        bounds=bounds,
        problems=broken_bounds(row, first, [other for other, _ in others], bounds, task.score),
    )


def broken_bounds(
    row: ProgramRow, reference: ProgramRow, others: Sequence[ProgramRow], bounds: Bounds, score: str
) -> list[str]:
    """What a program breaks, each with the numbers; a NaN breaks everything."""
    found = []
    worst = max(row.max_abs_logits, row.max_abs_probability)
    if not np.isfinite(row.max_abs_logits + row.max_abs_probability):
        found.append("it gives values that are no numbers")
    elif bounds.logits is not None and worst > bounds.logits:
        found.append(
            f"it differs from torch by {row.max_abs_logits:.2e} in a logit and "
            f"{row.max_abs_probability:.2e} in a probability, more than {bounds.logits:.0e}"
        )
    if row.agreement < bounds.agreement:
        found.append(
            f"it predicts the same class for {row.agreement:.2%}, less than {bounds.agreement:.2%}, with "
            f"logits up to {row.max_abs_logits:.2e} off"
        )
    if score in row.scores and row.scores[score] < reference.scores[score] - bounds.score:
        found.append(
            f"its {score.replace('_', ' ')} is {row.scores[score]:.4f} and that of fp32 "
            f"{reference.scores[score]:.4f}, more than {bounds.score} apart"
        )
    if bounds.faster:
        for size, seconds in row.latency.items():
            best = min(others, key=lambda other, size=size: other.latency[size], default=None)  # type: ignore[misc]
            if best is not None and seconds > LATENCY_NOISE * best.latency[size]:
                found.append(
                    f"it takes {1e3 * seconds:.2f} ms for a batch of {size} and {best.name} "
                    f"{1e3 * best.latency[size]:.2f} ms"
                )
    return found


def _compare(
    samples: Samples, task: Task, info: BundleInfo, rows: Sequence[tuple[ProgramRow, Computation]]
) -> None:
    """Fill in differences, agreement and scores."""
    scorers: list[Any] = [task.scorer(info.labels) if samples.labelled else None for _ in rows]
    same, total = [0] * len(rows), 0
    for images, batch in samples.batches():
        wanted = rows[0][1](images)
        total += wanted[:, 0].size
        for place, (row, compute) in enumerate(rows):
            found = wanted if place == 0 else compute(images)
            row.max_abs_logits = _larger(row.max_abs_logits, wanted - found)
            row.max_abs_probability = _larger(row.max_abs_probability, softmax(wanted) - softmax(found))
            same[place] += int((wanted.argmax(1) == found.argmax(1)).sum())
            if batch is not None:
                import torch

                scorers[place].update(batch, torch.from_numpy(found))
    for place, (row, _) in enumerate(rows):
        row.agreement = same[place] / max(total, 1)
        if scorers[place] is not None:
            result = scorers[place].result()
            row.scores = {name: float(result[name]) for name in (task.score, CALIBRATION) if name in result}


def _larger(known: float, difference: NDArray[np.floating[Any]]) -> float:
    """The larger of two largest sizes; NaN stays NaN."""
    return float(np.maximum(known, np.abs(difference).max()))
