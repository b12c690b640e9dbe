"""Schedules against the closed forms that their papers and PyTorch's own schedulers give."""

from __future__ import annotations

import math

import pytest
import torch

from tesela.core.errors import ConfigError
from tesela.training.optim.schedule import ScheduleConfig, lr_factor


def factors(config: ScheduleConfig, *, total: int, per_epoch: int) -> list[float]:
    return [
        lr_factor(
            config,
            progress=step / total,
            advance=1 / total,
            epoch=step // per_epoch,
            epochs=total / per_epoch,
        )
        for step in range(total)
    ]


def torch_factors(make: object, total: int) -> list[float]:
    """The factors of one of PyTorch's schedulers over a dummy optimizer with rate 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)  # type: ignore[operator]
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_equals_pytorchs() -> None:
    """Reference: torch.optim.lr_scheduler.CosineAnnealingLR."""
    expected = torch_factors(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 40, eta_min=0.1), 40)
    assert factors(ScheduleConfig(warmup=0, floor=0.1), total=40, per_epoch=8) == pytest.approx(
        expected, abs=1e-12
    )


def test_linear_equals_pytorchs() -> None:
    """Reference: torch.optim.lr_scheduler.LinearLR from 1 to 0."""
    expected = torch_factors(lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=40), 40)
    assert factors(ScheduleConfig(name="linear", warmup=0), total=40, per_epoch=8) == pytest.approx(
        expected, abs=1e-12
    )


def test_step_equals_pytorchs_steplr_per_epoch() -> None:
    """Reference: torch.optim.lr_scheduler.StepLR(12, 0.8), stepped once per epoch, as in article B."""
    per_epoch = torch_factors(lambda o: torch.optim.lr_scheduler.StepLR(o, 12, gamma=0.8), 50)
    expected = [rate for rate in per_epoch for _ in range(3)]
    assert factors(ScheduleConfig(name="step", warmup=0), total=150, per_epoch=3) == pytest.approx(
        expected, abs=1e-12
    )


def test_rsqrt_falls_with_the_square_root_and_cools_down() -> None:
    """Reference: 1 / sqrt(1 + t / timescale) with a linear fall to zero over the last tenth (arXiv
    2106.04560)."""
    found = factors(
        ScheduleConfig(name="rsqrt", warmup=0, timescale=0.1, cooldown=0.1), total=100, per_epoch=10
    )
    assert found[30] == pytest.approx(1 / math.sqrt(1 + 0.3 / 0.1))
    assert found[95] == pytest.approx(0.5 / math.sqrt(1 + 0.95 / 0.1))


def test_rsqrt_without_a_cool_down_keeps_to_the_square_root() -> None:
    found = factors(
        ScheduleConfig(name="rsqrt", warmup=0, timescale=0.1, cooldown=0), total=100, per_epoch=10
    )
    assert found[95] == pytest.approx(1 / math.sqrt(1 + 0.95 / 0.1))


def test_warmup_rises_by_equal_steps_from_the_first() -> None:
    """Reference: step k of a warm-up over 10 steps has factor (k + 1) / 10."""
    found = factors(ScheduleConfig(name="constant", warmup=0.1), total=100, per_epoch=10)
    assert found[:12] == pytest.approx([0.1 * (k + 1) for k in range(10)] + [1.0, 1.0])


def test_warmup_can_be_counted_in_epochs() -> None:
    """Reference: two epochs of ten steps, twenty steps in all."""
    found = factors(ScheduleConfig(name="constant", warmup=2), total=100, per_epoch=10)
    assert found[9] == pytest.approx(0.5)
    assert found[19] == pytest.approx(1.0)


@pytest.mark.parametrize("values", [{"warmup": -1}, {"floor": 2}, {"step_factor": 0}, {"cooldown": 1}])
def test_senseless_values_are_refused(values: dict[str, float]) -> None:
    """A value out of range names the field."""
    with pytest.raises(ConfigError, match=next(iter(values))):
        ScheduleConfig(**values)  # type: ignore[arg-type]
