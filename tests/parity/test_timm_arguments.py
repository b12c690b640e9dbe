"""Arguments in timm's config.json: computed as timm computes them, or refused by name.

The tensors of a model with SiLU, say, are those of a model with GELU: only config.json tells them apart.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tests.parity.timm_reference import logits, random_tensors

from tesela.checkpoints.open import open_foreign, open_model
from tesela.checkpoints.timm.architectures import find_architecture
from tesela.checkpoints.timm.eva_arguments import ratio
from tesela.checkpoints.timm.write import export_timm
from tesela.core.errors import WeightsError
from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import describe, write_bundle
from tesela.models.factory import create_model

IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(3))


def folder(
    place: Path, tensors: dict[str, Any], *, root: dict[str, Any] | None = None, **arguments: Any
) -> Path:
    """A folder as timm writes it for the hub, the sizes of the tensors stated."""
    place.mkdir(exist_ok=True)
    width, _, *patch = tensors["patch_embed.proj.weight"].shape
    sizes = {
        "embed_dim": width,
        "patch_size": patch,
        "depth": 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")),
        "mlp_ratio": ratio(width, len(tensors["blocks.0.mlp.fc1.weight"])),
    }
    save_file(tensors, place / "model.safetensors")
    config = {
        "architecture": "vit_base_patch16_224",
        "model_args": {"img_size": 12, "num_heads": 2, **sizes, **arguments},
        "pretrained_cfg": {"input_size": [3, 12, 12], "mean": [0.5] * 3, "std": [0.5] * 3},
        **(root or {}),
    }
    (place / "config.json").write_text(json.dumps(config))
    return place


def close(place: Path, tensors: dict[str, Any], **options: Any) -> None:
    """Logits within 1e-5 of the reference's largest."""
    model, _ = open_model(place)
    with torch.no_grad():
        found = model(IMAGES).double()
    wanted = logits(tensors, IMAGES, heads=2, **options)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize(
    ("stated", "act"),
    [
        ("silu", F.silu),
        ("swish", F.silu),
        ("relu", F.relu),
        ("gelu", F.gelu),
        ("gelu_tanh", lambda x: F.gelu(x, approximate="tanh")),
    ],
)
def test_activations(stated: str, act: Any, tmp_path: Path) -> None:
    tensors = random_tensors(pool=True)
    place = folder(tmp_path / "m", tensors, act_layer=stated, global_pool="map")
    close(place, tensors, act=act)
    export_timm(place, tmp_path / "back")
    close(tmp_path / "back", load_file(tmp_path / "back/model.safetensors"), act=act)


@pytest.mark.parametrize("included", [False, True])
def test_attention_pooling_reads_prefix_tokens_where_it_is_told_to(included: bool, tmp_path: Path) -> None:
    tensors = random_tensors(rows=1, pool=True)
    place = folder(tmp_path / "m", tensors, global_pool="map", pool_include_prefix=included)
    close(place, tensors, include_prefix=included)


@pytest.mark.parametrize("included", [False, True])
def test_attention_pooling_says_in_its_export_what_it_reads(included: bool, tmp_path: Path) -> None:
    model = create_model(
        "vit_lite7_p4",
        num_classes=5,
        image_size=12,
        seed=0,
        depth=1,
        heads=2,
        pool="attention",
        registers=3,
        pool_prefix=included,
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    spec = ImageSpec(height=12, width=12, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    write_bundle(tmp_path / "b", model, describe(model, name="b", labels=list("abcde"), image=spec))
    report = export_timm(tmp_path / "b", tmp_path / "out")
    assert report.proved[0] == "here" and "logits equal here" in report.lines()[1]
    arguments = json.loads((tmp_path / "out/config.json").read_text())["model_args"]
    assert arguments["pool_include_prefix"] is included
    with torch.no_grad():
        found = model(IMAGES).double()
    wanted = logits(
        load_file(tmp_path / "out/model.safetensors"),
        IMAGES,
        heads=2,
        include_prefix=arguments["pool_include_prefix"],
    )
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"act_layer": "hard_swish"}, "'hard_swish'"),
        ({"norm_layer": "rmsnorm"}, "not known: .*norm.bias|missing"),
        ({"norm_layer": "simplenorm"}, "norm_layer='simplenorm'"),
        ({"embed_norm_layer": "layernorm"}, "embed_norm_layer"),
        ({"embed_norm_layer": "rmsnorm"}, "embed_norm_layer='rmsnorm' beside another"),
        ({"qk_norm": True}, "qk_norm"),
        ({"scale_attn_norm": True}, "scale_attn_norm"),
        ({"scale_mlp_norm": True}, "scale_mlp_norm"),
        ({"proj_bias": False}, "proj_bias"),
        ({"pre_norm": True}, "pre_norm"),
        ({"attn_layer": "diff"}, "attn_layer='diff'"),
        ({"block_fn": "ParallelScalingBlock"}, "block_fn"),
        ({"mlp_layer": "GluMlp"}, "mlp_layer"),
        ({"global_pool": "max"}, "'max'"),
        ({"global_pool": "map"}, "global_pool='map'"),
        ({"global_pool": "avg", "pool_include_prefix": True}, "pool_include_prefix"),
        ({"class_token": False}, "class_token=False"),
        ({"reg_tokens": 4}, "reg_tokens=4"),
        ({"init_values": 1e-5}, "init_values"),
        ({"fc_norm": True}, "fc_norm"),
        ({"final_norm": False}, "final_norm"),
        ({"pos_embed": "none"}, "pos_embed"),
        ({"no_embed_class": True}, "no_embed_class|positions"),
        ({"depth": 3}, "depth=3"),
        ({"embed_dim": 64}, "embed_dim=64"),
        ({"patch_size": 8}, "patch_size=8"),
        ({"in_chans": 1}, "in_chans=1"),
        ({"mlp_ratio": 4.0}, "mlp_ratio"),
        ({"qkv_bias": False}, "qkv_bias"),
        ({"dynamic_img_pad": True}, "dynamic_img_pad"),
        ({"rope_temperature": 100.0}, "rope_temperature=100.0"),
    ],
)
def test_what_would_compute_otherwise_is_refused_by_name(
    arguments: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=named) as caught:
        open_model(folder(tmp_path / "m", random_tensors(), **arguments))
    assert caught.value.hint


def test_arguments_of_training_make_no_difference(tmp_path: Path) -> None:
    tensors = random_tensors()
    harmless: dict[str, Any] = {
        "drop_path_rate": 0.1,
        "weight_init": "jax",
        "dynamic_img_size": True,
        "norm_layer": "layernorm",
    }
    close(folder(tmp_path / "m", tensors, **harmless), tensors)


def test_a_gate_of_another_kind_is_refused(tmp_path: Path) -> None:
    tensors = random_tensors(swiglu=True)
    close(folder(tmp_path / "silu", tensors, act_layer="silu"), tensors)
    with pytest.raises(WeightsError, match="gated MLP with the activation 'gelu'"):
        open_model(folder(tmp_path / "gelu", tensors, act_layer="gelu"))


def test_what_only_the_name_of_an_architecture_says(tmp_path: Path) -> None:
    """tanh GELU of SigLIP's models, quick GELU and 1e-5 of CLIP's, 16 heads of a giant: from timm itself."""
    tensors = random_tensors(tokens=(), rows=0, pool=True)
    root = {"architecture": "vit_so400m_patch16_siglip_384"}
    close(folder(tmp_path / "m", tensors, root=root), tensors, act=lambda x: F.gelu(x, approximate="tanh"))
    giant = find_architecture("vit_giantopt_patch16_siglip_256")
    assert giant.kind == "VisionTransformer"
    assert (giant.arguments["act_layer"], giant.arguments["num_heads"]) == ("gelu_tanh", 16)
    clip = find_architecture("vit_base_patch16_clip_quickgelu_224.openai").arguments
    assert (clip["act_layer"], clip["norm_layer"], clip["pre_norm"]) == (
        "quick_gelu",
        ["LayerNorm", 1e-5],
        True,
    )
    assert find_architecture("vit_base_patch16_224_in21k") == find_architecture("vit_base_patch16_224")
    assert find_architecture("deit3_huge_patch14_224").arguments["num_heads"] == 16
    turned = find_architecture("vit_large_patch16_dinov3")
    assert turned.kind == "Eva" and turned.arguments["rope_temperature"] == 100


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("vit_relpos_base_patch16_224", "relative positions"),
        ("samvit_base_patch16", "windows"),
        ("naflexvit_base_patch16_gap", "any number"),
        ("vit_base_patch16_224_of_mine", "what it computes is not known"),
        ("mobilenetv3_large_100", "no Vision Transformer of timm"),
        ("vit_small_patch16_18x2_224", "block_fn='ParallelThingsBlock'"),
        ("vit_base_r50_s16_224", "another residual network"),
        ("vit_small_patch16_rope_mixed_224", "rope_type='mixed'"),
        ("vit_base_patch16_sapiens2", "num_kv_heads|attn_only_layer_scale"),
    ],
)
def test_architectures_that_compute_otherwise_are_refused(name: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=why) as caught:
        open_model(folder(tmp_path / "m", random_tensors(), root={"architecture": name}))
    assert caught.value.hint


def test_a_checkpoint_with_half_of_its_blocks_is_refused(tmp_path: Path) -> None:
    place = folder(tmp_path / "m", random_tensors())
    config = json.loads((place / "config.json").read_text())
    del config["model_args"]["depth"]
    (place / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="depth=12, and the tensors are of 2"):
        open_model(place)


def test_a_file_alone_that_leaves_the_maths_open_is_refused(tmp_path: Path) -> None:
    tensors = random_tensors() | {"norm_pre.weight": torch.ones(128), "norm_pre.bias": torch.ones(128)}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="does not say its activation") as caught:
        open_model(tmp_path / "model.safetensors")
    assert "architecture" in caught.value.hint


def test_a_head_that_timm_would_cut_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="speaks of 1000 classes, the weights of 5"):
        open_model(folder(tmp_path / "a", random_tensors(), root={"num_classes": 1000}))
    with pytest.raises(WeightsError, match="label_offset=1"):
        open_model(folder(tmp_path / "b", random_tensors(), root={"pretrained_cfg": {"label_offset": 1}}))
    with pytest.raises(WeightsError, match="names 2 classes, and the weights have 5"):
        open_model(folder(tmp_path / "c", random_tensors(), root={"label_names": ["a", "b"]}))


def test_preprocessing_of_older_and_of_odd_files(tmp_path: Path) -> None:
    """Values that timm takes where the file says nothing; crop modes and filters as it has them."""
    place = folder(tmp_path / "m", random_tensors(), root={"pretrained_cfg": {"input_size": [3, 12, 12]}})
    opened = open_foreign(place)
    assert opened.info.image.mean == (0.485, 0.456, 0.406) and opened.info.image.crop_ratio == 0.875
    config = json.loads((place / "config.json").read_text())
    del config["pretrained_cfg"]
    (place / "config.json").write_text(json.dumps({**config, "mean": [0.1, 0.2, 0.3], "std": [0.5] * 3}))
    assert open_foreign(place).info.image.mean == (0.1, 0.2, 0.3)
    odd = {"crop_mode": "border", "interpolation": "lanczos"}
    (place / "config.json").write_text(json.dumps({**config, "pretrained_cfg": odd}))
    image = open_foreign(place).info.image
    assert (image.resize, image.resized, image.interpolation) == ("pad", (13, 13), "lanczos")
    squash = {"crop_mode": "squash", "crop_pct": 0.75, "interpolation": "random"}
    (place / "config.json").write_text(json.dumps({**config, "pretrained_cfg": squash}))
    with pytest.raises(WeightsError, match="no filter 'random'"):
        open_foreign(place)


def test_positions_that_may_be_of_two_grids(tmp_path: Path) -> None:
    """25 rows: five by five patches, or four by four with nine other tokens."""
    tensors = random_tensors(grid=(4, 4), registers=8, rows=9)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="25 positions") as caught:
        open_model(tmp_path / "model.safetensors")
    assert "--image-size" in caught.value.hint
    found = open_foreign(tmp_path / "model.safetensors", image_size=(16, 16)).model
    assert tuple(found.config.grid()) == (4, 4)
