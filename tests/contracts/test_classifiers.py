"""One contract for every registered model and every option that changes the network, at tiny width.

The options are in encoder_variants.

Names that differ in size only become the same tiny model and are run once; ``test_all_names_are_covered``
sees to it that none is left out.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tests.contracts.encoder_variants import VARIANTS
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tesela.exporters.graph import write_graph
from tesela.imaging.spec import ImageSpec
from tesela.layers.attention.attention import set_attention_kernel
from tesela.layers.attention.kernels import HasKernel
from tesela.layers.trace import Trace
from tesela.models import catalog
from tesela.models.bundle import describe, load_bundle, write_bundle
from tesela.models.cct.config import CCTConfig
from tesela.models.classifier import Classifier
from tesela.models.config import ModelConfig
from tesela.models.convnext.config import ConvNextConfig
from tesela.models.encoder.config import EncoderConfig
from tesela.models.factory import create_model
from tesela.models.resnet.config import ResNetConfig
from tesela.models.segformer.config import SegformerConfig
from tesela.models.shapes import step_shapes
from tesela.models.swin.config import SwinConfig
from tesela.models.tiny_vit.config import TinyVitConfig
from tesela.models.unet.config import UnetConfig
from tesela.models.vit.config import ViTConfig

CLASSES = 5

#: Options of the shared encoder in families that change more than its stem.
MIXED: dict[str, ModelConfig] = {
    "deit with relative positions": dataclasses.replace(
        catalog.find_model("deit_ti16").config.tiny(), position="relative", registers=1
    ),  # type: ignore[call-arg]
    "hybrid with rotary positions": dataclasses.replace(
        catalog.find_model("r50_vit_b16").config.tiny(), position="rotary", pool="mean"
    ),  # type: ignore[call-arg]
    "residual with stochastic depth": dataclasses.replace(
        catalog.find_model("resnet18_small").config.tiny(), drop_path=0.2
    ),  # type: ignore[call-arg]
    "tiny_vit with stochastic depth": dataclasses.replace(
        catalog.find_model("tiny_vit_5m").config.tiny(), stem=1, dropout=0.1, drop_path=0.2
    ),  # type: ignore[call-arg]
    "swin with one window at last": dataclasses.replace(
        catalog.find_model("swin_tiny").config.tiny(), windows=(2, 4)
    ),  # type: ignore[call-arg]
    "swin with timm's edges": dataclasses.replace(
        catalog.find_model("swin_tiny").config.tiny(), edges="timm", qkv_bias=False, drop_path=0.2
    ),  # type: ignore[call-arg]
}


def cases() -> dict[str, ModelConfig]:
    found: dict[str, ModelConfig] = {}
    for name in catalog.model_names():
        config = catalog.find_model(name).config.tiny()
        if config not in found.values():
            found[name] = config
    return found | MIXED | VARIANTS


CASES = cases()
ATTENDING = {name: config for name, config in CASES.items() if isinstance(config, EncoderConfig)}
#: One of each family, and a residual network of each kind.
FAMILIES = {catalog.family_of(config): config for config in reversed(CASES.values())} | {
    "bit": CASES["bit_r50x1"],
    "swin": CASES["swin with one window at last"],
}
every = pytest.mark.parametrize("config", CASES.values(), ids=CASES)
attending = pytest.mark.parametrize("config", ATTENDING.values(), ids=ATTENDING)


def make(config: ModelConfig, seed: int = 0) -> Classifier:
    """The model in evaluation mode, all weights random.

    A fresh head is zero and would hide everything before it.
    """
    model = create_model(config, num_classes=CLASSES, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def images(config: ModelConfig, *, count: int = 3, size: tuple[int, int] | None = None) -> Tensor:
    return torch.randn(
        count, config.channels, *(size or config.image_size), generator=torch.Generator().manual_seed(1)
    )


def larger(config: ModelConfig) -> tuple[int, int]:
    """Another size that fits, not square and of another shape."""
    height, width = config.image_size
    return 2 * height, 3 * width


def test_all_names_are_covered() -> None:
    assert {catalog.find_model(name).config.tiny() for name in catalog.model_names()} <= set(CASES.values())


@every
def test_it_is_a_classifier(config: ModelConfig) -> None:
    model = make(config)
    assert isinstance(model, Classifier)
    features = model.features(images(config))
    rows, columns = features.grid
    assert features.grid == model.grid(config.image_size) == config.grid()
    assert features.tokens.shape == (3, features.prefix + rows * columns, getattr(config, "width", None))
    pooled = model.pooled(images(config))
    assert pooled.shape == (3, config.pooled_width)
    torch.testing.assert_close(model.head(pooled), model(images(config)), rtol=1e-5, atol=1e-6)
    assert model(images(config)).shape == (3, CLASSES)


@every
def test_images_do_not_see_each_other(config: ModelConfig) -> None:
    model, batch = make(config), images(config)
    alone = torch.cat([model(batch[index : index + 1]) for index in range(len(batch))])
    torch.testing.assert_close(model(batch), alone, rtol=1e-4, atol=1e-5)
    assert (alone[0] - alone[1]).abs().max() > 1e-3


@every
def test_gradients_reach_every_parameter(config: ModelConfig) -> None:
    """All but the bias of sequence pooling, which shifts all scores alike.

    It exists because the published weights have it.
    """
    model = make(config).train()
    torch.manual_seed(0)
    torch.autograd.backward(
        nn.functional.cross_entropy(model(images(config, count=4)), torch.tensor([0, 1, 2, 3]))
    )
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0 or name == "pool.score.bias", name


@every
def test_other_sizes(config: ModelConfig) -> None:
    model, size = make(config), larger(config)
    features = model.features(images(config, size=size))
    assert features.grid == config.grid(size) != config.grid()
    assert features.tokens.shape[1] == features.prefix + features.grid[0] * features.grid[1]
    here = model(images(config, size=size))
    model.set_image_size(size)
    torch.testing.assert_close(model(images(config, size=size)), here)
    assert sum(parameter.numel() for parameter in model.parameters()) == model.config.parameter_count(CLASSES)


@every
def test_closed_forms(config: ModelConfig) -> None:
    """Parameters against the module's, operations against PyTorch's own counter over the real run.

    Every parameter belongs to one of the steps that ``tesela models --shapes`` lists.
    """
    model = make(config)
    assert config.parameter_count(CLASSES) == sum(parameter.numel() for parameter in model.parameters())
    steps = step_shapes(config, num_classes=CLASSES)
    assert sum(step.parameters for step in steps) == config.parameter_count(CLASSES)
    set_attention_kernel(model, "matmul")
    for size in (config.image_size, larger(config)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            # the whole network, all tokens of the last block too
            model(images(config, count=1, size=size), trace=Trace())
        assert counter.get_total_flops() == config.flops(CLASSES, image_size=size)


@every
def test_a_bundle_gives_the_same_bits(config: ModelConfig, tmp_path: Path) -> None:
    model = make(config)
    image = ImageSpec(
        height=config.image_size[0], width=config.image_size[1], channels=1, mean=(0.5,), std=(0.5,)
    )
    info = describe(model, name="tiny", labels=[f"class {index}" for index in range(CLASSES)], image=image)
    write_bundle(tmp_path / "bundle", model, info)
    loaded, _ = load_bundle(tmp_path / "bundle")
    assert loaded.config == config
    assert torch.equal(loaded(images(config)), model(images(config)))


@every
def test_export_with_free_batch(config: ModelConfig) -> None:
    model = make(config)
    program = torch.export.export(
        model, (images(config),), dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}}
    )
    batch = images(config, count=5)
    torch.testing.assert_close(program.module()(batch), model(batch))


SIMILAR = {name for name, config in CASES.items() if type(config) in (ViTConfig, CCTConfig)} - {
    "vit_ti4",
    "cct_2_3x2_32",
    *VARIANTS,
}
COMPILED = {name: config for name, config in CASES.items() if name not in SIMILAR}


@pytest.mark.parametrize("config", COMPILED.values(), ids=COMPILED)
def test_one_graph_for_compilation(config: ModelConfig) -> None:
    """TorchDynamo captures the whole network without a break.

    Its graph, run as it is, gives the same logits.
    """
    torch.compiler.reset()
    model = make(config)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images(config)), model(images(config)))


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
def test_onnx_gives_the_same_logits(config: ModelConfig, tmp_path: Path) -> None:
    """The graph that the exporter writes, in onnxruntime, for another batch size than it was written with."""
    model, batch = make(config), images(config, count=5)
    height, width = config.image_size
    spec = ImageSpec(
        height=height,
        width=width,
        channels=config.channels,
        mean=(0.5,) * config.channels,
        std=(0.5,) * config.channels,
    )
    info = describe(model, name="tiny", labels=[f"class {index}" for index in range(CLASSES)], image=spec)
    write_graph(model, info, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    found = session.run(None, {"images": batch.numpy()})[0]
    np.testing.assert_allclose(found, model(batch).detach().numpy(), rtol=1e-4, atol=1e-5)


@every
def test_trace_changes_nothing_and_names_every_stage(config: ModelConfig) -> None:
    model, trace = make(config), Trace()
    traced, plain = model(images(config), trace=trace), model(images(config))
    # with a class token the plain pass computes less in the last block
    torch.testing.assert_close(traced, plain, rtol=1e-5, atol=1e-6)
    model(images(config), trace=(again := Trace()))
    assert torch.equal(trace.tensors["head"], again.tensors["head"])
    assert {"pool", "head"} <= set(trace.tensors)
    if isinstance(config, ResNetConfig):
        units = [
            f"backbone.stages.{stage}.{unit}"
            for stage, count in enumerate(config.stages)
            for unit in range(count)
        ]
        last = ["backbone.norm"] if config.order == "pre" else []
        assert (
            list(trace.tensors) == ["backbone.root", *units, *last, "pool", "head"] and not trace.attentions
        )
    elif isinstance(config, EncoderConfig):
        blocks = [f"block{index:02d}" for index in range(config.depth)]
        pool = ["pool.attention"] if config.pool == "attention" else []
        assert {"patches", "positions", *blocks, "norm"} <= set(trace.tensors)
        assert list(trace.attentions) == [f"{block}.attention" for block in blocks] + pool


@attending
def test_records_are_the_attention(config: EncoderConfig) -> None:
    """The record's softmax(q kT * scale + bias) v, written out here in float64, is the recorded output."""
    model, trace = make(config), Trace()
    model(images(config), trace=trace)
    for name, record in trace.attentions.items():
        logits = record.q.double() @ record.k.double().mT * record.scale
        if record.bias is not None:
            logits = (
                logits.masked_fill(~record.bias, -torch.inf)
                if record.bias.dtype == torch.bool
                else logits + record.bias
            )
        torch.testing.assert_close(
            record.out, (logits.softmax(-1) @ record.v.double()).float(), rtol=1e-5, atol=1e-5
        )
        assert record.name == name and record.out.requires_grad


@attending
def test_recorded_outputs_are_in_the_graph(config: EncoderConfig) -> None:
    model, trace = make(config), Trace()
    score = model(images(config), trace=trace)[:, 0].sum()
    for gradient in torch.autograd.grad(score, [record.out for record in trace.attentions.values()]):
        assert gradient.abs().max() > 0


@every
def test_kernels_agree(config: ModelConfig) -> None:
    """A model without attention takes every kernel and stays as it is."""
    model, batch = make(config), images(config)
    fused = model(batch)
    set_attention_kernel(model, "matmul")
    torch.testing.assert_close(model(batch), fused, rtol=1e-4, atol=1e-5)
    attends = any(isinstance(module, HasKernel) for module in model.backbone.modules())
    assert attends or torch.equal(model(batch), fused)


@every
def test_parameter_names_are_divided(config: ModelConfig) -> None:
    model = make(config)
    named = dict(model.named_parameters())
    groups = model.layer_groups()
    assert sorted(name for group in groups for name in group) == sorted(named)
    if isinstance(config, ResNetConfig):
        stem, count = "backbone.backbone.root", len(config.stages) + 2
    elif isinstance(config, (ConvNextConfig, SegformerConfig, SwinConfig)):
        stem, count = "backbone.stages.0.patches", sum(config.depths)
    elif isinstance(config, TinyVitConfig):
        stem, count = "backbone.stages.0.stem1", sum(config.depths)
    elif isinstance(config, UnetConfig):
        stem, count = "backbone.scales.0", len(config.widths)
    else:
        assert isinstance(config, EncoderConfig)
        stem, count = "backbone.patches", config.depth + 2
    assert all(groups) and len(groups) == count
    assert any(name.startswith(stem) for name in groups[0]) and any(
        name.startswith("head") for name in groups[-1]
    )
    kept = model.no_decay()
    assert kept <= set(named)
    assert {name for name, parameter in named.items() if name.endswith("bias")} <= kept
    assert not {name for name in kept if name.endswith("weight") and named[name].ndim > 1}


@every
def test_a_new_head_starts_at_zero_and_keeps_the_body(config: ModelConfig) -> None:
    model, batch = make(config), images(config)
    body = model.pooled(batch)
    model.reset_head(7)
    assert model.num_classes == 7 and getattr(model.config, "head", "linear") == "linear"
    assert torch.equal(model(batch), torch.zeros(3, 7))
    assert torch.equal(model.pooled(batch), body)
    assert sum(parameter.numel() for parameter in model.parameters()) == model.config.parameter_count(7)


@every
def test_weights_are_a_function_of_the_seed(config: ModelConfig) -> None:
    state = torch.get_rng_state()
    first, same, other = (
        create_model(config, num_classes=CLASSES, seed=seed).state_dict() for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert all(torch.isfinite(tensor).all() for tensor in first.values())


@every
def test_every_weight_is_drawn(config: ModelConfig) -> None:
    model = make(config)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(float("nan") if tensor.is_floating_point() else -1)
    model.initialise(torch.Generator().manual_seed(0))
    fresh = create_model(config, num_classes=CLASSES, seed=0).state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in model.state_dict().items())
