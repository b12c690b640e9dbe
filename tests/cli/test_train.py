"""``tesela train`` as a person types it: layers, words, help, errors, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tesela.cli.main import run as tesela
from tesela.cli.verbs.train import layers, sort_words
from tesela.core.config import leaves, read_yaml
from tesela.core.errors import ConfigError, UsageError
from tesela.training.config import TrainConfig, layered

QUICK = ["--model", "vit_nano", "--net.width", "16", "--net.depth=1", "net.heads=2", "--data.subset", "100"]
FIXED = [
    "--batch-size",
    "20",
    "--precision",
    "fp32",
    "--attention",
    "fused",
    "--no-report",
    "--no-tensorboard",
    "--threads",
    "1",
]


def test_words_of_all_forms_end_in_the_configuration(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Reference: the run's config.yaml.

    The last line of standard output is one JSON object as cli.md says.
    """
    out = tmp_path / "run"
    words = [
        "train",
        "digits",
        "--out",
        str(out),
        *QUICK,
        *FIXED,
        "--epochs",
        "1",
        "optim.lr=0.002",
        "--schedule.warmup",
        "0.1",
        "--augment.hflip=0.5",
        "--json",
    ]
    assert tesela(words) == 0
    config = read_yaml(out / "config.yaml")
    assert config["net"] == {"width": 16, "depth": 1, "heads": 2}
    assert (config["optim"]["lr"], config["schedule"]["warmup"], config["augment"]["hflip"]) == (
        0.002,
        0.1,
        0.5,
    )
    assert (config["batch_size"], config["report"], config["data"]["source"]) == (20, False, "digits")
    standard = capfd.readouterr().out.strip().splitlines()
    answer = json.loads(standard[-1])
    assert {"accuracy", "top5", "parameters", "seconds", "images_per_second", "run"} <= set(answer)
    assert len(standard) == 1


def test_fine_tuning_from_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The plan and the JSON tell trained and whole numbers of parameters.

    A head of 2 classes on width 16 has 34.
    """
    base, out = tmp_path / "base", tmp_path / "head"
    assert tesela(["train", "digits", "--out", str(base), *QUICK, *FIXED, "--epochs", "1", "--quiet"]) == 0
    capfd.readouterr()
    words = [
        "--from",
        str(base),
        "--tune",
        "head",
        "--data.classes",
        "3,8",
        "--data.per-class",
        "10",
        "--epochs",
        "2",
        "--image-size",
        "12",
    ]
    assert (
        tesela(["train", "digits", *words, "--no-interpolate-positions", *FIXED, "--out", str(out), "--json"])
        == 0
    )
    captured = capfd.readouterr()
    answer = json.loads(captured.out.strip().splitlines()[-1])
    assert answer["trainable"] == 34
    assert f"head: 34 of {answer['parameters']:,} parameters" in " ".join(captured.err.split())
    assert "each image passes the frozen body once" in " ".join(captured.err.split())
    assert read_yaml(out / "config.yaml")["interpolate_positions"] is False


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    """Reference: by hand; minutes on the command line displace epochs of the file."""
    file = tmp_path / "run.yaml"
    file.write_text("epochs: 5\nseed: 7\noptim:\n  lr: 0.5\n  beta1: 0.8\n")
    config = layered(*layers({"optim.lr": "0.25", "minutes": "3"}, str(file)))
    assert (config.optim.lr, config.optim.beta1, config.seed) == (0.25, 0.8, 7)
    assert (config.minutes, config.epochs) == (3.0, None)


def test_every_field_has_an_option_with_its_help() -> None:
    """Reference: the fields of TrainConfig; run as a process, since that is how help is read."""
    environment = {**os.environ, "COLUMNS": "400", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tesela", "train", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    for leaf in leaves(TrainConfig):
        if leaf.name not in ("net", "objective", "decoder", "data.source"):
            assert leaf.help, f"{leaf.name} has no docstring"
            assert f"--{leaf.name.rstrip('_').replace('_', '-')}" in shown


def test_help_needs_no_torch() -> None:
    """P10: the option list is made from configurations that import nothing heavy."""
    code = "import sys, tesela.cli.verbs.train; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["digits", "--optim.lrr", "3"], "unknown option --optim.lrr", "--optim.lr"),
        (["digits", "optim.learning=3"], "unknown option optim.learning", "optim"),
        (["digits", "--epoch", "3"], "unknown option --epoch", "--epochs"),
        (["digits", "--resum"], "unknown option --resum", "--resume"),
        (["digits", "--epochs", "many"], "epochs must be", "whole number"),
        (["digits", "--net.depht", "3", "--model", "vit_nano"], "depht", "depth"),
        (["digits", "--model", "vit_nanno"], "unknown model 'vit_nanno'", "vit_nano"),
        (["digits", "--image-size", "9", "--model", "vit_nano"], "9", "patch"),
        (["digits", "--net.width"], "--net.width has no value", "--net.width VALUE"),
        (["digits", "more"], "two data sets", "name one"),
        (["/no/such/place"], "no data at /no/such/place", "folder"),
        ([], "no data was named", "tesela train DATA"),
        (["--resume"], "--resume needs the run's folder", "--out"),
        (["digits", "--epochs", "1", "--minutes", "1"], "exclude one another", "one of them"),
        (["digits", "--config", "/no/such.yaml"], "no configuration file", "path"),
    ],
)
def test_wrong_calls_are_two_lines_and_exit_code_2(
    words: list[str],
    message: str,
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What is wrong, and what to do; nothing is left behind for a name that does not exist."""
    monkeypatch.chdir(tmp_path)
    assert tesela(["train", *words, "--quiet"]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 2
    assert message in lines[0]
    assert lines[1].startswith("hint: ")
    assert hint in lines[1] or hint in lines[0]


def test_resume_on_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Exit code 2."""
    assert tesela(["train", "--out", str(tmp_path / "none"), "--resume"]) == 2
    assert "there is no run to resume" in capfd.readouterr().err


def test_words_are_sorted() -> None:
    """A path that holds an equals sign is data where it exists; -- options take one value."""
    assert sort_words(("--net.depth", "6", "photos", "seed=3")) == ("photos", {"net.depth": 6, "seed": "3"})
    with pytest.raises(UsageError):
        sort_words(("a", "b"))
    with pytest.raises(ConfigError):
        sort_words(("nets.depth=3",))


def test_sigterm_ends_with_code_3_within_five_seconds(tmp_path: Path) -> None:
    """R5, from outside: a process is asked to stop; its last words say how to go on."""
    out = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    words = [*QUICK, *FIXED, "--epochs", "2000", "--checkpoint-steps", "1"]
    command = [sys.executable, "-m", "tesela", "train", "digits", "--out", str(out), *words]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    deadline = time.monotonic() + 60
    while not list(out.glob("checkpoints/step-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 3, errors
    assert time.monotonic() - begin < 5
    last = errors.strip().splitlines()
    assert last[-2].startswith("error: stopped by SIGTERM after step")
    assert last[-1] == f"hint: tesela train --out {out} --resume"
