"""``tesela serve``: what is refused before anything listens; a running server is tested in tests/serve."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.runtime.bundles import digits_run

from tesela.cli.main import run
from tesela.core.files import unique_names


def test_refusals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TESELA_API_KEY", raising=False)
    model = str(digits_run())
    for words, message in (
        ([], "no model was given"),
        ([str(tmp_path / "absent")], "there is no run or bundle"),
        ([model, "--host", "0.0.0.0"], "no API key is set"),
        ([model, "--host", "0.0.0.0", "--api-key", "short"], "8 characters"),
        ([model, "--port", "99999"], "cannot listen on"),
        ([model, "--queue", "0"], "queue must be 1 or more"),
    ):
        assert run(["serve", *words]) == 2, words
        lines = capsys.readouterr().err.splitlines()
        assert message in lines[0]
        assert lines[1].startswith("hint: ")


def test_names_of_models_are_unique() -> None:
    assert unique_names(["a", "b", "a", "a-2", "a"]) == ["a", "b", "a-2", "a-2-2", "a-3"]
