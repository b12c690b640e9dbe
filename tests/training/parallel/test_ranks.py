"""Training by 2 and 4 processes, against the same training by one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.pictures import make_picture, make_pictures
from tests.training.parallel.together import curve, largest_difference, plain, together, trained

from tesela.core.files import read_json
from tesela.runs.folder import Run
from tesela.tasks.opening import open_for_task
from tesela.training.parallel import follow
from tesela.training.run import train

#: Of losses and scores in fp32 over more than 50 steps.
CLOSE = 1e-6


def make_scenes(folder: Path) -> Path:
    """Discs on noise with masks, a share of the pixels ignored and not the same in each image."""
    draw = np.random.default_rng(0)
    rows, columns = np.indices((32, 32))
    for number in range(40):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "masks").mkdir(exist_ok=True)
        top, left = draw.integers(8, 24, 2)
        mask = ((rows - top) ** 2 + (columns - left) ** 2 < 60).astype(np.uint8)
        image = draw.integers(0, 120, (32, 32, 3)) + 90 * mask[..., None]
        mask[: number % 9] = 255
        Image.fromarray(image.astype(np.uint8)).save(folder / "images" / f"{number:02d}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number:02d}.png")
    (folder / "classes.csv").write_text("value,name,ignored\n0,ground,\n1,disc,\n255,border,yes\n")
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run by one process."""
    run = Run(tmp_path_factory.mktemp("parallel") / "alone")
    train(plain(run.path))
    return run


@pytest.mark.parametrize("count", [2, 4])
def test_the_curve_is_that_of_one_process(alone: Run, count: int, tmp_path: Path) -> None:
    """With MixUp, accumulation, a moving average, and a last step of fewer images."""
    run = Run(tmp_path / "run")
    assert trained(plain(run.path), count) == [0] * count
    assert len(curve(alone)) >= 50
    assert largest_difference(alone, run) <= CLOSE
    first, second = read_json(alone.evaluation), read_json(run.evaluation)
    assert second["images"] == first["images"] and second["accuracy"] == first["accuracy"]
    assert len([path for path in run.path.rglob("*.jsonl") if path.name == "metrics.jsonl"]) == 1


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "batch norm": (
        "digits",
        {
            "model": "cct_2_3x2_32",
            "net": {
                "depth": 1,
                "tokenizer_norm": "batch",
                "width": 16,
                "heads": 2,
                "drop_path": 0.0,
                "attention_dropout": 0.0,
            },
            "augment": {"mixup": 0.0},
        },
    ),
    "segmentation": (
        "scenes",
        {
            "model": "vit_lite6_p4",
            "net": {"depth": 1, "width": 16, "heads": 2},
            "decoder": {"name": "linear"},
            "augment": {"mixup": 0.0},
            "objective": {"dice": 1.0, "focal": 0.5, "cross_entropy": 1.0, "class_weights": "sqrt"},
        },
    ),
    "dino": (
        "digits",
        {
            "task": "pretrain",
            "augment": {"mixup": 0.0},
            "objective": {"method": "dino", "prototypes": 32, "projection_width": 32, "local_crops": 2},
        },
    ),
    "mae": ("digits", {"task": "pretrain", "augment": {"mixup": 0.0}, "objective": {"method": "mae"}}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_task_has_the_curve_of_one_process(case: str, tmp_path: Path) -> None:
    data, changes = CASES[case]
    source = str(make_scenes(tmp_path / "scenes")) if data == "scenes" else "digits"
    settings: dict[str, Any] = {
        "data": {"source": source, "workers": 0, **({} if data == "scenes" else {"subset": 96})},
        "epochs": 3,
        "batch_size": 12,
        **changes,
    }
    one, two = Run(tmp_path / "one"), Run(tmp_path / "two")
    train(plain(one.path, **settings))
    assert trained(plain(two.path, **settings), 2) == [0, 0]
    assert largest_difference(one, two) <= 5 * CLOSE


def test_a_teacher_teaches_every_rank(alone: Run, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "objective": {"teacher": str(alone.path)},
        "epochs": 3,
        "augment": {"crop_padding": 1},
    }
    one, two = Run(tmp_path / "one"), Run(tmp_path / "two")
    train(plain(one.path, **settings))
    assert trained(plain(two.path, **settings), 2) == [0, 0]
    assert largest_difference(one, two) <= CLOSE


def weights(run: Run) -> str:
    """Digest of what is shipped and of the last checkpoint."""
    last = max(run.checkpoints.glob("step-*.safetensors"))
    return hashlib.sha256(
        last.read_bytes() + (run.bundle / "model.safetensors").read_bytes() + run.metrics.read_bytes()
    ).hexdigest()


def test_it_resumes_on_fewer_processes(alone: Run, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    assert set(trained(plain(run.path), 4, TESELA_FAILPOINT="loop.after_step=kill@21")) == {-9}
    codes = trained(plain(run.path), 2, resume=True, TESELA_FAILPOINT="loop.after_step=kill@20")
    assert set(codes) == {-9}
    train(plain(run.path), resume=True)
    assert largest_difference(alone, run) <= CLOSE


def test_a_rank_that_is_killed_ends_the_others_and_the_restart_has_the_same_bits(tmp_path: Path) -> None:
    whole, run = Run(tmp_path / "whole"), Run(tmp_path / "run")
    settings: dict[str, Any] = {"epochs": 3}
    assert trained(plain(whole.path, **settings), 2) == [0, 0]

    def one(rank: int) -> None:
        if rank == 1:
            os.environ["TESELA_FAILPOINT"] = "loop.after_step=kill@9"
        train(plain(run.path, **settings))

    assert together(2, one) == [1, -9]
    assert trained(plain(run.path, **settings), 2, TORCHELASTIC_RESTART_COUNT="1") == [0, 0]
    assert weights(run) == weights(whole)


@pytest.mark.parametrize("shard", ["none", "full"])
def test_a_signal_stops_all_ranks_between_two_steps(shard: str, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")

    def one(rank: int) -> None:
        if rank == 1:
            os.environ["TESELA_FAILPOINT"] = "loop.after_step=term@5"
        train(plain(run.path, shard=shard))

    assert together(2, one) == [3, 3]
    assert max(run.checkpoints.glob("step-*.safetensors")).name == "step-000000005.safetensors"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rank, path: {"seed": rank}, "disagree on the configuration"),
        (lambda rank, path: {"batch_size": 3, "accumulate": 1}, "cannot be shared by 4 processes"),
    ],
)
def test_ranks_that_disagree_or_have_nothing_to_do_are_refused(
    change: Callable[[int, Path], dict[str, Any]],
    said: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def one(rank: int) -> None:
        train(plain(tmp_path / "run", **change(rank, tmp_path)))

    assert set(together(4, one)) <= {1, 2}
    assert said in capfd.readouterr().out


def test_ranks_with_other_data_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The same path on two machines, with another image on one of them."""
    folder = make_pictures(tmp_path / "photos", {"cat": 30, "dog": 30})
    settings: dict[str, Any] = {"data": {"source": str(folder), "workers": 0}, "batch_size": 8}

    def one(rank: int) -> None:
        if rank == 1:

            def other(*words: Any) -> Any:
                make_picture(folder / "cat" / "another.png", 77)
                return open_for_task(*words)

            setattr(follow, "open_for_task", other)  # noqa: B010
        train(plain(tmp_path / "run", **settings))

    assert set(together(2, one)) == {1}
    said = capfd.readouterr().out
    assert "rank 0 and rank 1 disagree on the data" in said
    assert not (tmp_path / "run" / "choices.json").exists()
