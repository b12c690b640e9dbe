"""Heads that choose no single class: refused with the reason, and their bodies kept for training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from tests.parity.huggingface_models import PLAIN, saved
from tests.parity.timm_reference import random_tensors

import tesela as ts
from tesela.checkpoints.foreign import image_spec
from tesela.checkpoints.open import open_foreign, open_model
from tesela.cli.main import run
from tesela.core.errors import WeightsError
from tesela.models.bundle import describe, write_bundle
from tesela.models.factory import create_segmenter


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"problem_type": "multi_label_classification"}, "multi_label_classification"),
        ({"problem_type": "regression"}, "regression"),
        ({"function_to_apply": "sigmoid"}, "function_to_apply='sigmoid'"),
        ({"num_labels": 1}, "it has one output"),
    ],
)
def test_softmax_would_say_nonsense_of_them(
    config: dict[str, Any], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = saved("vit", tmp_path / "m", **config)
    for verb in (
        ["convert", str(tmp_path / "m"), str(tmp_path / "b")],
        ["predict", str(tmp_path / "m"), "a.png"],
    ):
        assert run(verb) == 1
        told = capsys.readouterr().err
        assert reason in " ".join(told.split()) and "hint:" in told
    assert not (tmp_path / "b").exists()
    with pytest.raises(WeightsError, match="no classifier of one class") as caught:
        ts.load(tmp_path / "m")
    assert "--from" in caught.value.hint and "--num-classes" in caught.value.hint
    opened = open_foreign(tmp_path / "m", new_head=True)
    assert not opened.model.head.linear.weight.any()  # type: ignore[union-attr, operator]
    assert opened.info.provenance["source"]["head"] is False
    images = torch.randn(1, 3, 24, 24)
    with torch.no_grad():
        tokens = opened.model.features(images).tokens
        torch.testing.assert_close(tokens, theirs.vit(images).last_hidden_state, rtol=1e-4, atol=1e-5)
    assert run(["convert", str(tmp_path / "m"), str(tmp_path / "b"), "--num-classes", "4"]) == 0
    assert "new head of zeros" in capsys.readouterr().err


def test_one_class_is_chosen_where_the_config_says_so(tmp_path: Path) -> None:
    saved("vit", tmp_path, problem_type="single_label_classification")
    assert open_model(tmp_path)[1].num_classes == 5


def test_one_logit_of_timm_and_of_a_segmenter(tmp_path: Path) -> None:
    tensors = random_tensors()
    save_file(
        {**tensors, "head.weight": torch.ones(1, 128), "head.bias": torch.ones(1)}, tmp_path / "m.safetensors"
    )
    with pytest.raises(WeightsError, match="it has one output"):
        open_model(tmp_path / "m.safetensors")
    config = transformers.SegformerConfig(
        num_labels=1, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1]
    )
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(tmp_path / "s")
    with pytest.raises(WeightsError, match="it has one output"):
        open_model(tmp_path / "s")


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    saved("vit", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("quantization_config", "auto_map"):
        (tmp_path / "config.json").write_text(json.dumps({**config, name: {"a": 1}}))
        with pytest.raises(WeightsError, match=name):
            open_model(tmp_path)


@pytest.mark.parametrize(
    ("stated", "known"), [("silu", True), ("swish", True), ("quick_gelu", True), ("mish", False)]
)
def test_activations_of_transformers(stated: str, known: bool, tmp_path: Path) -> None:
    theirs = saved("vit", tmp_path, **{**PLAIN, "hidden_act": stated})
    if not known:
        with pytest.raises(WeightsError, match=stated):
            open_model(tmp_path)
        return
    images = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(
            open_model(tmp_path)[0](images), theirs(images).logits, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("to", ["timm", "hf", "jax"])
@pytest.mark.parametrize(
    ("name", "decoder"),
    [("vit_lite7_p4", "patch"), ("convnextv2_atto_small", "light"), ("resnet18_small", "unet")],
)
def test_a_segmenter_is_no_classifier_there(tmp_path: Path, name: str, decoder: str, to: str) -> None:
    """Refused by that reason, with an export that takes it."""
    sizes: dict[str, Any] = {
        "vit_lite7_p4": {"depth": 1},
        "convnextv2_atto_small": {"widths": (8, 8, 8, 8), "depths": (1, 1, 1, 1)},
        "resnet18_small": {"stages": (1, 1), "width_factor": 0.125},
    }
    size = (32, 32)
    model = create_segmenter(name, num_classes=3, decoder=decoder, image_size=size, seed=0, **sizes[name])
    info = describe(model, name="m", task="segment", labels=["a", "b", "c"], image=image_spec(size, 3))
    write_bundle(tmp_path / "m", model.eval(), info)
    with pytest.raises(WeightsError, match="with a segmenter") as caught:
        ts.export(tmp_path / "m", to=to, out=tmp_path / "out")
    assert "--to onnx" in caught.value.hint and not (tmp_path / "out").exists()
