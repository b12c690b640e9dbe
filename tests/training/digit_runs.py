"""Small runs on scikit-learn's digits, their fingerprints, and ways to disturb them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tesela.runs.folder import Run
from tesela.training import loop
from tesela.training.config import TrainConfig, layered

TINY: dict[str, Any] = {
    "data": {"source": "digits", "subset": 200, "workers": 0},
    "augment": {"crop_padding": 1, "mixup": 0.2},
    "optim": {"lr": 3e-3},
    "ema": {"decay": 0.9},
    "model": "vit_nano",
    "net": {"width": 16, "depth": 2, "heads": 2, "dropout": 0.1, "drop_path": 0.1},
    "epochs": 3,
    "batch_size": 16,
    "accumulate": 2,
    "keep": "last",
    "calibrate": False,
    "precision": "fp32",
    "attention": "fused",
    "threads": 1,
    "log_steps": 4,
    "checkpoint_steps": 4,
    "tensorboard": False,
    "report": False,
}


def tiny(out: Path, **changes: Any) -> TrainConfig:
    """The small run in ``out``, with changes; an empty ``net`` leaves the model as it is."""
    base = {key: value for key, value in TINY.items() if key != "net" or changes.get("net") != {}}
    return layered(base, {"out": str(out)}, changes)


def fingerprint(run: Run) -> str:
    """SHA-256 over the last checkpoint (weights, optimizer, average, position), the rows and the bundle's
    weights."""
    last = max(run.checkpoints.glob("step-*.safetensors"))
    return hashlib.sha256(
        b"".join(path.read_bytes() for path in (last, run.metrics, run.bundle / "model.safetensors"))
    ).hexdigest()


def rows(run: Run, kind: str) -> list[dict[str, Any]]:
    """The rows of one kind in metrics.jsonl."""
    found = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [row for row in found if row["kind"] == kind]


def signal_after(monkeypatch: pytest.MonkeyPatch, place: str, count: int) -> None:
    """SIGTERM to this process the ``count``-th time that the loop reaches a failpoint."""
    seen = 0

    def act(name: str) -> None:
        nonlocal seen
        seen += name == place
        if name == place and seen == count:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "failpoint", act)


def fail_on(operation: str, code: int) -> Callable[[str], None]:
    """Let every call of one kind fail."""

    def act(name: str) -> None:
        if name == operation:
            raise OSError(code, os.strerror(code))

    return act
