"""Choice of precision and attention kernel by timing a few real steps.

Habit misleads here: bf16 is several times faster than fp32 on a CPU with AMX and slower on one without, and
the fused attention's backward can cost more than plain matrix products. Odd: fp32 is kept unless bf16 wins by
a tenth, and the fused kernel unless the other wins by a twentieth, so that noise does not decide.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tesela.data.batch import Batch
from tesela.tasks.objective import Draw, Objective
from tesela.training.optim.optimizer import Optimizers
from tesela.training.step import TrainingStep, seed_step

SMALLEST_PROBE = 16
#: Share of a run that may be spent on measuring, but for the shortest runs.
SHARE = 0.05
LEAST_SECONDS = 0.5
ADVANTAGE = {"precision": 0.90, "attention": 0.95}


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """Timing of one pair.

    Attributes:
        precision: fp32, bf16 or fp16.
        attention: fused, matmul or cpu_bf16.
        seconds: best time of one step.
    """

    precision: str
    attention: str
    seconds: float


def candidates(
    precision: str, attention: str, device: torch.device, *, attends: bool = True, backward: bool = True
) -> list[tuple[str, str]]:
    """The pairs to try; one where both are given.

    Args:
        precision: as configured.
        attention: as configured.
        device: where to compute.
        attends: whether the model has anything that a kernel changes.
        backward: whether gradients are wanted; without them the cpu_bf16 kernel is the plain one.
    """
    if attention == "auto" and not attends:
        attention = "fused"
    precisions = ["fp32", "bf16"] if precision == "auto" else [precision]
    if device.type == "cuda" and precision == "auto" and not torch.cuda.is_bf16_supported():
        precisions = ["fp32", "fp16"]
    if device.type == "mps" and precision == "auto":
        precisions = ["fp32"]
    pairs = list(itertools.product(precisions, ["fused", "matmul"] if attention == "auto" else [attention]))
    if attention == "auto" and backward and device.type == "cpu" and "bf16" in precisions:
        pairs.append(("bf16", "cpu_bf16"))
    return pairs


def time_settings(
    model: nn.Module,
    objective: Objective,
    pairs: list[tuple[str, str]],
    batch: Batch,
    *,
    build: Callable[[nn.Module, nn.Module], Optimizers],
    set_kernel: Callable[[nn.Module, str], Any],
    device: torch.device,
    limit: float,
    images: float = math.inf,
) -> list[Timed]:
    """Time a step with every pair on a copy of ``model``; the model itself is left as it was.

    Where full batches would take longer than ``limit``, all pairs are timed on the same smaller batch, and
    the times scaled up.

    Args:
        model: what will be trained.
        objective: gives the loss.
        pairs: from ``candidates``.
        batch: a real one.
        build: makes the optimizers of a model and its objective.
        set_kernel: switches the attention kernel of a model or an objective.
        device: where the model is.
        limit: about the longest time for all of it, in seconds.
        images: that the run will train on, each epoch counted; a short run is measured for ``SHARE`` of it.
    """
    probe = _Probe(model, objective, batch, build=build, set_kernel=set_kernel, device=device)
    one = probe.seconds_per_image(pairs[0])
    limit = min(limit, max(LEAST_SECONDS, SHARE * one * images))
    size = probe.affordable(one, limit / (4 * len(pairs)))
    found: list[Timed] = []
    for pair in pairs:
        best = min((timed.seconds for timed in found), default=float("inf"))
        seconds = probe.best_time(pair, size, seconds=limit / (2 * len(pairs)), hopeless=3 * best)
        found.append(Timed(precision=pair[0], attention=pair[1], seconds=seconds))
    return found


def fastest(found: list[Timed]) -> Timed:
    """The fastest pair, the more careful one where it is close."""

    def handicapped(timed: Timed) -> float:
        factor = 1.0 if timed.precision == "fp32" else 1 / ADVANTAGE["precision"]
        return timed.seconds * factor * (1.0 if timed.attention == "fused" else 1 / ADVANTAGE["attention"])

    return min(found, key=handicapped)


class _Probe:
    """Runs single steps with a pair on a batch of any size."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        batch: Batch,
        *,
        build: Callable[[nn.Module, nn.Module], Optimizers],
        set_kernel: Callable[[nn.Module, str], Any],
        device: torch.device,
    ) -> None:
        self._model, self._objective, self._device = model, objective, device
        self._batch = batch
        self._build, self._set_kernel = build, set_kernel

    def seconds_per_image(self, pair: tuple[str, str]) -> float:
        """Time of a step on a small batch, by image."""
        step, small = self._step(pair), min(len(self._batch), SMALLEST_PROBE)
        self._time(step, small)
        return self._time(step, small) / small

    def affordable(self, one: float, seconds: float) -> int:
        """The largest batch, halved as needed, whose step should not take longer than ``seconds``.

        Args:
            one: seconds of an image.
            seconds: the limit.
        """
        size = len(self._batch)
        while size // 2 >= SMALLEST_PROBE and one * size > seconds:
            size //= 2
        return size

    def best_time(self, pair: tuple[str, str], size: int, *, seconds: float, hopeless: float) -> float:
        """The shortest of up to eight steps within ``seconds``, scaled to the whole batch.

        The first step, which warms up, counts only where it is hopeless.
        """
        step, scale = self._step(pair), len(self._batch) / size
        first = self._time(step, size)
        if first * scale > hopeless:
            return first * scale
        times: list[float] = []
        while not times or (len(times) < 8 and sum(times) < seconds):
            times.append(self._time(step, size))
        return min(times) * scale

    def _step(self, pair: tuple[str, str]) -> TrainingStep:
        trial, objective = copy.deepcopy((self._model, self._objective))
        for part in (trial, objective):
            self._set_kernel(part, pair[1])
        optimizers = self._build(trial, objective)
        return TrainingStep(
            trial, objective, optimizers, device=self._device, precision=pair[0], clip_norm=1.0
        )

    def _time(self, step: TrainingStep, size: int) -> float:
        seed_step(0, 0)
        begin = time.perf_counter()
        loss = step.loss(step.move(self._batch.first(size)), Draw(0, 0))
        step.backward(loss, share=1.0)
        step.update()
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin
