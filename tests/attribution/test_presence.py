"""Presence against its definition.

A mask on the keys of every attention and on what is averaged, differentiated by autograd in float64.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from tests.attribution.foreign_models import make as make_foreign
from tests.attribution.foreign_models import outputs
from tests.attribution.test_explain import make, pictures
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tesela.attribution.explain import explain
from tesela.models.factory import create_model


class Masked(TorchFunctionMode):
    """Gives every patch the presence ``m`` (B, n), wherever a model attends to it or averages it."""

    def __init__(self, m: Tensor, prefix: int) -> None:
        super().__init__()
        self.m = m
        self.keys = torch.cat([m.new_ones(len(m), prefix), m], dim=1)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        patches = self.m.shape[1]
        if func is F.scaled_dot_product_attention:
            bias = kwargs.pop("attn_mask", None)
            mask = self.keys.log()[:, None, None, :]
            return func(
                *args[:3],
                **{**kwargs, "attn_mask": mask if bias is None else mask + bias, "is_causal": False},
            )
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if (
            func in (torch.mean, Tensor.mean)
            and dim in (1, (1,))
            and args[0].ndim == 3
            and args[0].shape[1] == patches
        ):
            return (args[0] * (self.m / self.m.sum(1, keepdim=True))[..., None]).sum(1)
        if func is Tensor.softmax and dim == 1:
            return func(args[0] + self.m.log()[..., None], *args[1:], **kwargs)
        return func(*args, **kwargs)


def expected(model: nn.Module, images: Tensor, target: int, *, patches: int, prefix: int) -> Tensor:
    """dy/dm at m = 1, (B, n)."""
    twin = copy.deepcopy(model).double()
    m = torch.ones(len(images), patches, dtype=torch.float64, requires_grad=True)
    with Masked(m, prefix):
        logits = (
            outputs(twin(images.double()))
            if hasattr(model, "set_attn_implementation")
            else twin(images.double())
        )
    (found,) = torch.autograd.grad(logits[:, target].sum(), m)
    return found


def agrees(found: Tensor, reference: Tensor) -> bool:
    """Within 1e-5 of the largest value."""
    return bool((found.flatten(1) - reference).abs().max() <= 1e-5 * reference.abs().max())


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"distillation": True, "registers": 2},
        {"pool": "mean"},
        {"pool": "class_mean"},
        {"pool": "sequence"},
        {"pool": "attention"},
        {"position": "relative", "pool": "mean"},
        {"position": "rotary"},
        {"norm": "post"},
    ],
)
def test_presence_is_the_derivative_by_a_mask_on_the_keys(fields: dict[str, Any]) -> None:
    """Reference: autograd through the masked model; two images, two classes."""
    model, images = make(**fields), pictures(2)
    prefix = int(cast("Any", model).config.prefix)
    tokens = explain(model, images, target=[1, 3], method="presence").tokens
    for place, target in enumerate((1, 3)):
        reference = expected(model, images, target, patches=24, prefix=prefix)
        assert reference.abs().max() > 1e-3
        assert agrees(tokens[:, place], reference)


@pytest.mark.parametrize(
    ("name", "patches", "prefix"),
    [
        ("vit", 24, 1),
        ("deit with teacher", 24, 2),
        ("dinov2 with registers", 24, 5),
        ("siglip, mean pooling", 36, 0),
    ],
)
def test_presence_of_foreign_models(name: str, patches: int, prefix: int) -> None:
    """Reference: the same, through the other library's own code."""
    model, images = make_foreign(name)
    tokens = explain(model, images, target=2, method="presence").tokens[:, 0]
    assert agrees(tokens, expected(model, images, 2, patches=patches, prefix=prefix))


def test_a_pyramid_and_a_segmenter_have_presence_too() -> None:
    """Both are finite, not flat, and on the first stage's grid."""
    for name in ("segformer classifier", "segformer segmenter"):
        model, images = make_foreign(name)
        tokens = explain(model, images, target=1, method="presence").tokens
        assert torch.isfinite(tokens).all()
        assert tokens.flatten(1).std(1).min() > 0


def test_what_all_patches_carry_alike_has_no_presence() -> None:
    """An image of one colour, no positions.

    Any patch stands for any other, while gradient rollout's map sums to more than zero.
    """
    model = make(position="none", pool="mean")
    images = torch.full((1, 3, 16, 24), 0.3)
    assert explain(model, images, target=1, method="presence").tokens.abs().max() < 1e-6
    assert explain(model, images, target=1, method="gradient_rollout").tokens.sum() > 0.01


def test_first_order_of_taking_attention_away() -> None:
    """Reference: finite differences of the score in one patch's presence, 1 against 0.999."""
    model, images = make(), pictures(1)
    tokens = explain(model, images, target=0, method="presence").tokens.flatten()
    twin = copy.deepcopy(model).double()
    whole = twin(images.double())[0, 0].item()
    place = int(tokens.abs().argmax())
    m = torch.ones(1, 24, dtype=torch.float64)
    m[0, place] = 0.999
    with Masked(m, 1):
        less = twin(images.double())[0, 0].item()
    assert tokens[place].item() == pytest.approx((whole - less) / 0.001, rel=0.01)


def test_auto_takes_presence_and_walks_where_options_ask_for_it() -> None:
    """The choice by model and options; up to 64 patches, which can be taken away, are fitted."""
    model, images = make(), pictures(1)
    assert explain(model, images).method == "surrogate"
    fine = create_model("vit_nano", num_classes=2, image_size=(18, 16), seed=0)
    assert explain(fine, torch.rand(1, 1, 18, 16)).method == "presence"
    assert explain(*make_foreign("vit")).method == "presence"
    assert explain(model, images, discard=0.5).method == "gradient_rollout"
    assert explain(model, images, head_fusion="max").method == "gradient_rollout"
    assert explain(model, images, patch=(0, 0)).method == "gradient_rollout"
    segmenter, scenes = make_foreign("segformer segmenter")
    assert explain(segmenter, scenes, target=1).method == "gradient_rollout"
    resnet = create_model("resnet18", num_classes=3, image_size=32, seed=0)
    assert explain(resnet, torch.randn(1, 3, 32, 32)).method == "gradient_input"
