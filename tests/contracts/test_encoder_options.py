"""Positions, ways to add them and attentions in every valid combination, and what is promised of them
together.

``test_classifiers`` runs the whole contract over a choice of these; here each pair meets: closed forms,
kernels, other sizes, records, heat maps against full matrices, graphs for other runtimes, and the errors
of combinations that make no sense.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tests.attribution import oracle
from tests.contracts.encoder_variants import variant
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tesela.attribution.explain import explain
from tesela.core.errors import ConfigError
from tesela.exporters.onnx import export_onnx
from tesela.imaging.spec import ImageSpec
from tesela.layers.attention.attention import set_attention_kernel
from tesela.layers.trace import OFF, Trace
from tesela.models.bundle import describe, write_bundle
from tesela.models.encoder.config import EncoderConfig
from tesela.models.factory import create_model

ATTENTIONS = ("full", "wide", "axial", "local")
ADDED = tuple(itertools.product(("learned", "learned2d", "sincos2d"), ("input", "block", "shared")))
INSIDE = (("relative", "input"), ("rotary", "input"), ("none", "input"))
SIZES = ((20, 14), (8, 8), (40, 30))


def combinations() -> dict[str, EncoderConfig]:
    """Every valid one on a grid of 5 x 7 in windows of 3, with and without prefix in turn."""
    found: dict[str, EncoderConfig] = {}
    for number, (attention, (position, at)) in enumerate(itertools.product(ATTENTIONS, (*ADDED, *INSIDE))):
        prefix: dict[str, Any] = ({"registers": 1}, {"pool": "mean"}, {"pool": "class_mean", "registers": 2})[
            number % 3
        ]
        fields: dict[str, Any] = {
            "attention": attention,
            "position": position,
            "position_at": at,
            "window": 3,
            **prefix,
        }
        found[f"{attention}-{position}-{at}"] = variant(image_size=SIZES[0], **fields)
    return found


COMBINATIONS = combinations()
every = pytest.mark.parametrize("config", COMBINATIONS.values(), ids=COMBINATIONS)


def make(config: EncoderConfig) -> Any:
    model: Any = create_model(config, num_classes=3, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def images(size: tuple[int, int], count: int = 2) -> Tensor:
    return torch.randn(count, 2, *size, generator=torch.Generator().manual_seed(2))


@every
def test_closed_forms(config: EncoderConfig) -> None:
    """Parameters against the module's, operations against PyTorch's counter, on the own grid, a smaller
    and a larger one."""
    model = make(config)
    assert config.parameter_count(3) == sum(parameter.numel() for parameter in model.parameters())
    set_attention_kernel(model, "matmul")
    for size in SIZES:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(images(size, 1), trace=Trace())
        assert counter.get_total_flops() == config.flops(3, image_size=size)


@every
def test_kernels_agree_and_records_hold_what_was_computed(config: EncoderConfig) -> None:
    model, batch = make(config), images(config.image_size)
    logits = model(batch)
    for kernel in ("matmul", "cpu_bf16"):
        set_attention_kernel(model, kernel)
        torch.testing.assert_close(model(batch), logits, rtol=1e-4, atol=1e-5)
    trace = Trace()
    torch.testing.assert_close(model(batch, trace=trace), logits, rtol=1e-4, atol=1e-5)
    assert len(trace.attentions) == config.depth
    for record in trace.attentions.values():
        torch.testing.assert_close(record.dense() @ record.v, record.out, rtol=1e-4, atol=1e-5)


@every
def test_training_in_bf16_stays_near(config: EncoderConfig) -> None:
    """Loss and gradients under autocast with every kernel, beside fp32."""
    model, batch, targets = make(config).train(), images(config.image_size, 4), torch.tensor([0, 1, 2, 0])
    gradients: list[Tensor] = []
    for kernel, low in (("matmul", False), ("fused", True), ("matmul", True), ("cpu_bf16", True)):
        set_attention_kernel(model, kernel)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            logits = model(batch)
        torch.nn.functional.cross_entropy(logits.float(), targets).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        gradients.append(
            torch.cat(
                [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
            )
        )
    for found in gradients[1:]:
        assert (found - gradients[0]).norm() < 0.1 * gradients[0].norm()


@every
def test_another_size_at_run_time_and_as_the_own(config: EncoderConfig) -> None:
    model = make(config)
    for size in SIZES[1:]:
        moved, batch = copy.deepcopy(model), images(size)
        moved.set_image_size(size)
        torch.testing.assert_close(moved(batch), model(batch), rtol=1e-4, atol=1e-5)
        assert sum(parameter.numel() for parameter in moved.parameters()) == moved.config.parameter_count(3)


@every
def test_positions_matter_unless_there_are_none(config: EncoderConfig) -> None:
    """With the patches of an image in another order, mean-pooled full attention without positions gives
    the same, all others not."""
    model = make(config)
    tokens = model.backbone.patches(images(config.image_size, 1))
    order = torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(3))

    class Stem(torch.nn.Module):
        def __init__(self, given: Tensor) -> None:
            super().__init__()
            self.given = given

        def forward(self, batch: Tensor, *, trace: Trace = OFF) -> Tensor:
            return self.given

    answers = []
    for given in (tokens, tokens[:, order]):
        model.backbone.patches = Stem(given)
        answers.append(model(images(config.image_size, 1)))
    blind = config.position == "none" and config.attention in ("full", "wide")
    assert torch.allclose(answers[0], answers[1], rtol=1e-4, atol=1e-5) == blind


EXPLAINED = (
    "full-relative-input",
    "axial-relative-input",
    "axial-learned2d-block",
    "local-rotary-input",
    "local-learned-shared",
)


@pytest.mark.parametrize("name", EXPLAINED)
@pytest.mark.parametrize("method", ["rollout", "gradient_rollout"])
def test_heat_maps_equal_those_of_full_matrices(name: str, method: str) -> None:
    """Reference: the float64 oracle over whole matrices.

    The gradient by finite differences of the logit along the output.
    """
    model = make(dataclasses.replace(COMBINATIONS[name], pool="mean", registers=1))
    batch, trace = images(model.config.image_size, 1), Trace()
    logits = model(batch, trace=trace)
    records = list(trace.attentions.values())
    layers = [record.dense().detach()[0].double().numpy() for record in records]
    if method == "gradient_rollout":
        slopes = torch.autograd.grad(logits[0, 1], [record.out for record in records])
        grown = [
            (slope @ record.v.mT).detach()[0].double().numpy()
            for slope, record in zip(slopes, records, strict=True)
        ]
        layers = [oracle.gradient_layer(layer, slope) for layer, slope in zip(layers, grown, strict=True)]
    prefix, count = model.config.prefix, layers[0].shape[-1]
    start = np.zeros(count)
    start[prefix:] = 1 / (count - prefix)
    expected = oracle.rollout(layers, start, how="mean", share=0.0, residual=0.5, prefix=prefix)
    found = explain(model, batch, target=1, method=method)
    np.testing.assert_allclose(found.tokens.flatten().numpy(), expected[prefix:], rtol=1e-3, atol=1e-6)
    assert found.tokens.shape[2:] == model.config.grid()


@pytest.mark.parametrize("name", ["full-relative-input", "axial-rotary-input", "local-relative-input"])
def test_onnx_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    """Reference: the module; padded and shifted windows, at batch sizes the exporter did not see."""
    model = make(COMBINATIONS[name])
    height, width = model.config.image_size
    spec = ImageSpec(height=height, width=width, channels=1, mean=(0.5,), std=(0.5,))
    grey: Any = create_model(dataclasses.replace(model.config, channels=1), num_classes=3, seed=0).eval()
    grey.load_state_dict(
        {key: value for key, value in model.state_dict().items() if key != "backbone.patches.weight"},
        strict=False,
    )
    write_bundle(tmp_path / "bundle", grey, describe(grey, name="tiny", labels=["a", "b", "c"], image=spec))
    report = export_onnx(tmp_path / "bundle")
    session = onnxruntime.InferenceSession(
        str(report.bundle / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    for count in (1, 4):
        batch = images(model.config.image_size, count)[:, :1]
        with torch.no_grad():
            wanted = grey(batch).numpy()
        np.testing.assert_allclose(session.run(None, {"images": batch.numpy()})[0], wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message", "hint"),
    [
        (
            {"position": "relative", "position_at": "block"},
            "relative adds none",
            "learned, learned2d or sincos2d",
        ),
        ({"position": "none", "position_at": "shared"}, "none adds none", "with input"),
        (
            {"position": "learned2d", "width": 15, "heads": 3},
            "learned2d positions need a width divisible by 2",
            "change width",
        ),
        ({"position": "rotary", "heads": 8}, "width per head divisible by 4, not 2", "heads"),
        ({"attention": "axial", "depth": 3}, "depth 3 is odd", "depth 4"),
        ({"attention": "local", "window": 0}, "window must be at least 1", "positive"),
        (
            {"attention": "local", "patch_dropout": 0.5},
            "holes in the grid that local attention needs",
            "full or wide",
        ),
        ({"attention": "axial", "heads": 3}, "not divisible by 3 heads", "attention=wide"),
        ({"position": "relative", "depth": 1}, "one block has no other reader", "pool=mean"),
        ({"layer_scale": -1.0}, "layer_scale not negative", "defaults"),
        ({"pool": "class_mean", "distillation": True}, "distillation token", "pool=class"),
    ],
)
def test_combinations_without_sense_are_refused(fields: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        variant(**fields)
    assert hint in str(caught.value.hint)


def test_weights_of_new_tables_are_drawn_as_documented() -> None:
    """Deviation 0.02 for every table of positions, over enough values to tell."""
    fields: dict[str, Any] = {"width": 64, "heads": 2, "depth": 4, "image_size": (64, 32)}
    for config in (
        variant(position="relative", **fields),
        variant(position="learned2d", position_at="block", **fields),
        variant(attention="axial", position="relative", **fields),
    ):
        model = create_model(config, num_classes=3, seed=0)
        tables = [
            parameter
            for name, parameter in model.named_parameters()
            if "relative" in name or name.startswith("backbone.positions")
        ]
        drawn = torch.cat([table.flatten() for table in tables])
        assert drawn.std().item() == pytest.approx(0.02, rel=0.05) and abs(drawn.mean().item()) < 0.001
        spared = model.no_decay()
        assert all(
            name in spared
            for name, _ in model.named_parameters()
            if "relative" in name or name.startswith("backbone.positions")
        )


def test_a_table_of_its_own_belongs_to_its_block() -> None:
    """For learning rates that fall from block to block."""
    model = create_model(variant(position="learned2d", position_at="block"), num_classes=3, seed=0)
    groups = model.layer_groups()
    assert not [name for name in groups[0] if name.startswith("backbone.positions")]
    assert all(f"backbone.positions.{index}.rows" in groups[index + 1] for index in range(2))
