"""Kill trainings with SIGKILL at random instants, resume, compare (reliability R1 and R2).

    python scripts/kill_training.py --kills 1000        # by hand
    python scripts/kill_training.py --kills 30          # what the tests run
    python scripts/kill_training.py --kills 100 --tune lora --workers ""    # or all, head, bias
    python scripts/kill_training.py --kills 20 --recipe pretrain_dino --workers ""
    python scripts/kill_training.py --kills 20 --taught kept                # or live

Each round starts a small training on real digits, kills it (one time in five inside the checkpoint's writing,
through a named failpoint), resumes it, perhaps kills it again, and lets it end. Its final checkpoint
(weights, optimizer, moving average, position), metrics.jsonl and bundle must have the SHA-256 of a run that
nobody disturbed. Then the same training runs with 0, 1, 2 and 4 loader workers.

Odd: torch is imported once and every process is a fork, which makes a round take about a second. A fork must
not inherit threads, so one thread computes and the parent never does.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import contextlib
import gc
import hashlib
import importlib
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from tesela.core.config import merge
from tesela.core.progress import describe_fields
from tesela.recipes import find_recipe, known
from tesela.runs.folder import Run
from tesela.training.config import TrainConfig, layered
from tesela.training.run import resumed_config, train

SETTINGS: dict[str, Any] = {
    "data": {"source": "digits", "subset": 200, "workers": 0},
    "augment": {"crop_padding": 1, "mixup": 0.2},
    "optim": {"lr": 3e-3},
    "ema": {"decay": 0.9},
    "model": "vit_nano",
    "net": {"width": 16, "depth": 2, "heads": 2, "dropout": 0.1, "drop_path": 0.1},
    "epochs": 2,
    "batch_size": 10,
    "accumulate": 2,
    "label_smoothing": 0.1,
    "patience": 5,
    "precision": "fp32",
    "attention": "fused",
    "threads": 1,
    "log_steps": 5,
    "checkpoint_steps": 4,
    "tensorboard": False,
    "report": False,
}
#: Place and how often it is reached in one sitting, at most.
AIMS = {
    "checkpoint.before_write": 5,
    "file.mid_write": 8,
    "file.before_rename": 8,
    "checkpoint.after_write": 5,
    "checkpoint.after_prune": 5,
    "folder.before_rename": 1,
    "folder.after_rename": 1,
    "loop.after_step": 16,
}
MOST_KILLS_PER_RUN = 4
#: What fine-tuning changes: other classes are learned on the network that the first, undisturbed run made.
TUNED: dict[str, dict[str, Any]] = {
    "all": {"optim": {"lr": 1e-3, "layer_decay": 0.75}, "tune_unfreeze": 1.0},
    "head": {"augment": {}},
    "lora": {"lora": {"rank": 2}},
    "bias": {},
}
#: Images that a teacher is shown: any, while it trains; or each flip of each image once, before.
TAUGHT: dict[str, dict[str, Any]] = {"live": {}, "kept": {"augment": {"hflip": 0.5}}}


#: What of the settings a recipe keeps: what makes a run small and its choices fixed.
SMALL = (
    *("data", "epochs", "batch_size", "accumulate", "precision", "attention", "threads", "log_steps"),
    *("checkpoint_steps", "tensorboard", "report", "model", "net"),
)
#: What is made smaller in a recipe beside that.
REDUCED: dict[str, dict[str, Any]] = {
    "pretrain_dino": {"objective": {"prototypes": 32, "projection_width": 16, "local_crops": 2}}
}


@dataclass(slots=True)
class Tally:
    """What was counted."""

    runs: int = 0
    kills: int = 0
    aimed: int = 0
    equal: int = 0
    different: list[str] = field(default_factory=list)

    def add(self, other: Mapping[str, Any]) -> None:
        """Take in what another process counted."""
        self.runs += other["runs"]
        self.kills += other["kills"]
        self.aimed += other["aimed"]
        self.equal += other["equal"]
        self.different += other["different"]


def fork(work: Callable[[], None], *, log: Path) -> int:
    """Run ``work`` in a child whose output goes to ``log``; its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def sitting(folder: Path, settings: Mapping[str, Any], aim: str | None = None) -> Callable[[], None]:
    """One go at the run in ``folder``: from the start, or from wherever it stands."""

    def work() -> None:
        if aim is not None:
            os.environ["TESELA_FAILPOINT"] = aim
        begun = Run(folder).exists()
        config: TrainConfig = resumed_config(folder) if begun else layered(settings, {"out": str(folder)})
        train(config, resume=begun)

    return work


def await_child(child: int, *, seconds: float | None) -> int | None:
    """The exit status, after SIGKILL where ``seconds`` pass first."""
    if seconds is not None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (ended := os.waitpid(child, os.WNOHANG))[0]:
                return ended[1]
            time.sleep(min(0.002, max(0.0, deadline - time.monotonic())))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def digest(folder: Path) -> str:
    """SHA-256 over the last checkpoint, the rows and the bundle's weights."""
    run = Run(folder)
    last = max(run.checkpoints.glob("step-*.safetensors"))
    best = run.checkpoints / "best.safetensors"  # where a run keeps the best weights
    parts = (last, run.metrics, run.bundle / "model.safetensors", *([best] if best.exists() else []))
    return hashlib.sha256(b"".join(hashlib.sha256(part.read_bytes()).digest() for part in parts)).hexdigest()


def undisturbed(folder: Path, settings: Mapping[str, Any]) -> tuple[str, float]:
    """Digest and seconds of a run that nobody kills."""
    begin = time.monotonic()
    log = folder.with_suffix(".log")
    if await_child(fork(sitting(folder, settings), log=log), seconds=None):
        raise SystemExit(f"the undisturbed run failed:\n{log.read_text()}")
    return digest(folder), time.monotonic() - begin


def disturbed(
    folder: Path,
    settings: Mapping[str, Any],
    generator: random.Random,
    *,
    seconds: float,
    aimed: float,
    tally: Tally,
) -> bool:
    """One run that is killed and resumed until it ends; whether it was killed at all."""
    kills, log = 0, folder.with_suffix(".log")
    while True:
        wanted = kills < MOST_KILLS_PER_RUN and (kills == 0 or generator.random() < 0.4)
        aim, limit = None, None
        if wanted and generator.random() < aimed:
            place = generator.choice(sorted(AIMS))
            aim = f"{place}=kill@{generator.randint(1, AIMS[place])}"
        elif wanted:
            limit = generator.uniform(0, seconds)
        status = await_child(fork(sitting(folder, settings, aim), log=log), seconds=limit)
        if status is not None and os.WIFSIGNALED(status):
            kills, tally.aimed = kills + 1, tally.aimed + (aim is not None)
        elif status:
            tally.different.append(f"{folder.name}: {log.read_text().strip().splitlines()[-1]}")
            return True
        elif Run(folder).result.exists():
            tally.kills += kills
            return kills > 0


def rounds(
    count: int,
    folder: Path,
    settings: Mapping[str, Any],
    *,
    seed: int,
    seconds: float,
    aimed: float,
    expected: str,
) -> Tally:
    """``count`` runs that were each killed at least once, compared with ``expected``."""
    tally, generator, number = Tally(), random.Random(seed), 0
    while tally.runs < count:
        number += 1
        place = folder / f"run-{seed}-{number}"
        failures = len(tally.different)
        if disturbed(place, settings, generator, seconds=seconds, aimed=aimed, tally=tally):
            tally.runs += 1
            if len(tally.different) == failures:
                same = digest(place) == expected
                tally.equal += same
                if not same:
                    tally.different.append(f"{place.name}: other bits")
        if len(tally.different) == failures:
            shutil.rmtree(place, ignore_errors=True)
            place.with_suffix(".log").unlink(missing_ok=True)
    return tally


def spread(
    count: int,
    jobs: int,
    folder: Path,
    settings: Mapping[str, Any],
    *,
    seed: int,
    seconds: float,
    aimed: float,
    expected: str,
) -> Tally:
    """The rounds shared among ``jobs`` processes."""
    children = {}
    for job in range(jobs):
        share = count // jobs + (job < count % jobs)
        answer = folder / f"tally-{job}.json"

        def work(job: int = job, share: int = share, answer: Path = answer) -> None:
            tally = rounds(
                share,
                folder,
                settings,
                seed=seed * 1000 + job,
                seconds=seconds,
                aimed=aimed,
                expected=expected,
            )
            answer.write_text(json.dumps(asdict(tally)))

        children[fork(work, log=folder / f"job-{job}.log")] = answer
    total = Tally()
    for child, answer in children.items():
        if await_child(child, seconds=None):
            raise SystemExit((folder / f"job-{answer.stem.removeprefix('tally-')}.log").read_text())
        total.add(json.loads(answer.read_text()))
    return total


def workers_equal(folder: Path, counts: list[int], settings: Mapping[str, Any], *, expected: str) -> bool:
    """Whether training ends with the same bits for every number of workers, cached or not (R2)."""
    found = {expected}
    for count in counts:
        data = {**settings["data"], "workers": count, "cache": "none"}
        found.add(undisturbed(folder / f"workers-{count}", {**settings, "data": data})[0])
    return len(found) == 1


def settings_for(
    tune: str | None, recipe: str | None, folder: Path, *, taught: str | None = None
) -> dict[str, Any]:
    """The settings of a training from scratch, of a recipe, or of one that starts from the former's network.

    It tunes that network, or learns from it as from a teacher.
    """
    if recipe is not None:
        small = {name: SETTINGS[name] for name in SMALL}
        return merge(merge(find_recipe(recipe), small), REDUCED.get(recipe, {}))
    if taught is not None:
        undisturbed(folder / "teacher", SETTINGS)
        return {**SETTINGS, "seed": 1, "teacher": str(folder / "teacher"), **TAUGHT[taught]}
    if tune is None:
        return SETTINGS
    undisturbed(folder / "source", {**SETTINGS, "data": {**SETTINGS["data"], "classes": "0,1,2,3,4"}})
    kept = {name: value for name, value in SETTINGS.items() if name not in ("model", "net")}
    data = {**SETTINGS["data"], "classes": "5,6,7,8,9"}
    return {**kept, "from": str(folder / "source"), "tune": tune, "data": data, **TUNED[tune]}


def import_what_a_run_imports(folder: Path, settings: Mapping[str, Any]) -> None:
    """Import in the parent what a run imports on its way, so that no fork has to again."""
    answer = folder / "modules.json"

    def work() -> None:
        sitting(folder / "imports", settings)()
        answer.write_text(json.dumps(sorted(sys.modules)))

    if await_child(fork(work, log=folder / "imports.log"), seconds=None):
        raise SystemExit((folder / "imports.log").read_text())
    for name in json.loads(answer.read_text()):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def main() -> int:
    """Count and print one line of JSON; 0 where all is equal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--kills", type=int, default=30, help="runs that are killed at least once and resumed"
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--aimed", type=float, default=0.2, help="share of kills at a named place")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tune", choices=sorted(TUNED), help="kill fine-tunings of this kind instead")
    parser.add_argument("--recipe", choices=known(), help="kill small trainings of this recipe instead")
    parser.add_argument("--taught", choices=sorted(TAUGHT), help="kill trainings with a teacher instead")
    parser.add_argument(
        "--workers", default="0,1,2,4", help="numbers of loader workers to compare; empty for none"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="tesela-kills-"))
    begin = time.monotonic()
    settings = settings_for(arguments.tune, arguments.recipe, folder, taught=arguments.taught)
    import_what_a_run_imports(folder, settings)
    gc.freeze()
    expected, _ = undisturbed(folder / "undisturbed", settings)
    again, seconds = undisturbed(folder / "again", settings)
    tally = spread(
        arguments.kills,
        arguments.jobs,
        folder,
        settings,
        seed=arguments.seed,
        seconds=seconds,
        aimed=arguments.aimed,
        expected=expected,
    )
    counts = [int(word) for word in arguments.workers.split(",") if word]
    workers = workers_equal(folder, counts, settings, expected=expected) if counts else None
    sound = again == expected and tally.equal == tally.runs and not tally.different and workers is not False
    answer = {
        **asdict(tally),
        "workers_equal": workers,
        "sha256": expected,
        "seconds": round(time.monotonic() - begin, 1),
        "ok": sound,
    }
    print(json.dumps(answer))
    if sound:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(
            f"what differs is kept in {folder}; {describe_fields({'equal': tally.equal, 'of': tally.runs})}",
            file=sys.stderr,
        )
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
