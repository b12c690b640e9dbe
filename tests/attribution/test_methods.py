"""Each method against its definition, written once more without the code under test.

Dense matrices, hooks, plain loops, Captum.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.attribution import oracle
from tests.attribution.test_explain import Convolutional, eager, make, pictures
from torch import Tensor, nn

from tesela.attribution.capture.call import undisturbed
from tesela.attribution.capture.capture import capture
from tesela.attribution.explain import explain
from tesela.attribution.methods.integrated_gradients import attributions
from tesela.attribution.methods.rise import halves
from tesela.attribution.methods.rollout import RolloutOptions
from tesela.attribution.methods.table import AUTO_METHOD, BEST, methods
from tesela.attribution.question import make_question
from tesela.attribution.request import Request, Settings
from tesela.core.errors import ConfigError, UsageError
from tesela.models.factory import create_model


def test_every_method_has_an_answer() -> None:
    """Every row's function can be imported; auto's choice is one of them."""
    assert all(callable(method.load()) for method in methods().values())
    assert BEST in methods()
    assert AUTO_METHOD not in methods()


# ---- relevance


@pytest.mark.parametrize("fields", [{}, {"distillation": True, "registers": 2}, {"pool": "mean"}])
def test_relevance_equals_the_dense_product(fields: dict[str, Any]) -> None:
    """Reference: v0 (prod(I + Abar) - I) in float64 with eager gradients, brought to sum 1."""
    model, image = make(**fields), pictures()
    found = explain(model, image, target=3, method="relevance")
    maps, slopes, _ = eager(model, image, 3)
    prefix = 0 if fields.get("pool") else 1 + 3 * bool(fields)
    start = np.zeros(24 + prefix)
    start[: 2 if fields.get("distillation") else 1] = 0.5 if fields.get("distillation") else 1.0
    start = np.full(24, 1 / 24) if fields.get("pool") else start
    layers = [np.eye(len(start)) + oracle.gradient_layer(*pair)[0] for pair in zip(maps, slopes, strict=True)]
    moved = start @ oracle.product(layers) - start
    moved /= moved.sum()
    np.testing.assert_allclose(found.tokens[0, 0].numpy().ravel(), moved[prefix:], atol=1e-5)
    np.testing.assert_allclose(found.prefix_mass[0, 0].item(), moved[:prefix].sum(), atol=1e-5)


def test_defect_relevance_has_no_identity_left() -> None:
    """A head of zeros moves nothing: the map and the prefix's share are zero, not the start vector."""
    model = create_model(
        "vit_ti16", num_classes=5, image_size=(16, 24), width=24, depth=2, heads=3, patch_size=(4, 4), seed=0
    )
    found = explain(model, pictures(), target=1, method="relevance")
    assert found.tokens.abs().sum() == found.prefix_mass.abs().sum() == 0


# ---- attention


@pytest.mark.parametrize(("layer", "head"), [(None, None), (0, None), (1, 2), (-2, 0)])
def test_attention_is_the_class_tokens_row(layer: int | None, head: int | None) -> None:
    """Reference: the eager map's first row, of one head or their mean."""
    model, image = make(), pictures()
    maps, _, _ = eager(model, image, 0)
    row = maps[-1 if layer is None else layer][:, 0]
    expected = row.mean(0) if head is None else row[head]
    found = explain(model, image, method="attention", layer=layer, head=head)
    np.testing.assert_allclose(found.tokens[0, 0].numpy().ravel(), expected[1:], atol=1e-6)
    np.testing.assert_allclose(found.prefix_mass.item(), expected[0], atol=1e-6)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [({"layer": 3}, "no layer 3"), ({"head": 3}, "no head 3"), ({"layer": -4}, "no layer -4")],
)
def test_a_layer_or_head_that_is_not_there(keywords: dict[str, Any], message: str) -> None:
    """Says what there is."""
    with pytest.raises(UsageError, match=message):
        explain(make(), pictures(), method="attention", **keywords)


# ---- gradcam


@pytest.mark.parametrize("layer", [None, 1])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_gradcam_equals_its_formula(norm: str, layer: int | None) -> None:
    """Reference: a hook on the tokens that enter the attention, autograd, and the paper's two equations in
    float64."""
    model, image = make(norm=norm), pictures()
    kept: list[Tensor] = []
    block: Any = model.get_submodule(f"backbone.blocks.{2 if layer is None else layer}")
    handle = block.attention.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    logits = model.double()(image.double())
    model_score = logits[0, 3]
    (slope,) = torch.autograd.grad(model_score, kept[0])
    handle.remove()
    cam = (kept[0][0, 1:] @ slope[0, 1:].mean(0)).relu().detach()
    model.float()
    found = explain(model, image, target=3, method="gradcam", layer=layer)
    torch.testing.assert_close(found.tokens.flatten().double(), cam / cam.sum(), rtol=0, atol=1e-5)


# ---- gradients by the pixels


def case(model: nn.Module, images: Tensor, target: int, **settings: Any) -> Request:
    """As ``explain`` puts it together."""
    found = capture(model, images, gradient=False)
    question = make_question(target, found.logits, None)
    return Request(
        model=model, capture=found, question=question, options=RolloutOptions(), settings=Settings(**settings)
    )


def test_integrated_gradients_are_complete() -> None:
    """The tokens' sum is the score's difference between the image and the grey one (the paper's axiom),
    4e-3 of it at 64 points."""
    model, images = make(), pictures(2) * 0.3
    found = explain(model, images, target=[1, 4], method="integrated_gradients", samples=64)
    with torch.no_grad():
        difference = (model(images) - model(torch.zeros_like(images)))[:, [1, 4]]
    torch.testing.assert_close(found.tokens.sum((2, 3)), difference, rtol=4e-3, atol=1e-3)


def test_integrated_gradients_equal_captum() -> None:
    """Reference: captum.attr.IntegratedGradients, Gauss-Legendre with as many points, per pixel."""
    captum = importlib.import_module("captum.attr")
    model, images = make(), pictures(2)
    theirs = (
        captum.IntegratedGradients(model)
        .attribute(images, target=2, n_steps=12, method="gausslegendre")
        .sum(1)
    )
    with undisturbed(model):
        ours = attributions(case(model, images, 2, samples=12))[:, 0]
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-5)


def test_smoothgrad_equals_the_plain_loop() -> None:
    """Reference: a loop over the same noise with autograd.

    Pixels in absolute value, averaged per patch, sum 1.
    """
    model, images = make(), pictures(2)
    generator = torch.Generator().manual_seed(7)
    total = torch.zeros_like(images)
    for _ in range(5):
        noise = torch.randn(3, 16, 24, generator=generator)
        for image in range(2):
            span = images[image].max() - images[image].min()
            leaf = (images[image] + noise * span * 0.15)[None].requires_grad_()
            total[image] += torch.autograd.grad(model(leaf)[0, 2], leaf)[0][0] / 5
    expected = total.abs().sum(1).reshape(2, 4, 4, 6, 4).mean((2, 4))
    found = explain(model, images, target=2, method="smoothgrad", samples=5, seed=7)
    torch.testing.assert_close(
        found.tokens[:, 0], expected / expected.sum((1, 2), keepdim=True), rtol=1e-4, atol=1e-6
    )


def test_captums_saliency_is_smoothgrad_without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reference: captum.attr.Saliency."""
    captum = importlib.import_module("captum.attr")
    monkeypatch.setattr(sys.modules["tesela.attribution.methods.smoothgrad"], "NOISE", 0.0)
    model, images = make(), pictures(2)
    theirs = captum.Saliency(model).attribute(images.clone().requires_grad_(), target=1).sum(1)
    expected = F.avg_pool2d(theirs, 4)
    found = explain(model, images, target=1, method="smoothgrad", samples=2)
    torch.testing.assert_close(
        found.tokens[:, 0], expected / expected.sum((1, 2), keepdim=True), rtol=1e-4, atol=1e-6
    )


# ---- taking patches away


def without(model: Any, image: Tensor, kept: list[int]) -> Tensor:
    """Logits from the tokens of some patches.

    Embedded with their positions, cut out by hand, then the rest of the network.
    """
    tokens = model.backbone.positions(
        model.backbone.prefix.with_special(model.backbone.patches(image)), (4, 6)
    )
    tokens = torch.cat([tokens[:, :1], tokens[:, [1 + index for index in kept]]], dim=1)
    for block in model.backbone.blocks:
        tokens = block(tokens)
    logits: Tensor = model.head(model.backbone.norm(tokens)[:, 0]).detach()
    return logits


def test_occlusion_equals_leaving_tokens_out_by_hand() -> None:
    """Reference: the network's parts run without one patch's token, the others' positions kept."""
    model, image = make(), pictures()
    whole = model(image)[0].detach()
    found = explain(model, image, target=[0, 3], method="occlusion")
    for patch in (0, 7, 23):
        fall = whole - without(model, image, [one for one in range(24) if one != patch])[0]
        torch.testing.assert_close(
            found.tokens[0, :, patch // 6, patch % 6], fall[[0, 3]], rtol=1e-4, atol=1e-5
        )


def test_occlusion_without_tokens_paints_over() -> None:
    """A convolutional network: cells in the image's mean colour; reference: by hand, for one cell."""
    model, image = Convolutional(), pictures()
    found = explain(model, image, target=1, method="occlusion")
    assert found.tokens.shape == (1, 1, 14, 14)
    painted = image.clone()
    rows = [row for row in range(16) if int((row + 0.5) * 14 / 16) == 5]
    columns = [column for column in range(24) if int((column + 0.5) * 14 / 24) == 9]
    for row in rows:
        painted[0, :, row, columns] = image.mean((2, 3)).T
    torch.testing.assert_close(
        found.tokens[0, 0, 5, 9], (model(image) - model(painted))[0, 1].detach(), rtol=1e-4, atol=1e-6
    )


def test_rise_equals_the_plain_loop() -> None:
    """Reference: masks one by one through the network's parts; means of the probability in NumPy."""
    model, image = make(), pictures()
    masks = halves(20, 24, 3)
    assert masks.shape == (20, 12)
    probabilities = np.array([without(model, image, mask.tolist()).softmax(1)[0, 2].item() for mask in masks])
    expected = np.zeros(24)
    for patch in range(24):
        holds = np.array([patch in mask for mask in masks.tolist()])
        expected[patch] = probabilities[holds].mean() - probabilities.mean() if holds.any() else 0.0
    found = explain(model, image, target=2, method="rise", samples=20, seed=3)
    np.testing.assert_allclose(found.tokens[0, 0].numpy().ravel(), expected, atol=1e-6)


@pytest.mark.parametrize("method", ["smoothgrad", "rise"])
def test_seeds_repeat_and_differ(method: str) -> None:
    """The same seed gives the same bits; the caller's random state is not used.

    An image's map does not depend on its batch.
    """
    model, images = make(), pictures(2)
    first = explain(model, images, target=1, method=method, samples=8, seed=1).tokens
    torch.manual_seed(99)
    assert torch.equal(first, explain(model, images, target=1, method=method, samples=8, seed=1).tokens)
    torch.testing.assert_close(
        first[1:],
        explain(model, images[1], target=1, method=method, samples=8, seed=1).tokens,
        rtol=0,
        atol=1e-6,
    )
    assert not torch.equal(first, explain(model, images, target=1, method=method, samples=8, seed=2).tokens)


# ---- questions


@pytest.mark.parametrize(
    "method", ["gradient_rollout", "relevance", "gradcam", "gradient_input", "occlusion"]
)
def test_contrast_is_the_difference_of_two_logits(method: str) -> None:
    """Reference: a model with one more class whose logit is the difference itself."""
    model, images = make(), pictures(2)
    found = explain(model, images, target=1, contrast=4, method=method)
    logits = model(images).detach()
    torch.testing.assert_close(found.scores[:, 0], logits[:, 1] - logits[:, 4])
    torch.testing.assert_close(found.probabilities[:, 0], logits.softmax(1)[:, 1])
    head: Any = model.get_submodule("head.linear")
    with torch.no_grad():
        head.weight = nn.Parameter(torch.cat([head.weight, head.weight[1:2] - head.weight[4:5]]))
        head.bias = nn.Parameter(torch.cat([head.bias, head.bias[1:2] - head.bias[4:5]]))
    torch.testing.assert_close(
        found.tokens, explain(model, images, target=5, method=method).tokens, rtol=1e-4, atol=1e-5
    )


def test_a_class_against_itself_is_refused() -> None:
    """Says so, also when the predicted class happens to be the contrast."""
    model, images = make(), pictures()
    with pytest.raises(UsageError, match="from itself"):
        explain(model, images, target=2, contrast=2)
    with pytest.raises(UsageError, match="from itself"):
        explain(model, images, contrast=int(model(images).argmax()))
    with pytest.raises(ConfigError, match="samples"):
        explain(model, images, method="rise", samples=0)


@pytest.mark.parametrize("method", sorted(methods()))
def test_32_images_and_5_classes_equal_160_single_calls(method: str) -> None:
    """<= 1e-6 for shares of a map; scores' differences, which are no shares, relative to their largest."""
    images = pictures(32) if methods()[method].passes == 0 else pictures(3)
    model = make(depth=2)
    together = explain(model, images, target=[0, 1, 2, 3, 4], method=method, samples=4).tokens
    size = max(1.0, float(together.abs().max()))
    for image in range(len(images)):
        for target in range(5):
            alone = explain(model, images[image], target=target, method=method, samples=4).tokens
            assert (together[image, target] - alone[0, 0]).abs().max() <= 1e-6 * size


# ---- our own variants

VARIANTS: list[dict[str, Any]] = [
    {"attention": "axial", "depth": 4},
    {"attention": "local", "window": 2, "depth": 4},
    {"attention": "local", "window": 3, "pool": "mean"},
    {"attention": "axial", "position": "relative", "depth": 4, "registers": 2},
    {"position": "relative"},
    {"position": "rotary"},
    {"pool": "class_mean", "registers": 2},
]


@pytest.mark.parametrize("fields", VARIANTS)
@pytest.mark.parametrize("gradient", [True, False])
def test_variants_of_attention_are_captured_whole(fields: dict[str, Any], gradient: bool) -> None:
    """Recomputed rows times v are the layer's own output, which another code path made (cells, relative
    and rotary positions)."""
    model, images = make(**{**fields, "width": 24}), pictures(2)
    with undisturbed(model):
        found = capture(model, images, gradient=True)
        light = capture(model, images, gradient=gradient)
    from tesela.attribution.capture.rows import attention_rows

    for layer, other in zip(found.layers, light.layers, strict=True):
        whole = attention_rows(other)(0, found.tokens)
        assert (whole @ layer.v - layer.out).abs().max() <= 1e-5 * layer.out.abs().max()
    total = (
        explain(model, images, method="rollout").tokens.sum((2, 3))
        + explain(model, images, method="rollout").prefix_mass
    )
    torch.testing.assert_close(total, torch.ones(2, 1))


def test_axial_attention_reaches_a_cross_in_two_blocks() -> None:
    """By construction: from one patch, two blocks of rows and columns reach all.

    One layer's attention only its own line.
    """
    model, image = make(attention="axial", depth=2, pool="mean"), pictures()
    last = explain(model, image, method="attention", patch=(1, 2)).tokens[0, 0]
    assert (last > 0).nonzero()[:, 1].unique().tolist() == [2]
    first = explain(model, image, method="attention", patch=(1, 2), layer=0).tokens[0, 0]
    assert (first > 0).nonzero()[:, 0].unique().tolist() == [1]
    assert (explain(model, image, method="rollout", patch=(1, 2)).tokens > 0).all()


def test_class_and_mean_pooling_start_half_and_half() -> None:
    """Reference: the oracle started with half at the class token and half over the patches."""
    model, image = make(pool="class_mean", registers=1), pictures()
    maps, _, _ = eager(model, image, 0)
    start = np.r_[0.5, 0.0, np.full(24, 0.5 / 24)]
    expected = oracle.rollout(maps, start, how="mean", share=0.0, residual=0.5, prefix=2)
    found = explain(model, image, method="rollout")
    np.testing.assert_allclose(found.tokens[0, 0].numpy().ravel(), expected[2:], atol=1e-6)


def test_the_short_pass_equals_the_traced_one() -> None:
    """Without a trace the last block computes the class token alone.

    Logits and map are the same, and q has one row there.
    """
    model, images = make(), pictures(2)
    with undisturbed(model):
        short, whole = (capture(model, images, gradient=False, whole=flag) for flag in (False, True))
    assert [layer.q.shape[2] for layer in short.layers] == [25, 25, 1]
    torch.testing.assert_close(short.logits, whole.logits)
    torch.testing.assert_close(short.start(), whole.start())
