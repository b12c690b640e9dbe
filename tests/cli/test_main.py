"""The command line as a user meets it: help, two-line errors, exit codes.

Run in this process, output captured.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tesela
from tesela.cli.main import VERBS, complain, run
from tesela.core.errors import DataError, InterruptedRunError


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [verb for verb, _, _ in VERBS if f" {verb} " not in shown] == []


@pytest.mark.parametrize("verb", [verb for verb, _, _ in VERBS])
def test_every_verb_has_help_with_json(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    if verb == "data":
        assert run(["data", "check", "--help"]) == 0
        shown = capsys.readouterr().out
    assert "--json" in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"tesela {tesela.__version__}"


@pytest.mark.parametrize(
    ("words", "code", "message", "hint"),
    [
        (["trian"], 2, "error: unknown command 'trian'", "hint: did you mean train?"),
        (["--verbose"], 2, "error: unknown flag '--verbose'", "hint: did you mean --version?"),
        (["train", "no/such/folder"], 2, "no/such/folder", "hint:"),
        (["evaluate", "no/such/run"], 2, "no/such/run", "hint:"),
        (["predict", "no/such/run", "a.png"], 2, "no/such/run", "hint:"),
        (["export", "no/such/run", "--to", "onnx"], 2, "no/such/run", "hint:"),
        (["serve", "no/such/run"], 2, "no/such/run", "hint:"),
        (["explain", "no/such/run", "a.png"], 2, "no/such/run", "hint:"),
        (["models", "show", "vit_s61"], 2, "error: unknown model 'vit_s61'", "vit_s16"),
        (["train", "digits", "--model", "vit_s61"], 2, "error: unknown model 'vit_s61'", "vit_s16"),
        (["train", "digits", "--optim.lrr", "1"], 2, "optim.lrr", "lr"),
        (["train", "digits", "--epoch", "1"], 2, "epoch", "epochs"),
        (
            ["train", "digits", "--recipe", "minst_best"],
            2,
            "error: unknown recipe 'minst_best'",
            "mnist_best",
        ),
        (["data", "check", "no/such/folder"], 2, "no/such/folder", "hint:"),
    ],
)
def test_bad_input_is_two_lines_and_an_exit_code(
    words: list[str],
    code: int,
    message: str,
    hint: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(words) == code
    lines = errors(capsys)
    assert len(lines) == 2, lines
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("hint: ")
    assert message in lines[0]
    assert hint in lines[1]


def test_a_long_message_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert complain("two\nlines", "and   a hint", 1) == 1
    assert errors(capsys) == ["error: two lines", "hint: and a hint"]


def test_errors_of_any_kind_have_their_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tesela.cli.verbs import doctor as module

    for error, code in (
        (DataError("a", hint="b"), 1),
        (InterruptedRunError("a", hint="b"), 3),
        (RuntimeError("odd"), 1),
        (KeyboardInterrupt(), 3),
    ):

        def fail(*, json: bool = False, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(module, "doctor", fail)
        assert run(["doctor"]) == code
        assert len(errors(capsys)) == 2


def test_a_missing_package_names_the_extra() -> None:
    """In a process where torch cannot be imported."""
    blocked = "import sys; sys.modules['torch'] = None; from tesela.cli.main import run; "
    code = blocked + "sys.exit(run(['train', 'digits', '--out', '/nonexistent/x']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == 'hint: pip install "tesela[train]"'
