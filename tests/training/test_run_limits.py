"""Runs that meet a limit: a NaN, early stopping, a time budget, a full disk; and what a run learns."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from tests.training.digit_runs import TINY, fail_on, fingerprint, rows, signal_after, tiny

from tesela.core import files
from tesela.core.errors import (
    DivergedError,
    InterruptedRunError,
    StorageError,
)
from tesela.core.failpoint import failpoint
from tesela.core.files import read_json
from tesela.runs.folder import Run
from tesela.training import loop
from tesela.training.config import layered
from tesela.training.run import resumed_config, train
from tesela.training.state.checkpoint import Checkpoints, read_checkpoint


def test_nan_stops_with_step_and_cause_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    """A rate of 1e30 breaks the weights in the first step.

    The cause is named and no broken state is saved.
    """
    run = Run(tmp_path / "run")
    with pytest.raises(
        DivergedError,
        match=r"the loss became \w+ at step \d+ \(epoch 0, learning rate "
        r".*first tensor that is not finite is",
    ):
        train(
            tiny(
                run.path,
                optim={"lr": 1e30, "name": "sgd"},
                schedule={"warmup": 0},
                clip_norm=0,
                checkpoint_steps=1,
            )
        )
    for step in Checkpoints(run.checkpoints).steps():
        state = read_checkpoint(Checkpoints(run.checkpoints).path(step))
        assert all(bool(torch.isfinite(tensor).all()) for tensor in state["model"].values())


def test_early_stopping_ships_the_best_weights(tmp_path: Path) -> None:
    """A rate that ruins the model after the warm-up.

    The run stops, and the bundle is of the best epoch, not the last.
    """
    import safetensors.torch

    run = Run(tmp_path / "run")
    answer = train(
        tiny(
            run.path,
            epochs=30,
            patience=2,
            keep="best",
            ema={"decay": 0.0},
            optim={"lr": 1.0},
            schedule={"warmup": 4.0},
        )
    )
    scores = [row["val_accuracy"] for row in rows(run, "epoch")]
    best = scores.index(max(scores))
    assert len(scores) == best + 3
    assert answer.steps == 7 * len(scores)
    kept = read_checkpoint(run.checkpoints / "best.safetensors")
    latest = max(place for place, score in enumerate(scores) if score == max(scores))
    assert kept["step"] == 7 * (latest + 1)
    assert read_json(run.bundle / "config.json")["provenance"]["best_step"] == 7 * (latest + 1)
    shipped = safetensors.torch.load_file(run.bundle / "model.safetensors")
    assert all(torch.equal(shipped[name], kept["model"][name]) for name in shipped)


def test_it_learns(tmp_path: Path) -> None:
    """Loss falls and accuracy on digits that were not trained on is far above chance (0.1)."""
    plain = {
        "accumulate": 1,
        "net": {},
        "augment": {"mixup": 0.0, "crop_padding": 0},
        "data": {"subset": 800},
        "ema": {"decay": 0.0},
    }
    answer = train(tiny(tmp_path / "run", epochs=3, optim={"name": "muon", "lr": 0.01}, **plain))
    losses = [row["train_loss"] for row in rows(Run(tmp_path / "run"), "epoch")]
    assert losses[-1] < 0.5 * losses[0]
    assert answer.accuracy is not None
    assert answer.accuracy > 0.8


def test_choices_are_measured_recorded_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pairs of precision and kernel are timed, the fastest within the stated margins is taken, and
    resuming keeps it."""
    run = Run(tmp_path / "run")
    signal_after(monkeypatch, "loop.after_step", 2)
    with pytest.raises(InterruptedRunError):
        train(tiny(run.path, precision="auto", attention="auto", batch_size="auto"))
    monkeypatch.undo()
    chosen = run.choices.read_text()
    measured = {(row[0], row[1]): row[2] for row in json.loads(chosen)["measured"]}
    assert set(measured) == {(p, a) for p in ("fp32", "bf16") for a in ("fused", "matmul")} | {
        ("bf16", "cpu_bf16")
    }
    pair = json.loads(chosen)["precision"], json.loads(chosen)["attention"]
    assert measured[pair] <= min(measured.values()) / 0.85
    assert json.loads(chosen)["batch_size"] == 32
    train(resumed_config(run.path), resume=True)
    assert run.choices.read_text() == chosen


def test_minutes_bound_the_run(tmp_path: Path) -> None:
    """Everything, evaluation included, ends within the budget, and most of it is used."""
    config = layered(TINY, {"out": str(tmp_path / "run"), "minutes": 0.15})
    assert config.epochs is None
    answer = train(config)
    assert answer.seconds <= 0.15 * 60 * 1.1
    assert answer.seconds >= 0.15 * 60 * 0.4
    assert json.loads(Run(tmp_path / "run").choices.read_text())["budget"][-1][1] == answer.steps


def test_a_full_disk_is_told_and_the_run_goes_on_later(
    reference: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R3: the disk fills up in the middle; after space was freed the run ends with the same bits."""
    run = Run(tmp_path / "run")
    seen = [0]

    def act(name: str) -> None:
        seen[0] += 1
        if seen[0] == 7:
            monkeypatch.setattr(files, "before_io", fail_on("write", errno.ENOSPC))
        failpoint(name)

    monkeypatch.setattr(loop, "failpoint", act)
    with pytest.raises(StorageError, match="bytes needed"):
        train(tiny(run.path))
    monkeypatch.undo()
    train(resumed_config(run.path), resume=True)
    assert fingerprint(run) == fingerprint(reference)
