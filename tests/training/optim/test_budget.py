"""Numbers of steps and progress, by hand and by simulation."""

from __future__ import annotations

import pytest

from tesela.training.optim.budget import Budget, refit, steps_in


def test_progress_is_the_share_of_steps() -> None:
    """Reference: step / total."""
    budget = Budget(((0, 200),))
    assert [budget.progress(step) for step in (0, 50, 200)] == [0.0, 0.25, 1.0]


def test_a_refit_keeps_progress_continuous_and_ends_at_one() -> None:
    """Reference: by hand; at step 50 of 200 a quarter is done, and the other three quarters go to 100 more
    steps."""
    budget = Budget(((0, 200),)).refitted(50, 150)
    assert budget.total == 150
    assert budget.progress(50) == 0.25
    assert budget.progress(100) == pytest.approx(0.25 + 0.75 / 2)
    assert budget.progress(150) == pytest.approx(1.0)


def test_a_replay_does_not_see_later_refits() -> None:
    """A run resumed before a refit repeats the same progress as at first."""
    budget = Budget(((0, 200),)).refitted(50, 150).refitted(120, 400)
    assert [budget.progress(step) for step in (10, 49)] == [0.05, 0.245]
    assert budget.at(49).total == 200
    assert budget.at(60).total == 150


def test_steps_that_fit() -> None:
    """Reference: 100 s, 1 s per step, 10 s after every 10 steps.

    Each step costs 2 s, and the last validation is set aside.
    """
    assert steps_in(100, step_seconds=1.0, epoch_seconds=10.0, steps_per_epoch=10) == 45


def test_a_run_on_a_slower_machine_ends_in_time() -> None:
    """Simulation: the machine is half as fast as measured.

    With refits every twentieth the end is within 2 % of the budget.
    """
    seconds, budget, now, step = 1000.0, Budget(((0, 1000),)), 0.0, 0
    while step < budget.total:
        step, now = step + 1, now + 2.0
        if step % max(5, budget.total // 20) == 0:
            budget = refit(budget, step=step, seconds_left=seconds - now, seconds_per_step=now / step)
    assert now == pytest.approx(seconds, rel=0.02)
    assert budget.progress(step) == pytest.approx(1.0)


def test_small_deviations_change_nothing() -> None:
    """Within 1.5 % the number of steps stays."""
    budget = Budget(((0, 1000),))
    assert refit(budget, step=500, seconds_left=505, seconds_per_step=1.0) is budget


def test_two_refits_share_out_what_is_left_each_time() -> None:
    """100 steps; after 20 of them 60 in all.

    After 40 of them 140: shares 20/100, then 20/40 of the rest, then 1/100 of the rest a step.
    """
    budget = Budget(((0, 100), (20, 60), (40, 140)))
    assert budget.progress(20) == pytest.approx(0.2)
    assert budget.progress(30) == pytest.approx(0.2 + 0.8 * 10 / 40)
    assert budget.progress(40) == pytest.approx(0.2 + 0.8 * 20 / 40)
    assert budget.progress(90) == pytest.approx(0.6 + 0.4 * 50 / 100)
    assert budget.progress(140) == 1.0
