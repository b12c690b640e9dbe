"""One contract for every decoder on every family of backbones, at tiny width."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tesela.core.errors import ConfigError
from tesela.exporters.graph import write_graph
from tesela.imaging.spec import ImageSpec
from tesela.layers.attention.attention import set_attention_kernel
from tesela.layers.trace import Trace
from tesela.models import catalog
from tesela.models.bundle import describe, load_bundle, write_bundle
from tesela.models.config import ModelConfig
from tesela.models.factory import create_segmenter
from tesela.models.segmenter.segmenter import Segmenter

CLASSES = 5
BACKBONES: dict[str, ModelConfig] = {
    "vit": catalog.find_model("vit_ti4").config.tiny(),
    "vit 14": catalog.find_model("vit_ti14").config.tiny(),
    "article": catalog.find_model("vit_seg_article").config.tiny(),
    "deit": catalog.find_model("deit_ti16").config.tiny(),
    "cct": catalog.find_model("cct_7_3x2_32").config.tiny(),
    "hybrid": catalog.find_model("r50_vit_b16").config.tiny(),
    "resnet": catalog.find_model("resnet50").config.tiny(),
    "resnet for small images": catalog.find_model("resnet18_small").config.tiny(),
    "bit": catalog.find_model("bit_r50x1").config.tiny(),
    "segformer": catalog.find_model("segformer_b0").config.tiny(),
    "unet": catalog.find_model("unet").config.tiny(),
    "separable unet": catalog.find_model("unet_separable").config.tiny(),
}
DECODERS: dict[str, dict[str, Any]] = {
    "linear": {"name": "linear"},
    "patch": {"name": "patch"},
    "patch mlp": {"name": "patch", "hidden": 12},
    "mlp": {"name": "mlp", "width": 6},
    "light": {"name": "light", "width": 6},
    "light, tokens alone": {"name": "light", "width": 6, "detail": False, "blocks": 1},
    "unet": {"name": "unet"},
    "separable unet": {"name": "unet", "separable": True},
}


def goes_together(backbone: str, decoder: str) -> bool:
    try:
        create_segmenter(BACKBONES[backbone], num_classes=CLASSES, decoder=DECODERS[decoder])
    except ConfigError:
        return False
    return True


CASES = [
    pytest.param(backbone, decoder, id=f"{backbone}-{decoder}")
    for backbone in BACKBONES
    for decoder in DECODERS
    if goes_together(backbone, decoder)
]
every = pytest.mark.parametrize(("backbone", "decoder"), CASES)
#: Backbones whose graphs have the same parts as another's; their own are exported as classifiers.
ALIKE = ("vit 14", "deit", "resnet for small images", "bit")
#: Each other backbone with the light decoder, each decoder on one backbone that it goes with.
EXPORTED = [
    case
    for case in CASES
    if (case.values[1] == "light" and case.values[0] not in ALIKE)
    or case.values[0] == "vit"
    or (case.values[0] == "unet" and "unet" in str(case.values[1]))
]


def make(backbone: str, decoder: str) -> Segmenter:
    """The model in evaluation mode, all weights random, since a fresh last layer is zero."""
    model = create_segmenter(BACKBONES[backbone], num_classes=CLASSES, decoder=DECODERS[decoder], seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def images(model: Segmenter, *, count: int = 2, scale: tuple[int, int] = (1, 1)) -> Tensor:
    height, width = model.config.image_size
    size = height * scale[0], width * scale[1]
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, model.config.channels, *size, generator=generator)


def test_which_decoders_go_with_which_backbones() -> None:
    """Linear, light and mlp with all; patch where tokens tile the image; unet on pyramids."""
    found = {
        backbone: {case.values[1] for case in CASES if case.values[0] == backbone} for backbone in BACKBONES
    }
    anywhere = {"linear", "light", "light, tokens alone", "mlp"}
    assert all(anywhere <= names for names in found.values())
    pyramids = {name for name, names in found.items() if "unet" in names}
    assert pyramids == {name for name, config in BACKBONES.items() if len(config.stage_widths) > 1}
    assert {"patch", "patch mlp"} <= found["vit"] & found["article"] & found["deit"]


@every
def test_logits_of_every_pixel(backbone: str, decoder: str) -> None:
    """At the model's own size and at others, not square; each image by itself."""
    model = make(backbone, decoder)
    for scale in ((1, 1), (2, 3)):
        batch = images(model, scale=scale)
        logits = model(batch)
        assert logits.shape == (2, CLASSES, *batch.shape[2:])
        torch.testing.assert_close(model(batch[1:]), logits[1:], rtol=1e-4, atol=1e-5)
        assert (logits[0] - logits[1]).abs().max() > 1e-3


@every
def test_closed_forms(backbone: str, decoder: str) -> None:
    """Parameters against the modules', operations against PyTorch's own counter."""
    model = make(backbone, decoder)
    config = model.config
    total = config.backbone_parameters() + model.decoder.parameter_count(config, CLASSES)
    assert total == sum(parameter.numel() for parameter in model.parameters())
    set_attention_kernel(model, "matmul")
    for scale in ((1, 1), (2, 3)):
        batch = images(model, count=1, scale=scale)
        size = batch.shape[2], batch.shape[3]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(batch)
        products = config.backbone_products(size) + model.decoder.products(config, CLASSES, size)
        assert counter.get_total_flops() == 2 * products


@every
def test_gradients_reach_every_parameter(backbone: str, decoder: str) -> None:
    model = make(backbone, decoder).train()
    torch.manual_seed(0)
    model(images(model, count=3)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@every
def test_a_bundle_gives_the_same_bits(backbone: str, decoder: str, tmp_path: Path) -> None:
    model = make(backbone, decoder)
    height, width = model.config.image_size
    spec = ImageSpec(height=height, width=width, channels=1, mean=(0.5,), std=(0.5,))
    labels = [f"class {index}" for index in range(CLASSES)]
    info = describe(model, name="tiny", labels=labels, image=spec, task="segment")
    write_bundle(tmp_path / "bundle", model, info)
    loaded, _ = load_bundle(tmp_path / "bundle")
    assert isinstance(loaded, Segmenter) and loaded.options == model.options
    assert torch.equal(loaded(images(model)), model(images(model)))


@pytest.mark.parametrize(("backbone", "decoder"), EXPORTED)
def test_onnx_gives_the_same_logits(backbone: str, decoder: str, tmp_path: Path) -> None:
    """In onnxruntime, for another batch size than the graph was written with."""
    model = make(backbone, decoder)
    height, width = model.config.image_size
    channels = model.config.channels
    half = (0.5,) * channels
    spec = ImageSpec(height=height, width=width, channels=channels, mean=half, std=half)
    labels = [f"class {index}" for index in range(CLASSES)]
    info = describe(model, name="tiny", labels=labels, image=spec, task="segment")
    write_graph(model, info, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    batch = images(model, count=3)
    found = session.run(None, {"images": batch.numpy()})[0]
    np.testing.assert_allclose(found, model(batch).detach().numpy(), rtol=1e-4, atol=1e-4)


@every
def test_the_trace_changes_nothing(backbone: str, decoder: str) -> None:
    model, trace = make(backbone, decoder), Trace()
    torch.testing.assert_close(model(images(model), trace=trace), model(images(model)), rtol=1e-5, atol=1e-6)
    assert trace.tensors["head"].shape == (2, CLASSES, *model.config.image_size)
    groups = model.layer_groups()
    assert sorted(name for group in groups for name in group) == sorted(
        name for name, _ in model.named_parameters()
    )


@every
def test_other_classes_keep_the_backbone(backbone: str, decoder: str) -> None:
    model = make(backbone, decoder)
    before = model.features(images(model)).tokens
    model.reset_head(3)
    assert model(images(model)).shape[1] == model.num_classes == 3
    assert torch.equal(model.features(images(model)).tokens, before)


def test_a_decoder_that_does_not_fit_is_named() -> None:
    with pytest.raises(ConfigError, match="unet needs feature maps of several scales"):
        create_segmenter("vit_ti16", num_classes=3, decoder="unet")
    with pytest.raises(ConfigError, match="do not tile"):
        create_segmenter("resnet18", num_classes=3, decoder="patch", image_size=100)
    with pytest.raises(ConfigError, match="widht"):
        create_segmenter("vit_ti16", num_classes=3, decoder={"name": "light", "widht": 3})


def test_the_segmenter_of_the_article() -> None:
    """86,284,806 parameters, no convolution, and the article's shapes from step to step."""
    model = create_segmenter("vit_seg_article", num_classes=3, seed=0).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == 86_284_806
    assert not [name for name, part in model.named_modules() if "conv" in type(part).__name__.lower()]
    trace = Trace()
    with torch.no_grad():
        model(torch.randn(1, 3, 128, 128), trace=trace)
    shapes = {name: tuple(tensor.shape) for name, tensor in trace.tensors.items()}
    assert shapes["input_norm"] == (1, 3, 128, 128)
    assert shapes["patches"] == shapes["block11"] == (1, 64, 768)
    assert shapes["head.linear"] == (1, 64, 16 * 16 * 3)
    assert shapes["head"] == (1, 3, 128, 128)
    smaller = create_segmenter(
        "vit_seg_article", num_classes=3, patch_size=(8, 8), width=192, depth=2, heads=6,
        decoder={"name": "patch", "hidden": 64},
    )  # fmt: skip
    assert smaller(torch.randn(1, 3, 128, 128)).shape == (1, 3, 128, 128)


def test_patches_come_out_where_they_went_in() -> None:
    """Reference: a loop. Each token's numbers are its own patch's pixels, row by row, class last."""
    config = dataclasses.replace(catalog.find_model("vit_ti4").config.tiny(), image_size=(8, 12))
    model = create_segmenter(config, num_classes=2, decoder="patch", seed=0).eval()
    trace = Trace()
    logits = model(torch.randn(1, 3, 8, 12), trace=trace)[0]
    tokens = trace.tensors["head.linear"][0]  # (6, 4 * 4 * 2)
    for row in range(8):
        for column in range(12):
            token = tokens[(row // 4) * 3 + column // 4].view(4, 4, 2)
            assert torch.equal(logits[:, row, column], token[row % 4, column % 4])
