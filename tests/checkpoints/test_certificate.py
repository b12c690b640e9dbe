"""Certificates of conversions: digests, assumptions, and outputs here and in the library."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from tests.parity import backbone_models, huggingface_models
from tests.parity.timm_reference import logits, random_tensors

from tesela.checkpoints.certificate import CERTIFICATE
from tesela.cli.main import run


def images(size: int) -> torch.Tensor:
    """The input that a certificate speaks of."""
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_logits_of_the_library_stand_beside_ours(tmp_path: Path) -> None:
    theirs = huggingface_models.saved("vit", tmp_path / "hf")
    assert run(["convert", str(tmp_path / "hf"), str(tmp_path / "b")]) == 0
    found = json.loads((tmp_path / "b" / CERTIFICATE).read_text())
    with torch.no_grad():
        wanted = theirs(images(24)).logits[0]
    torch.testing.assert_close(torch.tensor(found["outputs"]), wanted, rtol=1e-5, atol=1e-6)
    reference = found["reference"][f"transformers {transformers.__version__}"]
    torch.testing.assert_close(torch.tensor(reference["outputs"]), wanted, rtol=1e-6, atol=1e-7)
    assert reference["difference"] < 1e-5
    weights = (tmp_path / "hf/model.safetensors").read_bytes()
    assert found["files"]["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert any("preprocessing that is usual" in line for line in found["assumed"])


@pytest.mark.parametrize("name", ["dinov3", "siglip", "clip", "mae", "beit", "aimv2", "clip-whole"])
def test_tokens_of_bodies(name: str, tmp_path: Path) -> None:
    """Equal to the library's; that of a whole two-tower model has no pass for images alone, which is said."""
    backbone_models.saved(name, tmp_path / "hf")
    assert run(["convert", str(tmp_path / "hf"), str(tmp_path / "b")]) == 0
    reference = json.loads((tmp_path / "b" / CERTIFICATE).read_text())["reference"]
    if name == "clip-whole":
        assert isinstance(reference, str)
    else:
        assert [one["difference"] < 1e-5 for one in reference.values()] == [True]


def test_a_file_alone_says_what_was_assumed(tmp_path: Path) -> None:
    tensors = random_tensors()
    save_file(tensors, tmp_path / "model.safetensors")
    assert run(["convert", str(tmp_path / "model.safetensors"), str(tmp_path / "b")]) == 0
    found = json.loads((tmp_path / "b" / CERTIFICATE).read_text())
    assert any("GELU and 2 heads are assumed" in line for line in found["assumed"])
    assert "no folder" in found["reference"]
    wanted = logits(tensors, images(12), heads=2)[0]
    assert (torch.tensor(found["outputs"]) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_a_library_that_computes_otherwise_stops_the_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another activation there than the one that was read: nothing is written."""
    huggingface_models.saved("vit", tmp_path / "hf")
    forward: Any = transformers.ViTForImageClassification.forward

    def other(*words: Any, **fields: Any) -> Any:
        found = forward(*words, **fields)
        found.logits = found.logits * 1.01
        return found

    monkeypatch.setattr(transformers.ViTForImageClassification, "forward", other)
    assert run(["convert", str(tmp_path / "hf"), str(tmp_path / "b")]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "computes other outputs than transformers" in told and not (tmp_path / "b").exists()
