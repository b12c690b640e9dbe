"""The plan before the first step, and the estimate of a step's time."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tesela.core.errors import StorageError
from tesela.training.planning.plan import Plan, RunFacts
from tesela.training.planning.timing import step_seconds

FACTS = RunFacts(
    data="digits",
    images={"train": 1437, "val": 180, "test": 180},
    classes=10,
    model="vit_nano",
    parameters=136_138,
    trainable=136_138,
    tuning="",
    view=(8, 8, 1),
)
PLAN = Plan(
    out=Path(),
    batch_size=32,
    steps=880,
    epochs=20.0,
    seconds=95.0,
    precision="fp32, fused attention",
    device="cpu, 2 threads",
    memory=10_000_000,
    memory_free=8_000_000,
    disk=10,
)


def test_it_says_all_that_a_person_needs_before_waiting() -> None:
    """Images, classes, model, steps, time, memory against free memory, disk."""
    text = dict([*FACTS.rows(), *PLAN.rows()])
    assert text["data"] == "digits: 1,437 train, 180 val, 180 test; 10 classes"
    assert text["model"] == "vit_nano, 136,138 parameters, images of 8x8x1"
    assert text["steps"] == "880 of 32 images, 20 epochs"
    assert text["time"] == "about 1 min 35 s"
    assert text["memory"] == "about 10.0 MB of 8.0 MB free  (more than is free)"
    assert text["disk"].startswith("10 B of ")
    head = dataclasses.replace(FACTS, tuning="head", trainable=1_361)
    assert dict(head.rows())["trained"] == "head: 1,361 of 136,138 parameters (1 %)"


def test_a_run_that_cannot_be_saved_is_refused() -> None:
    """Needed and free bytes are in the message."""
    PLAN.check()
    with pytest.raises(StorageError, match=r"1,000,000,000,000,000 bytes needed, [\d,]+ free"):
        dataclasses.replace(PLAN, disk=10**15).check()


def test_a_step_takes_what_is_the_bottleneck() -> None:
    """Reading in between adds; beside a GPU the slower one counts; on a CPU both share the cores."""
    assert step_seconds(1.0, 0.5, workers=0, threads=2, cores=2, shared=True) == 1.5
    assert step_seconds(1.0, 6.0, workers=4, threads=2, cores=8, shared=False) == 1.5
    assert step_seconds(1.0, 0.5, workers=4, threads=2, cores=8, shared=False) == 1.0
    assert step_seconds(1.0, 1.0, workers=1, threads=2, cores=2, shared=True) == 1.5
    assert step_seconds(1.0, 1.0, workers=2, threads=2, cores=8, shared=True) == 1.0
