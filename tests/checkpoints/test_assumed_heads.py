"""Heads that no tensor of a timm checkpoint shows: taken from what is stated, else guessed and said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tests.parity.timm_reference import logits, random_tensors

from tesela.checkpoints.open import open_foreign
from tesela.cli.main import run

TENSORS = random_tensors()
SIZES = {"embed_dim": 128, "depth": 2, "patch_size": 4, "mlp_ratio": 40 / 128}
IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def written(folder: Path, config: dict[str, Any] | None) -> Path:
    """A file, or a folder with a config.json."""
    folder.mkdir()
    save_file(TENSORS, folder / "model.safetensors")
    if config is None:
        return folder / "model.safetensors"
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("config", "heads", "note"),
    [
        (None, 2, "says neither activation nor heads: GELU and 2 heads are assumed"),
        ({"pretrained_cfg": {"mean": [0.5] * 3}}, 2, "says neither activation nor heads"),
        ({"pretrained_cfg": {}, "model_args": {"num_heads": 4}}, 4, "says no activation: GELU is assumed"),
        (
            {"pretrained_cfg": {}, "model_args": {"act_layer": "gelu"}},
            2,
            "says no heads: 2 heads are assumed",
        ),
        ({"architecture": "vit_large_patch16_224", "model_args": SIZES}, 16, ""),
        ({"architecture": "vit_base_patch16_224", "model_args": {**SIZES, "num_heads": 8}}, 8, ""),
    ],
)
def test_what_is_taken_and_said(config: dict[str, Any] | None, heads: int, note: str, tmp_path: Path) -> None:
    """Reference: timm's arithmetic with that number of heads, in float64."""
    opened = open_foreign(written(tmp_path / "m", config))
    with torch.no_grad():
        found = opened.model(IMAGES).double()
    wanted = logits(TENSORS, IMAGES, heads=heads)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert [note in remark for remark in opened.remarks if "assumed" in remark] == ([True] if note else [])


def test_it_is_said_each_time_a_verb_reads_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where an earlier conversion is found again; once converted with a number, no more."""
    monkeypatch.setenv("TESELA_HOME", str(tmp_path / "home"))
    file = written(tmp_path / "m", None)
    Image.new("RGB", (12, 12), "red").save(tmp_path / "a.png")
    for _ in range(2):
        assert run(["predict", str(file), str(tmp_path / "a.png")]) == 0
        told = " ".join(capsys.readouterr().err.split())
        assert "2 heads are assumed; another number: tesela convert SOURCE BUNDLE --heads N" in told
    assert run(["convert", str(file), str(tmp_path / "b"), "--heads", "4"]) == 0
    assert "heads are assumed" not in " ".join(capsys.readouterr().err.split())
    assert run(["predict", str(tmp_path / "b"), str(tmp_path / "a.png")]) == 0
    assert "assumed" not in capsys.readouterr().err
