"""timm's parallel blocks: attention and MLP side by side behind one norm, from one fused layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tests.runtime.bundles import LABELS, SPEC
from torch import Tensor

from tesela.checkpoints.open import open_model
from tesela.checkpoints.timm.write import export_timm
from tesela.core.errors import WeightsError
from tesela.models.bundle import describe, write_bundle
from tesela.models.factory import create_model

WIDTH, HEADS, HIDDEN, SIDE, PATCH, DEPTH, CLASSES = 16, 2, 40, 8, 4, 2, 3


def tensors(*, biased: bool) -> dict[str, Tensor]:
    """A checkpoint under timm's names, with norms of queries and keys, layer scale and a register."""
    draw = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "reg_token": (1, 1, WIDTH),
        "pos_embed": (1, (SIDE // PATCH) ** 2, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 1, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
        "fc_norm.weight": (WIDTH,),
        "fc_norm.bias": (WIDTH,),
        "head.weight": (CLASSES, WIDTH),
        "head.bias": (CLASSES,),
    }
    block: dict[str, tuple[int, ...]] = {
        "in_norm.weight": (WIDTH,),
        "in_norm.bias": (WIDTH,),
        "in_proj.weight": (HIDDEN + 3 * WIDTH, WIDTH),
        ("in_proj.bias" if biased else "mlp_bias"): (HIDDEN + 3 * WIDTH * biased,),
        "q_norm.weight": (WIDTH // HEADS,),
        "q_norm.bias": (WIDTH // HEADS,),
        "k_norm.weight": (WIDTH // HEADS,),
        "k_norm.bias": (WIDTH // HEADS,),
        "attn_out_proj.weight": (WIDTH, WIDTH),
        "attn_out_proj.bias": (WIDTH,),
        "mlp_out_proj.weight": (WIDTH, HIDDEN),
        "mlp_out_proj.bias": (WIDTH,),
        "ls.gamma": (WIDTH,),
    }
    for index in range(DEPTH):
        shapes |= {f"blocks.{index}.{name}": shape for name, shape in block.items()}
    return {name: torch.randn(shape, generator=draw) * 0.5 for name, shape in shapes.items()}


def computed(found: dict[str, Tensor], images: Tensor) -> Tensor:
    """Equation 1 of arXiv 2302.05442 with the tensors of timm's block, written out."""
    patches = F.conv2d(images, found["patch_embed.proj.weight"], found["patch_embed.proj.bias"], stride=PATCH)
    patches = patches.flatten(2).mT + found["pos_embed"]
    tokens = torch.cat([found["reg_token"].expand(len(images), -1, -1), patches], 1)

    def norm(values: Tensor, name: str) -> Tensor:
        weight, bias = found[f"{name}.weight"], found[f"{name}.bias"]
        return F.layer_norm(values, values.shape[-1:], weight, bias, 1e-6)

    def heads(values: Tensor) -> Tensor:
        return torch.unflatten(values, 2, (HEADS, -1)).transpose(1, 2)

    for index in range(DEPTH):
        block = f"blocks.{index}."
        fused = F.linear(
            norm(tokens, f"{block}in_norm"),
            found[f"{block}in_proj.weight"],
            found.get(f"{block}in_proj.bias"),
        )
        hidden, q, k, v = fused.split([HIDDEN, WIDTH, WIDTH, WIDTH], -1)
        hidden = hidden + found.get(f"{block}mlp_bias", 0)
        q, k = norm(heads(q), f"{block}q_norm"), norm(heads(k), f"{block}k_norm")
        weights = (q @ k.mT / (WIDTH // HEADS) ** 0.5).softmax(-1)
        mixed = (weights @ heads(v)).transpose(1, 2).flatten(2)
        branch = F.linear(mixed, found[f"{block}attn_out_proj.weight"], found[f"{block}attn_out_proj.bias"])
        branch = branch + F.linear(
            F.gelu(hidden), found[f"{block}mlp_out_proj.weight"], found[f"{block}mlp_out_proj.bias"]
        )
        tokens = tokens + branch * found[f"{block}ls.gamma"]
    return F.linear(norm(tokens[:, 1:].mean(1), "fc_norm"), found["head.weight"], found["head.bias"])


def written(folder: Path, *, biased: bool, **changes: Any) -> dict[str, Tensor]:
    """A folder for timm's hub; its tensors."""
    found = tensors(biased=biased)
    folder.mkdir()
    save_file(found, folder / "model.safetensors")
    arguments = {
        "embed_dim": WIDTH,
        "depth": DEPTH,
        "num_heads": HEADS,
        "mlp_ratio": HIDDEN / WIDTH,
        "patch_size": PATCH,
        "in_chans": 1,
        "qk_norm": True,
        "qkv_bias": biased,
    }
    config = {
        "architecture": "vit_pwee_patch16_reg1_gap_256",
        "num_classes": CLASSES,
        "model_args": arguments | changes,
        "pretrained_cfg": {"input_size": [1, SIDE, SIDE], "mean": [0.5], "std": [0.5]},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return found


@pytest.mark.parametrize("biased", [True, False])
def test_logits_are_those_of_the_equation_and_the_bytes_come_back(tmp_path: Path, biased: bool) -> None:
    found = written(tmp_path / "timm", biased=biased)
    model: Any = open_model(tmp_path / "timm")[0]
    assert model.config.norm == "parallel"
    images = torch.randn(3, 1, SIDE, SIDE, dtype=torch.float64)
    wanted = computed({name: tensor.double() for name, tensor in found.items()}, images)
    with torch.no_grad():
        torch.testing.assert_close(model.double()(images), wanted, rtol=1e-10, atol=1e-10)
    export_timm(tmp_path / "timm", tmp_path / "again")
    back = load_file(tmp_path / "again/model.safetensors")
    assert back.keys() == found.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in found.items())


@pytest.mark.parametrize(
    ("norms", "name"), [("layer", "vit_pwee_patch16_reg1_gap_256"), ("rms", "vit_base_patch16_xp_224")]
)
def test_a_model_of_ours_comes_back(norms: str, name: str, tmp_path: Path) -> None:
    model = create_model("vit_nano", num_classes=10, seed=0, norm="parallel", norm_kind=norms).eval()
    write_bundle(tmp_path / "m", model, describe(model, name="m", labels=LABELS, image=SPEC))
    export_timm(tmp_path / "m", tmp_path / "timm")
    config = json.loads((tmp_path / "timm/config.json").read_text(encoding="utf-8"))
    assert config["architecture"] == name
    again: Any = open_model(tmp_path / "timm")[0]
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(again(images), model(images))


@pytest.mark.parametrize("stated", ["Block", "ResPostBlock"])
def test_another_block_than_that_of_the_tensors_is_refused(tmp_path: Path, stated: str) -> None:
    written(tmp_path / "timm", biased=True, block_fn=stated)
    with pytest.raises(WeightsError, match=f"block_fn='{stated}', which the tensors do not fit"):
        open_model(tmp_path / "timm")


def test_an_architecture_with_other_blocks_is_refused(tmp_path: Path) -> None:
    """Its name says so, though nothing states the block."""
    written(tmp_path / "timm", biased=True)
    config = json.loads((tmp_path / "timm/config.json").read_text(encoding="utf-8"))
    config["architecture"] = "vit_base_patch16_224"
    (tmp_path / "timm/config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(WeightsError, match="block_fn='Block', which the tensors do not fit"):
        open_model(tmp_path / "timm")


def test_blocks_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    found = written(tmp_path / "timm", biased=True)
    del found["blocks.0.mlp_out_proj.weight"]
    save_file(found, tmp_path / "timm/model.safetensors")
    with pytest.raises(WeightsError, match=r"without a fitting mlp_out_proj\.weight"):
        open_model(tmp_path / "timm")


def test_a_file_alone_does_not_say_enough(tmp_path: Path) -> None:
    found = {name: tensor for name, tensor in tensors(biased=True).items() if "k_norm" not in name}
    found = {name: tensor for name, tensor in found.items() if "q_norm" not in name}
    save_file(found, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"newer Vision Transformer \(in_proj\.weight\)"):
        open_model(tmp_path / "model.safetensors")
