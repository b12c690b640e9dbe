"""TinyViT of timm against a plain computation from timm's own tensors; sizes as its paper publishes them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from tesela.attribution.explain import explain
from tesela.checkpoints.foreign import image_spec
from tesela.checkpoints.huggingface.write import export_huggingface
from tesela.checkpoints.open import open_model
from tesela.checkpoints.timm.write import export_timm
from tesela.core.errors import ConfigError, WeightsError
from tesela.exporters.graph import write_graph
from tesela.imaging.spec import ImageSpec
from tesela.layers.trace import Trace
from tesela.models import catalog
from tesela.models.bundle import describe, write_bundle
from tesela.models.factory import create_model

#: Millions of parameters and 1e9 multiply-adds with 1,000 classes, table 1 of arXiv 2207.10666.
PUBLISHED = {
    "tiny_vit_5m": (5.4, 1.3),
    "tiny_vit_11m": (11.0, 2.0),
    "tiny_vit_21m": (21.2, 4.3),
    "tiny_vit_21m_384": (21.2, 13.8),
    "tiny_vit_21m_512": (21.3, 27.0),
}
WIDTHS, DEPTHS, HEADS, WINDOWS = (8, 16, 24), (1, 2, 1), (2, 3), (2, 3)
KINDS = ("weight", "bias", "running_mean", "running_var")


def tensors() -> dict[str, Tensor]:
    """A small TinyViT under timm's names, whose every part matters to its logits."""
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Tensor] = {}

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def convolution(name: str, out: int, into: int, side: int) -> None:
        found[f"{name}.conv.weight"] = normal(out, into, side, side) * math.sqrt(2 / (into * side**2))
        for kind in KINDS:
            found[f"{name}.bn.{kind}"] = normal(out) * 0.3 + (kind != "bias" and kind != "running_mean")
        found[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)
        found[f"{name}.bn.running_var"] = found[f"{name}.bn.running_var"].abs() + 0.2

    def dense(name: str, out: int, into: int, factor: float = 1.0) -> None:
        found[f"{name}.weight"] = normal(out, into) * factor / math.sqrt(into)
        found[f"{name}.bias"] = normal(out) * 0.3

    def norm(name: str, width: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = 1 + 0.3 * normal(width), 0.3 * normal(width)

    convolution("patch_embed.conv1", WIDTHS[0] // 2, 3, 3)
    convolution("patch_embed.conv2", WIDTHS[0], WIDTHS[0] // 2, 3)
    for stage, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
        before = WIDTHS[stage - 1]
        if stage:
            for number, (into, side) in enumerate(((before, 1), (1, 3), (width, 1)), 1):
                convolution(f"stages.{stage}.downsample.conv{number}", width, into, side)
        for index in range(depth):
            block = f"stages.{stage}.blocks.{index}"
            if not stage:
                for number, (out, into, side) in enumerate(
                    ((4 * width, width, 1), (4 * width, 1, 3), (width, 4 * width, 1)), 1
                ):
                    convolution(f"{block}.conv{number}", out, into, side)
                continue
            norm(f"{block}.attn.norm", width)
            dense(f"{block}.attn.qkv", 3 * width, width, 2.0)
            dense(f"{block}.attn.proj", width, width)
            found[f"{block}.attn.attention_biases"] = normal(HEADS[stage - 1], WINDOWS[stage - 1] ** 2)
            convolution(f"{block}.local_conv", width, 1, 3)
            norm(f"{block}.mlp.norm", width)
            dense(f"{block}.mlp.fc1", 4 * width, width)
            dense(f"{block}.mlp.fc2", width, 4 * width)
    norm("head.norm", WIDTHS[-1])
    dense("head.fc", 3, WIDTHS[-1])
    return found


class Plain:
    """Reference: the forward pass of arXiv 2207.10666, written out, one window and one pair at a time.

    Args:
        tensors: under timm's names.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.of = {name: tensor.double() for name, tensor in tensors.items()}

    def convolution(self, name: str, images: Tensor, *, stride: int = 1) -> Tensor:
        weight = self.of[f"{name}.conv.weight"]
        groups = images.shape[1] // weight.shape[1]
        maps = F.conv2d(images, weight, stride=stride, padding=weight.shape[2] // 2, groups=groups)
        scale, shift, mean, variance = (self.of[f"{name}.bn.{kind}"][:, None, None] for kind in KINDS)
        return (maps - mean) / (variance + 1e-5).sqrt() * scale + shift

    def dense(self, name: str, values: Tensor) -> Tensor:
        return values @ self.of[f"{name}.weight"].T + self.of[f"{name}.bias"]

    def norm(self, name: str, values: Tensor) -> Tensor:
        return F.layer_norm(values, values.shape[-1:], self.of[f"{name}.weight"], self.of[f"{name}.bias"])

    def window(self, name: str, places: Tensor, heads: int, side: int) -> Tensor:
        """Attention of the places (side, side, D) of one window of one image."""
        values = self.norm(f"{name}.norm", places).flatten(0, 1)
        parts = self.dense(f"{name}.qkv", values).view(side**2, heads, 3, -1)
        result = []
        for head in range(heads):
            q, k, v = parts[:, head].unbind(1)
            logits = q @ k.T / math.sqrt(q.shape[-1])
            for one in range(side**2):
                for other in range(side**2):
                    rows, columns = abs(one // side - other // side), abs(one % side - other % side)
                    logits[one, other] += self.of[f"{name}.attention_biases"][head, rows * side + columns]
            result.append(logits.softmax(-1) @ v)
        return self.dense(f"{name}.proj", torch.cat(result, -1)).view(side, side, -1)

    def attention(self, name: str, maps: Tensor, heads: int, side: int) -> Tensor:
        """Of maps (B, rows, columns, D), cut into windows after padding with zeros."""
        rows, columns = maps.shape[1:3]
        padded = F.pad(maps, (0, 0, 0, -columns % side, 0, -rows % side))
        result = torch.zeros_like(padded)
        for image in range(len(maps)):
            for top in range(0, padded.shape[1], side):
                for left in range(0, padded.shape[2], side):
                    where = image, slice(top, top + side), slice(left, left + side)
                    result[where] = self.window(name, padded[where], heads, side)
        return result[:, :rows, :columns]

    def __call__(self, images: Tensor) -> Tensor:
        maps = F.gelu(self.convolution("patch_embed.conv1", images.double(), stride=2))
        maps = self.convolution("patch_embed.conv2", maps, stride=2)
        for index in range(DEPTHS[0]):
            block = f"stages.0.blocks.{index}"
            branch = F.gelu(self.convolution(f"{block}.conv1", maps))
            branch = F.gelu(self.convolution(f"{block}.conv2", branch))
            maps = F.gelu(maps + self.convolution(f"{block}.conv3", branch))
        for stage, (heads, side) in enumerate(zip(HEADS, WINDOWS, strict=True), 1):
            step = f"stages.{stage}.downsample"
            maps = F.gelu(self.convolution(f"{step}.conv1", maps))
            maps = F.gelu(self.convolution(f"{step}.conv2", maps, stride=2))
            maps = self.convolution(f"{step}.conv3", maps)
            for index in range(DEPTHS[stage]):
                block = f"stages.{stage}.blocks.{index}"
                values = maps.permute(0, 2, 3, 1)
                values = values + self.attention(f"{block}.attn", values, heads, side)
                values = self.convolution(f"{block}.local_conv", values.permute(0, 3, 1, 2))
                values = values.permute(0, 2, 3, 1)
                hidden = F.gelu(self.dense(f"{block}.mlp.fc1", self.norm(f"{block}.mlp.norm", values)))
                maps = (values + self.dense(f"{block}.mlp.fc2", hidden)).permute(0, 3, 1, 2)
        return self.dense("head.fc", self.norm("head.norm", maps.mean((2, 3))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As timm writes it."""
    place = tmp_path_factory.mktemp("tiny_vit")
    save_file(tensors(), place / "model.safetensors")
    view = {"input_size": [3, 64, 64], "crop_pct": 0.95, "interpolation": "bicubic", "license": "apache-2.0"}
    stated = {"embed_dims": list(WIDTHS), "depths": list(DEPTHS), "num_heads": [1, *HEADS]}
    config = {
        "architecture": "tiny_vit_5m_224",
        "pretrained_cfg": view,
        "label_names": ["a", "b", "c"],
        "model_args": {**stated, "window_sizes": [7, *WINDOWS]},
    }
    (place / "config.json").write_text(json.dumps(config))
    return place


@pytest.mark.parametrize("size", [(48, 48), (40, 56), (37, 22)])
def test_logits_equal_the_plain_computation(folder: Path, size: tuple[int, int]) -> None:
    """Whole windows, padded ones, and maps smaller than a window."""
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    wanted = Plain(tensors())(images).float()
    for source in (folder, folder / "model.safetensors"):
        model, _ = open_model(source)
        with torch.no_grad():
            torch.testing.assert_close(model(images), wanted, rtol=1e-5, atol=1e-5)
    assert (wanted[0] - wanted[1]).abs().max() > 0.1  # the images matter


def test_what_comes_with_the_weights(folder: Path) -> None:
    model, info = open_model(folder)
    assert info.architecture == "tiny_vit" and info.labels == ["a", "b", "c"]
    assert (info.image.size, info.image.arithmetic, info.image.resized) == ((64, 64), "timm", (67,))
    config: Any = model.config
    assert (config.widths, config.depths, config.heads, config.windows) == (WIDTHS, DEPTHS, HEADS, WINDOWS)


def test_an_attention_of_the_trace_stands_where_its_tokens_do(folder: Path) -> None:
    """Reference: the plain attention of one window in the middle of the map."""
    model: Any = open_model(folder)[0]
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    trace = Trace()
    with torch.no_grad():
        model(images, trace=trace)
    record = trace.attentions["stages.1.block00.attention"]
    assert record.places is not None and record.places.shape == (16, 4)
    assert record.places[5].tolist() == [2 * 8 + 2, 2 * 8 + 3, 3 * 8 + 2, 3 * 8 + 3]
    maps = trace.tensors["stages.1.merging"].permute(0, 2, 3, 1)
    wanted = Plain(tensors()).window(
        "stages.1.blocks.0.attn", maps[0, 2:4, 2:4].double(), HEADS[0], WINDOWS[0]
    )
    mixed = trace.tensors["stages.1.block00.attention"][0].view(8, 8, -1)[2:4, 2:4]
    torch.testing.assert_close(mixed, wanted.float(), rtol=1e-5, atol=1e-5)


def test_the_default_map_finds_what_the_logit_depends_on(folder: Path) -> None:
    """Of an image whose patches but four are grey, the four have the largest mean share."""
    model, _ = open_model(folder)
    generator = torch.Generator().manual_seed(3)
    images = torch.zeros(1, 3, 64, 64)
    images[:, :, 16:32, 32:48] = 2 * torch.randn(3, 16, 16, generator=generator)
    found = explain(model, images, target=0)
    assert found.method == "presence" and found.tokens.shape[2:] == (16, 16)
    heat = found.map[0, 0].abs()
    inside = heat[16:32, 32:48].mean()
    assert inside > 2 * heat.mean()


def test_a_map_smaller_than_its_window_is_exported(tmp_path: Path) -> None:
    """Two blocks, so that one reads what a convolution left; reference: the module."""
    known: Any = catalog.find_model("tiny_vit_2m_small").config
    config = replace(known, image_size=(2, 2), widths=(4, 12), depths=(1, 2), heads=(3,), windows=(2,))
    model = create_model(config, num_classes=3, seed=0).eval()
    half = (0.5,) * 3
    view = ImageSpec(height=2, width=2, channels=3, mean=half, std=half)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    write_graph(model, describe(model, name="tiny", labels=list("abc"), image=view), tmp_path / "model.onnx")
    images = torch.randn(3, 3, 2, 2, generator=torch.Generator().manual_seed(2))
    found = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"images": images.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), model(images).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"window_sizes": [7, 7, 7]}, "window_sizes="),
        ({"window_sizes": None}, "window_sizes="),  # those of the name, whose tables timm would resize
        ({"num_heads": [1, 2, 2]}, "num_heads="),
        ({"embed_dims": [8, 16, 32]}, "embed_dims="),
        ({"mlp_ratio": 2.0}, "mlp_ratio=2.0"),
        ({"local_conv_size": 5}, "local_conv_size=5"),
        ({"act_layer": "relu"}, "act_layer='relu'"),
        ({"strange": 1}, "strange=1"),
    ],
    ids=str,
)
def test_other_arguments_are_refused(
    folder: Path, tmp_path: Path, stated: dict[str, Any], message: str
) -> None:
    save_file(tensors(), tmp_path / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["model_args"] |= stated
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=message) as caught:
        open_model(tmp_path)
    assert caught.value.hint


def test_a_folder_without_windows_is_refused(folder: Path, tmp_path: Path) -> None:
    found = tensors()
    del found["stages.1.blocks.0.attn.attention_biases"]
    save_file(found, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(WeightsError, match="no TinyViT"):
        open_model(tmp_path)


@pytest.mark.parametrize("head", [True, False])
def test_a_folder_of_timm_comes_back(folder: Path, tmp_path: Path, head: bool) -> None:
    """Equal tensors, arguments, labels, preprocessing and licence; without a classifier, without one."""
    wanted = {name: tensor for name, tensor in tensors().items() if head or not name.startswith("head.fc")}
    save_file(wanted, tmp_path / "model.safetensors")
    before = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(before))
    report = export_timm(tmp_path, tmp_path / "again")
    assert report.architecture == "tiny_vit_5m_224" and report.remarks[1:] == []
    found = load_file(tmp_path / "again/model.safetensors")
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    after = json.loads((tmp_path / "again/config.json").read_text())
    stated: dict[str, Any] = {"embed_dims": [8, 16, 24], "depths": [1, 2, 1], "num_heads": [2, 2, 3]}
    stated |= {"window_sizes": [2, 2, 3], "mlp_ratio": 4.0, "in_chans": 3}
    assert after["model_args"] == stated and after["num_classes"] == (3 if head else 0)
    view = before["pretrained_cfg"]
    assert {name: after["pretrained_cfg"][name] for name in view} == view
    assert after["pretrained_cfg"]["fixed_input_size"] is False  # timm's class takes no img_size
    assert after["label_names"] == ["a", "b", "c"]


@pytest.mark.parametrize(("export", "message"), [(export_timm, "stem=1"), (export_huggingface, "tiny_vit")])
def test_what_has_no_place_there_is_refused(tmp_path: Path, export: Any, message: str) -> None:
    known: Any = catalog.find_model("tiny_vit_2m_small").config
    config = replace(known, image_size=(8, 8), widths=(4, 12), depths=(1, 1), heads=(3,), windows=(2,))
    model = create_model(config, num_classes=3, seed=0).eval()
    info = describe(model, name="m", labels=list("abc"), image=image_spec((8, 8), 3))
    write_bundle(tmp_path / "m", model, info)
    with pytest.raises(WeightsError, match=message) as caught:
        export(tmp_path / "m", tmp_path / "out")
    assert "--to " in caught.value.hint and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes", [{"heads": (4, 5)}, {"heads": (4, 7, 10)}, {"stem": 3}, {"depths": (2,)}, {"drop_path": 1.0}]
)
def test_impossible_settings_are_named(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes)).removesuffix("s") + r"|width"):
        replace(catalog.find_model("tiny_vit_5m").config, **changes)


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_as_published(name: str) -> None:
    entry = catalog.find_model(name)
    parameters, products = PUBLISHED[name]
    assert round(entry.parameter_count(entry.config, 1000) / 1e6, 1) == pytest.approx(parameters, abs=0.051)
    assert entry.config.flops(1000) / 2e9 == pytest.approx(products, rel=0.05)
