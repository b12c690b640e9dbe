"""Packages that are there, and folders that only look like it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tesela.core.packages import installed


def test_a_folder_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shipped_model").mkdir()
    (tmp_path / "real_one.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert installed("real_one")
    assert not installed("shipped_model")
    assert not installed("no_such_package")
    assert installed("numpy") and installed("yaml")


def test_a_folder_beside_a_notebook_is_not_taken_for_timm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export is checked in its library where that is installed; here is only a folder of its name."""
    import torch

    from tesela.checkpoints.timm.through import through_timm

    (tmp_path / "timm").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    if not installed("timm"):
        assert through_timm(tmp_path / "timm", torch.zeros(1, 3, 8, 8), False) == {}
