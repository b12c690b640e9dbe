"""Layers that others changed: what a call of a layer gives counts everywhere, not its weight alone.

A class-token model computes rows of its last projection only, and SegFormer's decoder splits its fusion; both
read weights. Whatever else a call does must come out all the same: in the logits, and in the gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from tesela.layers.attention.attention import Attention
from tesela.layers.attention.cpu_bf16 import Dense
from tesela.layers.convolution.separable import Plain
from tesela.layers.lora import adapters, add_adapters
from tesela.layers.lora_config import LoraConfig
from tesela.layers.trace import Trace
from tesela.models.factory import create_model, create_segmenter
from tesela.models.model import Model

IMAGES = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Change = Callable[[nn.Module, str], None]


class Doubled(nn.Module):
    """A layer inside another, as adapters of other libraries are."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    @property
    def weight(self) -> Tensor:
        """That of the base alone."""
        return self.base.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        """That of the base alone."""
        return self.base.bias  # type: ignore[return-value]

    def forward(self, values: Tensor) -> Tensor:
        """Twice what the base gives."""
        return 2 * self.base(values)  # type: ignore[no-any-return]


class DoubledDense(Dense):
    """Another forward of the same class."""

    def forward(self, input: Tensor) -> Tensor:
        """Twice as much."""
        return 2 * super().forward(input)


class Halved(nn.Module):
    """A parametrisation."""

    def forward(self, weight: Tensor) -> Tensor:
        """Half of it."""
        return weight / 2


def wrapped(model: nn.Module, name: str) -> None:
    model.set_submodule(name, Doubled(model.get_submodule(name)))


def after(model: nn.Module, name: str) -> None:
    model.get_submodule(name).register_forward_hook(lambda _, __, result: 2 * result)


def before(model: nn.Module, name: str) -> None:
    model.get_submodule(name).register_forward_pre_hook(lambda _, given: (2 * given[0],))


def replaced(model: nn.Module, name: str) -> None:
    """The way of libraries that move weights about."""
    layer = model.get_submodule(name)
    plain = layer.forward
    layer.forward = lambda values: 2 * plain(values)


def pruned(model: nn.Module, name: str) -> None:
    """Its mask is applied before each call; a weight loaded since is not in ``weight`` yet."""
    layer = model.get_submodule(name)
    prune.l1_unstructured(layer, "weight", amount=0.5)
    with torch.no_grad():
        layer.get_parameter("weight_orig").mul_(3)


def old_weight_norm(model: nn.Module, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        layer = torch.nn.utils.weight_norm(model.get_submodule(name))
    with torch.no_grad():
        layer.get_parameter("weight_g").mul_(3)


def new_weight_norm(model: nn.Module, name: str) -> None:
    layer = parametrizations.weight_norm(model.get_submodule(name))
    with torch.no_grad():
        layer.get_parameter("parametrizations.weight.original0").mul_(3)


def parametrised(model: nn.Module, name: str) -> None:
    parametrize.register_parametrization(model.get_submodule(name), "weight", Halved())


CHANGES: list[Change] = [
    wrapped,
    after,
    before,
    replaced,
    pruned,
    old_weight_norm,
    new_weight_norm,
    parametrised,
]


def stirred(model: Model) -> Model:
    """No zero head, no equal rows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def classifier(**options: Any) -> Model:
    small = {"width": 16, "depth": 2, "heads": 2} | options
    return stirred(create_model("vit_nano", num_classes=3, seed=0, **small))


def gradients(model: Model, logits: Tensor) -> dict[str, Tensor]:
    """Of every parameter that has one."""
    model.zero_grad()
    logits.square().sum().backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def agrees(model: Model, images: Tensor) -> None:
    """The model's own forward against that under a trace, for which every layer is called on all tokens."""
    found, expected = model(images), model(images, trace=Trace())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * float(expected.detach().abs().max()))
    ours, theirs = gradients(model, model(images)), gradients(model, model(images, trace=Trace()))
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_the_last_projection(change: Change, position: str) -> None:
    """Reference: the forward pass of all tokens; and it is another one than without the change."""
    model = classifier(position=position)
    plain = model(IMAGES).detach()
    change(model, "backbone.blocks.1.attention.qkv")
    assert float((model(IMAGES).detach() - plain).abs().max()) > 0.01 * float(plain.abs().max())
    agrees(model, IMAGES)


def test_a_subclass() -> None:
    """Another forward under the same base class."""
    model = classifier()
    attention = model.get_submodule("backbone.blocks.1.attention")
    assert isinstance(attention, Attention)
    attention.qkv.__class__ = DoubledDense
    agrees(model, IMAGES)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_the_fusion_of_segformers_decoder(change: Change) -> None:
    """Reference: maps upsampled and stacked, the coarsest first, and the fusion called on them."""
    model = stirred(create_segmenter("segformer_b0", num_classes=3, image_size=64, seed=0))
    images = torch.randn(1, 3, 64, 64)
    decoder = model.get_submodule("head")
    entered: list[Tensor] = []
    with torch.no_grad():
        plain = model(images)
    change(decoder, "fuse")
    fuse = decoder.get_submodule("fuse")
    decoder.get_submodule("norm").register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    with torch.no_grad():
        found = model(images)
        stages = model.backbone(images).stages
        stacked = [
            nn.functional.interpolate(
                linear(stage.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, stage.shape[2:]),
                size=stages[0].shape[2:],
                mode="bilinear",
            )
            for stage, linear in zip(stages, decoder.get_submodule("maps").children(), strict=True)
        ]
        expected = fuse(torch.cat(stacked[::-1], 1))
    assert float((found - plain).abs().max()) > 1e-3 * float(plain.abs().max())
    torch.testing.assert_close(entered[0], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_an_unchanged_fusion_is_the_stacked_one() -> None:
    """The short way and the long way of the decoder agree."""
    model = stirred(create_segmenter("segformer_b0", num_classes=3, image_size=64, seed=0))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        short = model(images)
        assert type(model.get_submodule("head.fuse")) is Plain
        model.get_submodule("head.fuse").register_forward_hook(lambda _, __, result: result)
        torch.testing.assert_close(model(images), short, rtol=1e-4, atol=1e-4 * float(short.abs().max()))


def test_dropout_of_an_adapter_acts_in_the_last_block_too() -> None:
    """With a share of nearly one, nothing of the update is left while training."""
    model = classifier()
    plain = model(IMAGES).detach()
    add_adapters(model, LoraConfig(rank=2, dropout=0.999999), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _, layer in adapters(model):
            layer.lora_b.normal_(0, 1)
    assert float((model(IMAGES).detach() - plain).abs().max()) > 0.1
    torch.manual_seed(0)
    torch.testing.assert_close(model.train()(IMAGES), plain, rtol=1e-5, atol=1e-5)
