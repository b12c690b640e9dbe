"""Follow: what a rank does that neither writes nor decides anything.

It has a folder of its own for what its loop would write, which is thrown away. Configuration, choices and
result come from rank 0; a checkpoint is read from the run's folder, which all machines must see.
"""

from __future__ import annotations

import json
import tempfile
import time

from tesela.core.config import build
from tesela.core.files import write_json
from tesela.hardware.device import choose_device, exact_arithmetic
from tesela.hardware.ranks import Ranks
from tesela.runs.folder import Run
from tesela.runs.result import RunResult
from tesela.tasks.opening import open_for_task
from tesela.training.choices import Choices
from tesela.training.config import TrainConfig
from tesela.training.decide import decide
from tesela.training.fit import fit_model
from tesela.training.parallel.agreement import agree_on_data
from tesela.training.prepare import prepare
from tesela.training.stop import Stop


def follow(run: Run, ranks: Ranks, *, stop: Stop, begin: float) -> RunResult:
    """Train with rank 0.

    Args:
        run: the folder that rank 0 writes.
        ranks: this one and the others.
        stop: whether a signal came.
        begin: monotonic time at which this process began.

    Raises:
        PeerLostError: another rank has ended.
        DataError: this machine's data is not that of rank 0.
        StopRequested: a signal came.
    """
    told = json.loads(ranks.hear())
    if told["result"] is not None:
        return RunResult.read(told["result"])
    config = build(TrainConfig, told["config"])
    with tempfile.TemporaryDirectory(prefix="tesela-rank-") as folder:
        own = Run(folder)
        if told["choices"] is not None:
            write_json(own.choices, told["choices"])
        known = Choices.read(own.choices)
        device = choose_device(config.device)
        with exact_arithmetic(device, known.threads if known else config.threads) as threads:
            with stop.interruptible():
                opening = time.monotonic()
                source = open_for_task(config.task, config.data)
                prepared = prepare(config, own, device, source, ranks=ranks)
                agree_on_data(ranks, source)
            write_json(own.choices, json.loads(ranks.hear()))
            decisions = decide(
                prepared,
                Choices.read(own.choices),
                threads=threads,
                begin=begin,
                spent=0.0,
                opening=opening,
                console=None,
            )
            fit_model(prepared, decisions, stop=stop, console=None, checkpoints=run.checkpoints)
            decisions.training.close()
        return RunResult.read(json.loads(ranks.hear()))
