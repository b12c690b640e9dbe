"""Few-shot accuracy while a model trains: the values, the bits of the training, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.digit_runs import fingerprint, rows, signal_after, tiny

from tesela.core.errors import InterruptedRunError, TeselaError
from tesela.evaluation.few_shot import few_shot
from tesela.evaluation.readers import Reading
from tesela.runs.folder import Run
from tesela.training.run import resumed_config, train
from tesela.training.state.checkpoint import Checkpoints


def weights(run: Run) -> dict[str, torch.Tensor]:
    """The trained weights of the newest checkpoint."""
    loaded = Checkpoints(run.checkpoints).load_newest()
    assert loaded is not None
    found: dict[str, torch.Tensor] = loaded.state["model"]
    return found


def test_a_training_that_is_watched_has_the_same_bits(reference: Run, tmp_path: Path) -> None:
    """Reference: weights of the run without it, and the accuracy of its finished model on the same images."""
    run = Run(tmp_path / "run")
    train(tiny(run.path, few_shot="5,1"))
    mine, plain = weights(run), weights(reference)
    assert mine.keys() == plain.keys() and all(torch.equal(mine[name], plain[name]) for name in plain)
    last = rows(run, "epoch")[-1]
    found = few_shot(run.path, shots=[1, 5], draws=3, split="val", reading=Reading(readers=("ridge",)))
    for row in found["few_shot"]:
        assert last[f"val_few_shot_{row['shots']}"] == pytest.approx(row["ridge"]["mean"], abs=1e-9)
    assert not any(name.startswith("val_few") for name in rows(reference, "epoch")[-1])


def test_a_watched_training_resumes_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, stopped = Run(tmp_path / "whole"), Run(tmp_path / "stopped")
    train(tiny(whole.path, few_shot="2"))
    signal_after(monkeypatch, "loop.after_step", 9)
    with pytest.raises(InterruptedRunError):
        train(tiny(stopped.path, few_shot="2"))
    monkeypatch.undo()
    train(resumed_config(stopped.path), resume=True)
    assert fingerprint(stopped) == fingerprint(whole)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"few_shot": "1,500"}, "fewer than 500 shots"),
        ({"few_shot": "0"}, "1 or more"),
        ({"few_shot": "1", "data": {"source": "digits", "subset": 200, "val_fraction": 0}}, "validation"),
    ],
)
def test_what_cannot_be_watched_is_refused_at_once(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    run = Run(tmp_path / "run")
    with pytest.raises(TeselaError, match=said):
        train(tiny(run.path, **options))
    assert not run.path.exists()
