"""Pickles of training programs: inert objects are let through, everything else is named and never run."""

from __future__ import annotations

import argparse
import collections
import datetime
import os
import pathlib
import pickle
import shlex
import subprocess
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tesela.checkpoints.files import read_file
from tesela.checkpoints.pickled import Inert, load_pickle
from tesela.core.errors import WeightsError

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3)}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        argparse.Namespace(lr=0.1, betas=(0.9, 0.99), nested=argparse.Namespace(x=1)),
        types.SimpleNamespace(lr=0.1),
        np.float64(0.9),
        np.int64(3),
        np.float32(1),
        np.bool_(True),
        np.arange(4),
        np.dtype("float16"),
        pathlib.PurePosixPath("/data/x"),
        pathlib.Path("runs"),
        pathlib.PureWindowsPath("C:\\data"),
        collections.OrderedDict(a=1),
        collections.Counter("aab"),
        collections.defaultdict(list, a=[1]),
        datetime.datetime(2024, 1, 2),
        datetime.timedelta(seconds=3),
        frozenset({1}),
        range(3),
        torch.Size([1, 2]),
        torch.device("cpu"),
        torch.float16,
        torch.__version__,
    ],
    ids=lambda value: type(value).__name__,
)
def test_inert_objects_beside_the_weights(value: Any, legacy: bool, tmp_path: Path) -> None:
    state = {"state_dict": TENSORS, "epoch": 3, "beside": {"in": [value]}}
    torch.save(state, tmp_path / "m.pth", _use_new_zipfile_serialization=not legacy)
    found = read_file(tmp_path / "m.pth")
    assert found.tensors.keys() == TENSORS.keys()
    assert torch.equal(found.tensors["a.weight"], TENSORS["a.weight"])


def test_attributes_can_be_read_and_their_types_do_not_run(tmp_path: Path) -> None:
    torch.save(
        {"args": argparse.Namespace(gp="avg"), "d": collections.defaultdict(int, a=2)}, tmp_path / "m.pth"
    )
    found = load_pickle(tmp_path / "m.pth")
    assert type(found["args"]) is Inert and vars(found["args"]) == {"gp": "avg"} and found["d"] == {"a": 2}


class Settings:
    """Of a program that is installed nowhere."""


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (os.system, r"(os|posix)\.system"),
        (eval, "eval"),
        (subprocess.check_output, r"(subprocess|commands)\.check_output"),
        (__import__, "__import__"),
        (getattr, "getattr"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_what_could_run_is_refused_by_its_name(
    function: Any, named: str, nested: bool, tmp_path: Path
) -> None:
    trace = tmp_path / "ran"
    attack: Any = Attack(function, f"touch {trace}")
    state = {"state_dict": TENSORS, "args": argparse.Namespace(x=attack) if nested else attack}
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(WeightsError, match=f"could run code: {named}") as caught:
        read_file(tmp_path / "m.pth")
    assert not trace.exists() and "nothing of it was run" in caught.value.message


def test_the_command_of_the_hint_saves_the_tensors_alone(tmp_path: Path) -> None:
    path = tmp_path / "last run.pth"
    torch.save({"state_dict": TENSORS, "settings": Settings()}, path)
    with pytest.raises(WeightsError, match=r"test_pickled\.Settings") as caught:
        read_file(path)
    program, option, code = shlex.split(caught.value.hint.partition(": ")[2])
    assert (program, option) == ("python", "-c")
    exec(code)
    found = read_file(tmp_path / "last run-tensors.pth").tensors
    assert torch.equal(found["a.weight"], TENSORS["a.weight"])


def test_whole_models_are_named(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "m.pth")
    with pytest.raises(WeightsError, match=r"torch\.nn\.modules\.linear\.Linear") as caught:
        read_file(tmp_path / "m.pth")
    assert "state_dict()" in caught.value.hint


def test_damaged_files_are_no_code(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "m.pth")
    whole = (tmp_path / "m.pth").read_bytes()
    (tmp_path / "m.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="truncated or damaged"):
        read_file(tmp_path / "m.pth")
    (tmp_path / "n.pth").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(WeightsError):
        read_file(tmp_path / "n.pth")
