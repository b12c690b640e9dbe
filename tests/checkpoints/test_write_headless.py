"""Models without a classifier, converted for a number of classes, and exported back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tests.parity.huggingface_models import saved

from tesela.cli.main import run

IMAGES = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("bare", "classes"),
    [
        (True, []),
        *((bare, ["--num-classes", count]) for bare in (True, False) for count in ("1", "7")),
    ],
)
def test_to_transformers_and_back(
    bare: bool, classes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reference: the tokens of the source in transformers; a new classifier of zeros is left out and said."""
    whole = saved("vit", tmp_path / "whole")
    source = whole.vit if bare else whole
    source.save_pretrained(tmp_path / "m")
    assert run(["convert", str(tmp_path / "m"), str(tmp_path / "b"), *classes]) == 0
    assert run(["export", str(tmp_path / "b"), "--to", "hf", "--out", str(tmp_path / "out"), "--json"]) == 0
    told = capsys.readouterr()
    said = json.loads(told.out.splitlines()[-1])
    assert said["architecture"] == "ViTModel"
    assert any("classifier of zeros is left out" in remark for remark in said["remarks"])
    back = transformers.ViTModel.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        wanted = whole.vit.eval()(IMAGES).last_hidden_state
        torch.testing.assert_close(back(IMAGES).last_hidden_state, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("to", ["timm", "jax"])
def test_to_other_libraries(to: str, tmp_path: Path) -> None:
    """No tensor of a classifier is written, and the verb is content with what reads back."""
    whole = saved(
        "vit", tmp_path / "whole", hidden_act="gelu_new" if to == "jax" else "gelu", layer_norm_eps=1e-6
    )
    whole.vit.save_pretrained(tmp_path / "m")
    assert run(["convert", str(tmp_path / "m"), str(tmp_path / "b"), "--num-classes", "5"]) == 0
    assert run(["export", str(tmp_path / "b"), "--to", to, "--out", str(tmp_path / "out")]) == 0
    if to == "timm":
        assert not [name for name in load_file(tmp_path / "out/model.safetensors") if name.startswith("head")]
