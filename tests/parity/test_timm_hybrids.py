"""timm's hybrids: the residual network written out in float64, then the reference of plain models.

timm itself is compared in benchmarks/weights_sweep.py; it is no dependency of the tests.
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
from torch import Tensor

from tesela.checkpoints.jax.write import export_jax
from tesela.checkpoints.open import open_model
from tesela.checkpoints.timm.write import export_timm
from tesela.core.errors import WeightsError
from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import describe, write_bundle
from tesela.models.factory import create_model

BASE = 32


def same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Padded as XLA does it: the odd pixel goes to the end."""
    rows, columns = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:])
    return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2), value=value)


def convolved(p: dict[str, Tensor], x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
    """A standardised convolution and its GroupNorm, with timm's epsilons."""
    weight = p[f"{conv}.weight"]
    mean, variance = weight.mean((1, 2, 3), keepdim=True), weight.var((1, 2, 3), keepdim=True, unbiased=False)
    x = F.conv2d(same(x, weight.shape[2], stride), (weight - mean) / (variance + 1e-8).sqrt(), stride=stride)
    return F.group_norm(x, 32, p[f"{norm}.weight"], p[f"{norm}.bias"], 1e-5)


def features(tensors: dict[str, Tensor], images: Tensor, stages: tuple[int, ...]) -> Tensor:
    """The last feature map (B, C, H', W')."""
    place = "patch_embed.backbone."
    p = {name.removeprefix(place): one.double() for name, one in tensors.items() if name.startswith(place)}
    stem = "stem." if stages else ""
    x = convolved(p, images.double(), f"{stem}conv", f"{stem}norm", 2).relu()
    x = F.max_pool2d(same(x, 3, 2, -torch.inf), 3, 2)
    for stage, count in enumerate(stages):
        for unit in range(count):
            name, stride = f"stages.{stage}.blocks.{unit}.", 2 if stage and not unit else 1
            y = convolved(p, x, f"{name}conv1", f"{name}norm1").relu()
            y = convolved(p, y, f"{name}conv2", f"{name}norm2", stride).relu()
            y = convolved(p, y, f"{name}conv3", f"{name}norm3")
            if unit == 0:
                x = convolved(p, x, f"{name}downsample.conv", f"{name}downsample.norm", stride)
            x = (x + y).relu()
    return x


def hybrid(
    folder: Path, name: str, stages: tuple[int, ...], grid: tuple[int, int], patch: int, **more: Any
) -> dict[str, Tensor]:
    """A small hybrid of that name, saved as timm does it."""
    last = 4 * BASE << len(stages) - 1 if stages else BASE
    tensors = random_tensors(grid=grid, patch=(patch, patch), depth=2)
    draw = torch.Generator().manual_seed(1)

    def add(conv: str, norm: str, after: int, before: int, kernel: int) -> None:
        tensors[f"patch_embed.backbone.{conv}.weight"] = torch.randn(
            after, before, kernel, kernel, generator=draw
        )
        for part, start in (("weight", 1.0), ("bias", 0.0)):
            value = start + 0.3 * torch.randn(after, generator=draw)
            tensors[f"patch_embed.backbone.{norm}.{part}"] = value

    stem = "stem." if stages else ""
    add(f"{stem}conv", f"{stem}norm", BASE, 3, 7)
    before = BASE
    for stage, count in enumerate(stages):
        inner = BASE << stage
        for unit in range(count):
            at = f"stages.{stage}.blocks.{unit}."
            for number, (after, width, kernel) in enumerate(
                ((inner, before, 1), (inner, inner, 3), (4 * inner, inner, 1)), 1
            ):
                add(f"{at}conv{number}", f"{at}norm{number}", after, width, kernel)
            if unit == 0:
                add(f"{at}downsample.conv", f"{at}downsample.norm", 4 * inner, before, 1)
            before = 4 * inner
    tensors["patch_embed.proj.weight"] = 0.05 * torch.randn(128, last, patch, patch, generator=draw)
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    step = patch * (4 << max(0, len(stages) - 1))
    size = [grid[0] * step, grid[1] * step]
    arguments: dict[str, Any] = {"img_size": size, "embed_dim": 128, "depth": 2, "num_heads": 2}
    arguments |= {"mlp_ratio": 40 / 128, **more}
    config = {"architecture": name, "model_args": arguments, "pretrained_cfg": {"input_size": [3, *size]}}
    (folder / "config.json").write_text(json.dumps(config))
    return tensors


@pytest.mark.parametrize(
    ("name", "stages", "patch"),
    [
        ("vit_tiny_r_s16_p8_224", (), 8),
        ("vit_small_r26_s32_224", (2, 1, 1), 1),
        ("vit_base_r50_s16_224", (1, 2), 1),
    ],
)
def test_hybrids_by_their_names(name: str, stages: tuple[int, ...], patch: int, tmp_path: Path) -> None:
    """<= 1e-5, at their own size, which is not square; epsilons are timm's, not those of the paper's code."""
    tensors = hybrid(tmp_path / "m", name, stages, (3, 2), patch)
    model: Any
    model, info = open_model(tmp_path / "m")
    assert info.architecture == "hybrid" and info.model["arithmetic"] == "timm"
    images = torch.randn(2, 3, *model.config.image_size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = model(images).double()
    wanted = logits(tensors, features(tensors, images, stages), heads=2)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize(
    ("name", "fields", "architecture", "first"),
    [
        ("r_vit_ti32", {}, "vit_tiny_r_s16_p8_224", "conv"),
        (
            "r26_vit_s32",
            {"pool": "mean", "pooled_norm": True, "final_norm": False},
            "vit_small_r26_s32_224",
            "stem.conv",
        ),
    ],
)
def test_hybrids_are_written_as_timm_keeps_them(
    name: str, fields: dict[str, Any], architecture: str, first: str, tmp_path: Path
) -> None:
    """Reference: the network above on the tensors that were written; and the same model comes back."""
    sizes: dict[str, Any] = {"width": 128, "heads": 2, "depth": 2, "mlp_ratio": 1.0, "image_size": (64, 96)}
    model: Any = create_model(name, num_classes=5, seed=0, arithmetic="timm", **sizes, **fields).eval()
    spec = ImageSpec(height=64, width=96, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    info = describe(model, name="m", labels=list("abcde"), image=spec, license="CC0-1.0")
    write_bundle(tmp_path / "bundle", model, info)
    report = export_timm(tmp_path / "bundle", tmp_path / "timm")
    config = json.loads((tmp_path / "timm/config.json").read_text())
    assert report.architecture == config["architecture"] == architecture
    assert config["pretrained_cfg"]["first_conv"] == f"patch_embed.backbone.{first}"
    assert config["model_args"]["embed_dim"] == 128
    back: Any = open_model(tmp_path / "timm")[0]
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(back(images), model(images))
        found = model(images).double()
    tensors = load_file(tmp_path / "timm/model.safetensors")
    mapped = features(tensors, images, model.config.stages)
    wanted = logits(tensors, mapped, heads=2, average=bool(fields))
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_what_timm_has_no_place_for_is_named(tmp_path: Path) -> None:
    """Epsilons of the paper, which a hybrid that was trained here has."""
    model = create_model("r_vit_ti32", num_classes=2, seed=0, depth=1, image_size=64).eval()
    spec = ImageSpec(height=64, width=64, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    write_bundle(tmp_path / "m", model, describe(model, name="m", labels=["a", "b"], image=spec))
    with pytest.raises(WeightsError, match="arithmetic=paper"):
        export_timm(tmp_path / "m", tmp_path / "timm")


def test_what_is_not_written_or_read_says_why(tmp_path: Path) -> None:
    tensors = hybrid(tmp_path / "m", "vit_base_r50_s16_224", (1, 1), (2, 2), 1, act_layer="gelu_tanh")
    with pytest.raises(WeightsError, match="arithmetic=timm"):
        export_jax(tmp_path / "m", tmp_path / "jax")
    with pytest.raises(WeightsError, match=r"no stages=\(1, 1\)") as caught:
        export_timm(tmp_path / "m", tmp_path / "timm")
    assert "(3, 4, 9)" in str(caught.value.hint)
    config = json.loads((tmp_path / "m/config.json").read_text())
    (tmp_path / "m/config.json").write_text(json.dumps({**config, "architecture": "vit_base_patch16_224"}))
    with pytest.raises(WeightsError, match="architecture without a residual network"):
        open_model(tmp_path / "m")
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    half = {name: one for name, one in tensors.items() if "stages.0.blocks.0.conv1" not in name}
    save_file(half, tmp_path / "m/model.safetensors")
    with pytest.raises(WeightsError, match="whole units or stages"):
        open_model(tmp_path / "m")
    other = {name: one for name, one in tensors.items() if "backbone" not in name}
    save_file(
        {**other, "patch_embed.backbone.conv1.0.weight": torch.ones(1)}, tmp_path / "m/model.safetensors"
    )
    with pytest.raises(WeightsError, match="another residual network") as caught:
        open_model(tmp_path / "m")
    assert caught.value.hint
