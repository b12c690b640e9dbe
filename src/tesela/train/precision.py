"""Precision and attention kernel by measurement: a few real steps with each pair, the fastest wins.

Habit misleads here: bf16 is several times faster than fp32 on a CPU with AMX and slower on one without, and the fused attention's
backward can cost more than plain matrix products. Odd: fp32 is kept unless bf16 wins by a tenth, and the fused kernel unless the other
wins by a twentieth, so that noise does not decide.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tesela.objectives.base import Objective
from tesela.train.optim import Optimizers
from tesela.train.step import Step, seed_step

ADVANTAGE = {"precision": 0.90, "attention": 0.95}


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """What one pair took.

    Attributes:
        precision: fp32, bf16 or fp16.
        attention: fused or matmul.
        seconds: best time of one step.
    """

    precision: str
    attention: str
    seconds: float


def candidates(precision: str, attention: str, device: torch.device) -> list[tuple[str, str]]:
    """The pairs to try; one where both are given."""
    precisions = ["fp32", "bf16"] if precision == "auto" else [precision]
    if device.type == "cuda" and precision == "auto" and not torch.cuda.is_bf16_supported():
        precisions = ["fp32", "fp16"]
    if device.type == "mps" and precision == "auto":
        precisions = ["fp32"]
    return list(itertools.product(precisions, ["fused", "matmul"] if attention == "auto" else [attention]))


def measure(
    model: nn.Module,
    objective: Objective,
    pairs: list[tuple[str, str]],
    batch: tuple[Tensor, Tensor],
    *,
    build: Callable[[nn.Module], Optimizers],
    set_kernel: Callable[[nn.Module, str], Any],
    device: torch.device,
    seconds: float = 2.0,
) -> list[Timed]:
    """Time a step with every pair on a copy of ``model``; the model itself is left as it was.

    Args:
        model: what will be trained.
        objective: gives the loss.
        pairs: from ``candidates``.
        batch: real images and targets.
        build: makes the optimizers.
        set_kernel: switches a model's attention kernel.
        device: where the model is.
        seconds: longest time for one pair, after its first step.
    """
    found: list[Timed] = []
    for precision, attention in pairs:
        trial = copy.deepcopy(model)
        set_kernel(trial, attention)
        step = Step(trial, objective, build(trial), device=device, precision=precision, clip_norm=1.0)
        best = min((timed.seconds for timed in found), default=float("inf"))
        found.append(Timed(precision=precision, attention=attention, seconds=_best_time(step, batch, seconds=seconds, hopeless=3 * best)))
    return found


def choose(found: list[Timed]) -> Timed:
    """The fastest pair, the more careful one where it is close."""

    def handicapped(timed: Timed) -> float:
        factor = 1.0 if timed.precision == "fp32" else 1 / ADVANTAGE["precision"]
        return timed.seconds * factor * (1.0 if timed.attention == "fused" else 1 / ADVANTAGE["attention"])

    return min(found, key=handicapped)


def _best_time(step: Step, batch: tuple[Tensor, Tensor], *, seconds: float, hopeless: float) -> float:
    """The shortest of up to eight steps within ``seconds``; the first one, which warms up, counts only where it is hopeless."""
    first = _time(step, batch)
    if first > hopeless:
        return first
    times: list[float] = []
    while not times or (len(times) < 8 and sum(times) < seconds):
        times.append(_time(step, batch))
    return min(times)


def _time(step: Step, batch: tuple[Tensor, Tensor]) -> float:
    seed_step(0, 0)
    begin = time.perf_counter()
    loss = step.loss(*step.move(*batch))
    step.backward(loss, share=1.0)
    step.update()
    if step.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin
