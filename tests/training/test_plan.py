"""The plan before the first step."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tesela.core.errors import StorageError
from tesela.training.plan import Plan

PLAN = Plan(
    out=Path(),
    data="digits",
    images={"train": 1437, "val": 180, "test": 180},
    classes=10,
    model="vit_nano",
    parameters=136_138,
    view=(8, 8, 1),
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
    text = dict(PLAN.rows())
    assert text["data"] == "digits: 1,437 train, 180 val, 180 test; 10 classes"
    assert text["model"] == "vit_nano, 136,138 parameters, images of 8x8x1"
    assert text["steps"] == "880 of 32 images, 20 epochs"
    assert text["time"] == "about 1 min 35 s"
    assert text["memory"] == "about 10.0 MB of 8.0 MB free  (more than is free)"
    assert text["disk"].startswith("10 B of ")
    assert "head" not in text
    assert dict(dataclasses.replace(PLAN, head="kept").rows())["head"] == "kept"


def test_a_run_that_cannot_be_saved_is_refused() -> None:
    """Needed and free bytes are in the message."""
    PLAN.check()
    with pytest.raises(StorageError, match=r"1,000,000,000,000,000 bytes needed, [\d,]+ free"):
        dataclasses.replace(PLAN, disk=10**15).check()
