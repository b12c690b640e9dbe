"""DeiT against transformers' (with teacher, weights copied) and against published parameter counts."""

from __future__ import annotations

import pytest
import torch
from transformers import DeiTConfig as TheirConfig
from transformers import DeiTForImageClassificationWithTeacher

from tesela.core.errors import ConfigError
from tesela.layers.trace import Trace
from tesela.models import catalog
from tesela.models.classifier import Classifier
from tesela.models.deit.network import DeiTHead
from tesela.models.factory import create_model
from tesela.models.tensors import load_weights

# The distilled models of arXiv 2012.12877 as published, 1000 classes.
COUNTS = {"deit_ti16": 5_910_800, "deit_s16": 22_436_432, "deit_b16": 87_338_192, "deit_b16_384": 87_630_032}

NAMES = {
    "deit.embeddings.patch_embeddings.projection": "patches",
    "deit.layernorm": "norm",
    "cls_classifier": "head.linear",
    "distillation_classifier": "head.distillation",
}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_published_counts(name: str, count: int) -> None:
    assert catalog.find_model(name).config.parameter_count(1000) == count


def pair(size: tuple[int, int]) -> tuple[Classifier, DeiTForImageClassificationWithTeacher]:
    """Our network and theirs with the same random weights."""
    theirs = TheirConfig(
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=96,
        image_size=size,
        patch_size=4,
        num_labels=7,
    )
    reference = DeiTForImageClassificationWithTeacher(theirs).eval()
    for index, parameter in enumerate(reference.parameters()):
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(index))
    own: dict[str, torch.Tensor] = {}
    state = reference.state_dict()
    for name, ours in NAMES.items():
        own |= {f"{ours}.{kind}": state[f"{name}.{kind}"] for kind in ("weight", "bias")}
    own["prefix.class_token"] = state["deit.embeddings.cls_token"]
    own["prefix.distillation_token"] = state["deit.embeddings.distillation_token"]
    own["positions.table"] = state["deit.embeddings.position_embeddings"]
    for index, layer in enumerate(
        reference.deit.layers if hasattr(reference.deit, "layers") else reference.deit.encoder.layer
    ):
        own |= block_tensors(layer.state_dict(), f"blocks.{index}")
    eps = theirs.layer_norm_eps
    model = create_model(
        "deit_ti16", num_classes=7, image_size=size, patch_size=4, width=24, depth=3, heads=3, norm_eps=eps
    )
    load_weights(model, own, source="transformers")
    return model.eval(), reference


def block_tensors(layer: dict[str, torch.Tensor], place: str) -> dict[str, torch.Tensor]:
    """A layer of theirs under our names, whatever the release calls them.

    Told apart by the end of the name.
    """

    def one(*ends: str) -> torch.Tensor:
        return next(tensor for end in ends for name, tensor in layer.items() if name.endswith(end))

    found = {}
    for kind in ("weight", "bias"):
        parts = [
            one(f".query.{kind}", f".q_proj.{kind}"),
            one(f".key.{kind}", f".k_proj.{kind}"),
            one(f".value.{kind}", f".v_proj.{kind}"),
        ]
        found[f"{place}.attention.qkv.{kind}"] = torch.cat(parts)
        found[f"{place}.attention.out.{kind}"] = one(f"attention.output.dense.{kind}", f".o_proj.{kind}")
        found[f"{place}.norm1.{kind}"] = one(f"layernorm_before.{kind}")
        found[f"{place}.norm2.{kind}"] = one(f"layernorm_after.{kind}")
        found[f"{place}.mlp.expand.{kind}"] = one(f"intermediate.dense.{kind}", f"fc1.{kind}")
        found[f"{place}.mlp.contract.{kind}"] = one(f".output.dense.{kind}", f"fc2.{kind}")
    return found


def both(model: Classifier, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the class token and of the distillation token."""
    assert isinstance(model.head, DeiTHead)
    return model.head.both(model.pooled(images))


@pytest.mark.parametrize("size", [(16, 16), (12, 20)])
def test_logits_are_those_of_transformers(size: tuple[int, int]) -> None:
    model, reference = pair(size)
    images = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, (by_class, by_teacher), wanted = model(images), both(model, images), reference(images)
    for own, theirs in (
        (found, wanted.logits),
        (by_class, wanted.cls_logits),
        (by_teacher, wanted.distillation_logits),
    ):
        torch.testing.assert_close(own, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))
    assert (by_class - by_teacher).abs().max() > 0.1


def test_the_trace_has_both_heads() -> None:
    model, _ = pair((8, 8))
    images, trace = torch.randn(2, 3, 8, 8), Trace()
    with torch.no_grad():
        logits, (by_class, by_teacher) = model(images, trace=trace), both(model, images)
    torch.testing.assert_close(trace.tensors["head.linear"], by_class)
    torch.testing.assert_close(trace.tensors["head.distillation"], by_teacher)
    torch.testing.assert_close(logits, (by_class + by_teacher) / 2)
    assert trace.tensors["pool"].shape == (2, 48)


def test_each_head_reads_its_own_token() -> None:
    model, _ = pair((8, 8))
    tokens = torch.randn(2, 6, 24)
    assert isinstance(model.head, DeiTHead)
    logits, heads = model.head.both(model.pool(tokens, 2)), (model.head.linear, model.head.distillation)
    for index, (found, head) in enumerate(zip(logits, heads, strict=True)):
        torch.testing.assert_close(found, tokens[:, index] @ head.weight.T + head.bias)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"distillation": False}, "class and a distillation token"),
        ({"pool": "mean"}, "class and a distillation token"),
        ({"head": "mlp"}, "heads of a DeiT are linear"),
    ],
)
def test_what_is_refused(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        catalog.resolve("deit_s16", overrides=overrides)
    assert "vit model" in caught.value.hint
