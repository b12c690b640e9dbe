"""Checkpoints of wrapped models and training states: which tensors are taken, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.parity.huggingface_models import close, result, saved
from tests.parity.timm_reference import logits, random_tensors

from tesela.checkpoints.open import open_foreign, open_model
from tesela.cli.main import run
from tesela.core.errors import WeightsError

TENSORS = random_tensors()
IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
WANTED = logits(TENSORS, IMAGES, heads=2)


def under(prefix: str, tensors: dict[str, Any] = TENSORS) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def written(place: Path, found: dict[str, Any]) -> Path:
    """Pickled, or in safetensors, by the ending."""
    if place.suffix == ".safetensors":
        save_file(found, place)
    else:
        torch.save(found, place)
    return place


def same(place: Path) -> list[str]:
    """The remarks, where the model computes what the bare tensors do."""
    opened = open_foreign(place)
    with torch.no_grad():
        found = opened.model(IMAGES).double()
    assert (found - WANTED).abs().max() <= 1e-5 * WANTED.abs().max()
    return opened.remarks


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "net.", "backbone.", "encoder.vit.", "module.model.", "student.backbone."]
)
def test_a_prefix_of_all_names_is_taken_off_and_said(prefix: str, ending: str, tmp_path: Path) -> None:
    remarks = same(written(tmp_path / f"m{ending}", under(prefix)))
    assert f"the prefix {prefix!r} before the names was taken off" in remarks


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_wrappers_inside_of_names(ending: str, tmp_path: Path) -> None:
    """Of torch.compile, FSDP and activation checkpointing, around the whole or around each block."""
    names = {
        "_orig_mod.{}": "{}",
        "module._orig_mod.{}": "{}",
        "{}": "blocks.{i}._orig_mod.",
        "_fsdp_wrapped_module.{}": "blocks.{i}._checkpoint_wrapped_module.",
    }
    for number, (outer, inner) in enumerate(names.items()):
        found = {}
        for name, tensor in TENSORS.items():
            head, _, rest = name.partition(".")
            if head == "blocks" and "{i}" in inner:
                index, _, last = rest.partition(".")
                name = inner.format(i=index) + last
            found[outer.format(name)] = tensor
        remarks = same(written(tmp_path / f"{number}{ending}", found))
        assert any("taken off" in remark for remark in remarks)


def test_bare_names_are_left_alone(tmp_path: Path) -> None:
    remarks = same(written(tmp_path / "m.safetensors", TENSORS))
    assert not any("taken off" in remark for remark in remarks)
    assert any("GELU and 2 heads are assumed" in remark for remark in remarks)


def test_what_is_taken_of_a_training_state_is_said(tmp_path: Path) -> None:
    other = {name: tensor + 1 for name, tensor in TENSORS.items()}
    states: dict[str, dict[str, Any]] = {
        "state_dict": {"epoch": 3, "state_dict": TENSORS, "optimizer": {"state": {}, "param_groups": []}},
        "state_dict_ema": {"state_dict": other, "state_dict_ema": TENSORS, "version": 2},
        "model_ema": {"model": other, "model_ema": under("module."), "lr_scheduler": {"step": 1}},
        "teacher": {"student": under("module.", other), "teacher": under("module."), "epoch": 9},
        "weights_of_mine": {"weights_of_mine": TENSORS, "rng": 5},
    }
    for nest, state in states.items():
        remarks = same(written(tmp_path / f"{nest}.pth", state))
        aside = ", ".join(key for key in state if key != nest)
        assert f"the weights are those in {nest!r}; left aside: {aside}" in remarks


def test_a_teacher_of_dino_with_its_projection(tmp_path: Path) -> None:
    body = {name: tensor for name, tensor in TENSORS.items() if not name.startswith("head.")}
    projection = {
        "module.head.mlp.0.weight": torch.ones(3, 128),
        "module.head.last_layer.weight_v": torch.ones(4, 3),
    }
    state = {"student": {}, "teacher": {**under("module.backbone.", body), **projection}, "epoch": 1}
    opened = open_foreign(written(tmp_path / "checkpoint.pth", state), num_classes=3)
    table = opened.model.state_dict()["backbone.positions.table"]
    assert torch.equal(table, TENSORS["pos_embed"])
    assert any("module.head.mlp.0.weight" in remark and "left aside" in remark for remark in opened.remarks)
    assert any("'module.backbone.'" in remark for remark in opened.remarks)


def test_lightning_with_a_loss_and_scores_beside_the_model(tmp_path: Path) -> None:
    beside = {"criterion.weight": torch.ones(5), "train_accuracy.correct": torch.ones(1)}
    remarks = same(
        written(tmp_path / "last.ckpt", {"state_dict": {**under("model."), **beside}, "loops": {}})
    )
    assert any("left aside" in remark and "criterion.weight" in remark for remark in remarks)
    averaged = torch.optim.swa_utils.AveragedModel(torch.nn.Identity()).state_dict()
    remarks = same(written(tmp_path / "swa.safetensors", {**under("module."), **averaged}))
    assert any("left aside" in remark and "n_averaged" in remark for remark in remarks)


def test_nothing_is_guessed_of_two_networks(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"2 networks, under 'ema_model\.', 'model\.'") as caught:
        open_model(written(tmp_path / "a.ckpt", {"state_dict": {**under("model."), **under("ema_model.")}}))
    assert "save the tensors" in caught.value.hint
    with pytest.raises(WeightsError, match="several state dicts: encoder, target_encoder"):
        open_model(written(tmp_path / "b.pth", {"encoder": TENSORS, "target_encoder": TENSORS, "epoch": 2}))
    with pytest.raises(WeightsError, match=r"prefix 'backbone\.', and these have not: fc\.bias, fc\.weight"):
        found = {**under("backbone."), "fc.weight": torch.ones(2, 128), "fc.bias": torch.ones(2)}
        open_model(written(tmp_path / "c.safetensors", found))


def test_timm_says_its_arguments_beside_the_weights(tmp_path: Path) -> None:
    """train.py saves the name of the architecture, and the options of the command line."""
    import argparse

    args = argparse.Namespace(model_kwargs={"act_layer": "relu", "num_heads": 4}, gp=None)
    state = {"arch": "vit_base_patch16_224", "state_dict": TENSORS, "args": args}
    model, info = open_model(written(tmp_path / "last.pth.tar", state))
    assert (info.model["activation"], info.model["heads"]) == ("relu", 4)
    with torch.no_grad():
        torch.testing.assert_close(
            model(IMAGES).double(), logits(TENSORS, IMAGES, heads=4, act=torch.relu), rtol=1e-4, atol=1e-5
        )
    with pytest.raises(WeightsError, match="'resnet_of_mine'"):
        open_model(written(tmp_path / "a.pth.tar", {**state, "arch": "resnet_of_mine"}))


@pytest.mark.parametrize("name", ["vit", "deit-teacher", "dinov2-registers"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model."])
def test_wrapped_models_of_transformers(name: str, prefix: str, tmp_path: Path) -> None:
    theirs = saved(name, tmp_path)
    save_file(under(prefix, load_file(tmp_path / "model.safetensors")), tmp_path / "model.safetensors")
    images = torch.randn(1, 3, 24, 24)
    with torch.no_grad():
        close(open_model(tmp_path)[0](images), result(theirs, images))


def test_a_body_beside_the_config_of_a_classifier_and_the_other_way_round(tmp_path: Path) -> None:
    """As ``from_pretrained`` reads both."""
    theirs, images = saved("vit", tmp_path), torch.randn(1, 3, 24, 24)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(
        {name.removeprefix("vit."): one for name, one in tensors.items()}, tmp_path / "model.safetensors"
    )
    with torch.no_grad():  # the classifier's names have no prefix in either
        close(open_model(tmp_path)[0](images), result(theirs, images))
    body = {name.removeprefix("vit."): one for name, one in tensors.items() if name.startswith("vit.")}
    save_file(body, tmp_path / "model.safetensors")
    opened = open_foreign(tmp_path)
    assert any("holds its body alone" in remark for remark in opened.remarks)
    tokens = theirs.vit(images).last_hidden_state
    with torch.no_grad():
        close(opened.model.features(images).tokens, tokens)
    save_file(tensors, tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["ViTModel"]}))
    opened = open_foreign(tmp_path)
    assert any("left aside, since ViTModel has none: classifier.bias" in remark for remark in opened.remarks)
    with torch.no_grad():
        close(opened.model.features(images).tokens, tokens)


def test_verbs_say_it_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = written(tmp_path / "m.safetensors", under("model."))
    assert run(["convert", str(place), str(tmp_path / "bundle")]) == 0
    assert "note: the prefix 'model.'" in capfd.readouterr().err
    open_model(place)
    assert "note: the prefix 'model.'" in capfd.readouterr().err
