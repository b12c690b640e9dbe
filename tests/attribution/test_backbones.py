"""Attention and the default map of backbones that were read: DINOv3, SigLIP, CLIP, MAE, BEiT and others.

The reference is transformers' own model in float64 with eager attention, differentiated by autograd: by
each map of attention, and by the presence of each patch in all of them.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tests.attribution.eager import WatchedSoftmax, eager_twin
from tests.attribution.test_capture import relative
from tests.parity.backbone_models import BACKBONE_MODELS, SHAPE, make, pooled, saved
from tests.parity.eva_reference import EVAS, eva_folder, eva_logits
from torch import Tensor, nn

from tesela.attribution.capture.call import call, undisturbed
from tesela.attribution.capture.capture import capture
from tesela.attribution.capture.rows import attention_rows
from tesela.attribution.explain import explain
from tesela.attribution.methods.gradient_rollout import attention_gradient, class_gradients
from tesela.checkpoints.open import open_model

TARGETS = (1, 4)
NAMES = (
    *("dinov3", "dinov3-gated", "siglip", "siglip-without-head", "siglip-classifier", "clip"),
    *(
        "clip-classifier",
        "mae",
        "msn",
        "ijepa",
        "beit-classifier",
        "beit-class-token",
        "data2vec",
        "aimv2",
        "pixio",
    ),
)


class Pair(NamedTuple):
    """A model of transformers and ours of the same weights, with a classifier in common."""

    theirs: nn.Module
    ours: Any
    weight: Tensor | None
    images: Tensor

    def logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """Of a model of transformers."""
        found: Tensor = pooled(type(self.theirs).__name__, model, images)
        return found if self.weight is None else found @ self.weight.to(found).mT


def pair(name: str, folder: Path, size: tuple[int, int], **changes: Any) -> Pair:
    """A backbone of ``BACKBONE_MODELS``, read; where it has no classifier, both get the same random one."""
    if "vision_config" in BACKBONE_MODELS[name][2]:
        changes = {"vision_config": {**SHAPE, **changes}}
    theirs: Any = saved(name, folder, attn_implementation="eager", **changes)
    ours: Any
    ours, _ = open_model(folder)
    weight = None
    if "ForImageClassification" not in BACKBONE_MODELS[name][0]:
        ours.reset_head(5)
        weight = torch.randn(5, ours.config.pooled_width, generator=torch.Generator().manual_seed(3)) * 0.3
        with torch.no_grad():
            ours.head.linear.weight.copy_(weight)
    return Pair(theirs, ours, weight, torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(4)))


@pytest.mark.parametrize("name", NAMES)
def test_attention_and_its_gradient_equal_eager_autograd(name: str, tmp_path: Path) -> None:
    """<= 1e-5 relative for A and dy/dA in every block, two classes, on an image that is not square."""
    models = pair(name, tmp_path, (24, 24) if name == "aimv2" else (24, 40))
    ours = copy.deepcopy(models.ours).double()
    with undisturbed(ours):
        found = capture(ours, models.images.double(), gradient=True)
    patches = found.grid[0] * found.grid[1]
    with WatchedSoftmax(torch.ones(2, patches, dtype=torch.float64)) as watched:
        wanted = models.logits(eager_twin(models.theirs), models.images.double())
    assert relative(found.logits.detach(), wanted.detach()) <= 1e-5
    chosen = found.logits[:, list(TARGETS)]
    records = [*found.layers, *([found.pool] if found.pool is not None else [])]
    maps = watched.maps[: len(records)]  # SigLIP's classifier computes a pool that it does not read
    assert len(maps) == len(records) >= 2
    for target, gradients in zip(TARGETS, class_gradients(chosen, [one.out for one in records]), strict=True):
        slopes = torch.autograd.grad(wanted[:, target].sum(), maps, retain_graph=True)
        for record, gradient, expected, slope in zip(records, gradients, maps, slopes, strict=True):
            rows = expected.shape[2]
            assert relative(attention_rows(record)(0, rows), expected.detach()) <= 1e-5
            assert relative(attention_gradient(record, gradient)(0, rows), slope) <= 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_the_default_map_is_the_derivative_by_presence(name: str, tmp_path: Path) -> None:
    """<= 1e-5 of the largest value, two images, two classes, of as many patches as real images have."""
    models = pair(name, tmp_path, (36, 36), image_size=36, patch_size=4)
    ours, images = copy.deepcopy(models.ours).double(), models.images.double()
    found = explain(ours, images, target=list(TARGETS))
    assert found.method == "presence" and found.tokens.shape == (2, 2, 9, 9)
    m = torch.ones(2, 81, dtype=torch.float64, requires_grad=True)
    with WatchedSoftmax(m):
        logits = models.logits(eager_twin(models.theirs), images)
    for place, target in enumerate(TARGETS):
        (wanted,) = torch.autograd.grad(logits[:, target].sum(), m, retain_graph=True)
        assert relative(found.tokens[:, place].flatten(1), wanted) <= 1e-5
        alone = explain(models.ours, models.images, target=target, method="presence").tokens.flatten(1)
        assert relative(alone, wanted) <= 1e-4  # in float32


@pytest.mark.parametrize(
    "name", ["dinov3", "siglip", "clip", "clip-classifier", "msn-classifier", "beit-classifier", "aimv2"]
)
def test_models_of_transformers_are_explained_as_they_are(name: str) -> None:
    """Without being read: attention, dy/dA and the default map of their own objects, <= 1e-5."""
    changes: dict[str, Any] = {"image_size": 36, "patch_size": 4}
    if "vision_config" in BACKBONE_MODELS[name][2]:
        changes = {"vision_config": {**SHAPE, **changes}}
    model = make(name, **changes)
    images = torch.randn(2, 3, 36, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    m = torch.ones(2, 81, dtype=torch.float64, requires_grad=True)
    with WatchedSoftmax(m) as watched:
        logits = call(eager_twin(model), images)
    model = model.double()
    with undisturbed(model):
        found = capture(model, images, gradient=True)
    records = [*found.layers, *([found.pool] if found.pool is not None else [])]
    (gradients,) = class_gradients(found.logits[:, TARGETS[:1]], [one.out for one in records])
    slopes = torch.autograd.grad(logits[:, TARGETS[0]].sum(), watched.maps, retain_graph=True)
    for record, gradient, expected, slope in zip(records, gradients, watched.maps, slopes, strict=True):
        assert relative(attention_rows(record)(0, expected.shape[2]), expected.detach()) <= 1e-5
        assert relative(attention_gradient(record, gradient)(0, expected.shape[2]), slope) <= 1e-5
    tokens = explain(model, images, target=TARGETS[0]).tokens
    (wanted,) = torch.autograd.grad(logits[:, TARGETS[0]].sum(), m)
    assert relative(tokens.flatten(1), wanted) <= 1e-5


@pytest.mark.parametrize("name", EVAS)
def test_rotary_models_of_timm_too(name: str, tmp_path: Path) -> None:
    """EVA-02 and PE: the reference is timm's arithmetic written out, in float64, with autograd."""
    tensors = eva_folder(name, tmp_path)
    ours: Any
    ours, _ = open_model(tmp_path)
    ours = ours.double()
    images = torch.randn(2, 3, 36, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    m = torch.ones(2, 81, dtype=torch.float64, requires_grad=True)
    with WatchedSoftmax(m) as watched:
        logits = eva_logits(name, tensors, images)
    with undisturbed(ours):
        found = capture(ours, images, gradient=True)
    assert relative(found.logits.detach(), logits.detach()) <= 1e-5
    records = [*found.layers, *([found.pool] if found.pool is not None else [])]
    (gradients,) = class_gradients(found.logits[:, TARGETS[:1]], [one.out for one in records])
    slopes = torch.autograd.grad(logits[:, TARGETS[0]].sum(), watched.maps, retain_graph=True)
    for record, gradient, expected, slope in zip(records, gradients, watched.maps, slopes, strict=True):
        assert relative(attention_rows(record)(0, expected.shape[2]), expected.detach()) <= 1e-5
        assert relative(attention_gradient(record, gradient)(0, expected.shape[2]), slope) <= 1e-5
    tokens = explain(ours, images, target=TARGETS[0]).tokens
    (wanted,) = torch.autograd.grad(logits[:, TARGETS[0]].sum(), m)
    assert relative(tokens.flatten(1), wanted) <= 1e-5
