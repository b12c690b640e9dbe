"""Rows are cut back to what the checkpoint knew, and damage to them is noticed."""

from __future__ import annotations

from pathlib import Path

from tesela.runs.folder import Run
from tesela.runs.history import Events, elapsed_seconds


def test_rows_after_the_checkpoint_are_written_anew(tmp_path: Path) -> None:
    """Reference: the bytes of a log that was never interrupted; a half-written last line goes too."""
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    for run in (whole, cut):
        run.path.mkdir()
        events = Events(run, tensorboard=False)
        events.open(None, step=0)
        for step in (1, 2):
            events.row("step", {"step": step, "loss": 1 / step})
        position = events.position()
        events.row("step", {"step": 3, "loss": 1 / 3})
        events.close()
    with cut.metrics.open("ab") as stream:
        stream.write(b'{"kind": "st')
    events = Events(cut, tensorboard=False)
    assert events.open(position, step=2)
    events.row("step", {"step": 3, "loss": 1 / 3})
    events.close()
    assert cut.metrics.read_bytes() == whole.metrics.read_bytes()


def test_changed_rows_are_noticed(tmp_path: Path) -> None:
    """Somebody edited the log: the run goes on, and open tells."""
    run = Run(tmp_path)
    events = Events(run, tensorboard=False)
    events.open(None, step=0)
    events.row("step", {"step": 1, "loss": 0.5})
    position = events.position()
    events.close()
    run.metrics.write_text(run.metrics.read_text().replace("0.5", "0.4"))
    events = Events(run, tensorboard=False)
    assert not events.open(position, step=1)
    events.close()


def test_elapsed_time_is_of_the_last_row_that_can_be_read(tmp_path: Path) -> None:
    """A torn last line is passed over."""
    run = Run(tmp_path)
    assert elapsed_seconds(run) == 0.0
    run.timing.write_text('{"step": 1, "elapsed": 2.5}\n{"step": 2, "elap')
    assert elapsed_seconds(run) == 2.5


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    """Reference: TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = Run(tmp_path)
    events = Events(run, tensorboard=True)
    events.open(None, step=0)
    events.row("step", {"step": 4, "epoch": 0, "loss": 0.25})
    events.close()
    reader = EventAccumulator(str(run.tensorboard))
    reader.Reload()
    assert [(scalar.step, scalar.value) for scalar in reader.Scalars("step/loss")] == [(4, 0.25)]
