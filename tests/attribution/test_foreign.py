"""Attention of other libraries' models.

A and dy/dA against their own eager attention with autograd, how heads read, and no side effects.

The reference is the same model in float64 with ``attn_implementation="eager"``, whose maps are differentiated
by autograd.
"""

from __future__ import annotations

import copy
import os
from typing import Any, cast

import pytest
import torch
from tests.attribution.foreign_models import FAMILIES, Plain, Written, make, outputs
from tests.attribution.test_capture import Failing, relative, same, state
from torch import Tensor, nn

from tesela.attribution.capture.call import undisturbed
from tesela.attribution.capture.capture import capture
from tesela.attribution.capture.rows import attention_rows
from tesela.attribution.explain import explain
from tesela.attribution.methods.gradient_rollout import attention_gradient, class_gradients
from tesela.attribution.methods.table import methods
from tesela.core.errors import UsageError
from tesela.models.factory import create_model

RUNS = int(os.environ.get("TESELA_FAILURE_RUNS", "500"))


def score(logits: Tensor, target: int) -> Tensor:
    """One number for all images: a class's logit, averaged over pixels where there are any."""
    chosen = logits[:, target]
    return chosen.reshape(len(chosen), -1).mean(1).sum()


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("name", FAMILIES)
def test_attention_and_its_gradient_equal_eager_autograd(name: str, kernel: str) -> None:
    """<= 1e-5 relative for A and dy/dA, every layer, two classes.

    The model's own choice of kernel comes back.
    """
    model, images = make(name, kernel=kernel)
    twin = copy.deepcopy(model).double()
    twin.set_attn_implementation("eager")
    with undisturbed(model):
        found = capture(model, images, gradient=True)
    assert model.config._attn_implementation == kernel
    wanted = torch.stack(
        [torch.stack([score(one[None], target) for target in (1, 4)]) for one in found.logits]
    )
    slopes_of = dict(zip((1, 4), class_gradients(wanted, [layer.out for layer in found.layers]), strict=True))
    for target, gradients in slopes_of.items():
        theirs = twin(images.double(), output_attentions=True)
        slopes = torch.autograd.grad(score(outputs(theirs), target), theirs.attentions)
        assert len(found.layers) == len(theirs.attentions) >= 3
        assert relative(found.logits.detach(), outputs(theirs).detach()) <= 1e-5
        for layer, gradient, expected, slope in zip(
            found.layers, gradients, theirs.attentions, slopes, strict=True
        ):
            rows = expected.shape[2]
            assert relative(attention_rows(layer)(0, rows), expected.detach()) <= 1e-5
            assert relative(attention_gradient(layer, gradient)(0, rows), slope) <= 1e-5


EXPECTED: dict[str, tuple[tuple[int, int], int, list[float]]] = {
    "vit": ((4, 6), 1, [1.0] + [0.0] * 24),
    "deit with teacher": ((4, 6), 2, [0.5, 0.5] + [0.0] * 24),
    "dinov2 with registers": ((4, 6), 5, [0.5, 0, 0, 0, 0] + [0.5 / 24] * 24),
    "siglip, mean pooling": ((6, 6), 0, [1 / 36] * 36),
    "segformer classifier": ((16, 24), 0, [1 / 6] * 6),
}


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("name", EXPECTED)
def test_grid_prefix_and_reading_are_found_without_configuration(name: str, gradient: bool) -> None:
    """Reference: each model's published head. The graph behind the last layer is enough to see it."""
    model, images = make(name)
    grid, prefix, start = EXPECTED[name]
    with undisturbed(model):
        found = capture(model, images, gradient=gradient)
    assert (found.grid, found.prefix) == (grid, prefix)
    torch.testing.assert_close(found.start()[0, 0], torch.tensor(start, dtype=torch.float64))


def test_attention_pooling_is_found_and_read() -> None:
    """Reference: the pooling module's own weights, averaged over heads, from the tokens that it gets."""
    model, images = make("siglip, attention pooling")
    tokens = model(images).last_hidden_state
    probe = model.head.probe.repeat(2, 1, 1)
    weights = model.head.attention(probe, tokens, tokens)[1][:, 0].detach()
    for gradient in (True, False):
        with undisturbed(model):
            found = capture(model, images, gradient=gradient)
        assert found.pool is not None
        assert found.pool.name == "head.attention"
        torch.testing.assert_close(found.start()[:, 0].float(), weights, rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", ["matmul", "einsum", "bmm", "module", "module with weights"])
def test_attention_written_by_hand_is_captured(how: str) -> None:
    """Reference: q, k, v recomputed from the tokens that enter, in float64.

    Dy/dA by finite differences of the output.
    """
    model, images = Plain(how).eval(), torch.randn(2, 3, 8, 12)
    with undisturbed(model):
        found = capture(model, images, gradient=True)
    names = [layer.name for layer in found.layers]
    assert names == (["first.module", "last.module"] if how.startswith("module") else ["first", "last"])
    assert (found.grid, found.prefix) == ((2, 3), 1)
    torch.testing.assert_close(found.start()[0, 0], torch.eye(7, dtype=torch.float64)[0])
    for layer, module in zip(found.layers, (model.first, model.last), strict=True):
        entered = found.entering[layer.name].detach().double()
        projection: Any = module.qkv if module.module is None else module.module
        weight, bias = (
            (projection.weight, projection.bias)
            if module.module is None
            else (projection.in_proj_weight, projection.in_proj_bias)
        )
        q, k, _ = (
            (entered @ weight.double().T + bias.double()).unflatten(2, (3, 3, 4)).transpose(1, 3).unbind(2)
        )
        assert (
            relative(attention_rows(layer)(0, 7), (q @ k.transpose(-1, -2) / 2).softmax(-1).detach()) <= 1e-5
        )
    tokens = [
        explain(model, images, target=2, method=method).tokens for method in ("rollout", "gradient_rollout")
    ]
    assert all(torch.isfinite(one).all() for one in tokens)


def test_all_ways_of_writing_give_the_same_map() -> None:
    """The same weights through matmul, einsum and bmm: <= 1e-6."""
    images = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(5))
    maps = [explain(Plain(how), images, target=[0, 3]).tokens for how in ("matmul", "einsum", "bmm")]
    for other in maps[1:]:
        torch.testing.assert_close(other, maps[0], rtol=0, atol=1e-6)


class Backwards(Plain):
    """Runs ``last`` before ``first``."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self.first, self.last = self.last, self.first
        try:
            return super().forward(images)
        finally:
            self.first, self.last = self.last, self.first


def test_layers_are_ordered_by_structure_not_by_time() -> None:
    """Swapped while it runs: the records still come as the model holds them.

    Layers run twice are numbered.
    """
    with undisturbed(model := Backwards("matmul").eval()):
        found = capture(model, torch.randn(1, 3, 8, 12), gradient=True)
    assert [layer.name for layer in found.layers] == ["first", "last"]
    shared = Plain("matmul").eval()
    shared.last = shared.first
    with undisturbed(shared):
        found = capture(shared, torch.randn(1, 3, 8, 12), gradient=True)
    assert [layer.name for layer in found.layers] == ["first", "first#2"]


@pytest.mark.parametrize("name", ["vit", "segformer segmenter"])
def test_nothing_is_disturbed_in_many_runs_with_failures(name: str) -> None:
    """500 runs over all methods that look inside; each fails in another module's call, or in none.

    The state is compared every time.
    """
    model, images = make(name, kernel="eager")
    counter = [0]
    layers = [
        module for module in model.modules() if hasattr(module, "layernorm_before") or hasattr(module, "mlp")
    ]
    for layer in layers:
        layer.mlp = Failing(layer.mlp, counter)
    model.train()
    layers[0].eval()
    score(outputs(model(images)), 0).backward()
    next(iter(model.parameters())).requires_grad_(False)
    model.register_forward_hook(lambda module, args, result: result)
    before, failures = state(model), 0
    methods = [
        "rollout",
        "presence",
        "gradient_rollout",
        "relevance",
        "gradcam",
        "attention",
        "gradient_input",
    ]
    for run in range(RUNS // 2):
        counter[0] = run % (len(layers) + 2)
        try:
            explain(model, images[:1], target=1, method=methods[run % len(methods)])
        except RuntimeError as error:
            assert str(error) == "injected"
            failures += 1
        assert same(before, state(model))
        assert model.config._attn_implementation == "eager"
        assert not torch.overrides._get_current_function_mode_stack()
    assert failures >= RUNS // 2 * len(layers) // (len(layers) + 2) - len(layers)


def test_a_compiled_model_is_unwrapped() -> None:
    """torch.compile around the model or inside it: the map is that of the plain model."""
    images = torch.randn(1, 3, 8, 12)
    model = Plain("matmul").eval()
    expected = explain(model, images, target=1).tokens
    torch.testing.assert_close(
        explain(cast("nn.Module", torch.compile(model, backend="eager")), images, target=1).tokens, expected
    )
    model.first.compile(backend="eager")
    torch.testing.assert_close(explain(model, images, target=1).tokens, expected)
    with pytest.raises(UsageError, match="TorchScript"):
        explain(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), images)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["gradient_rollout", "rollout", "gradcam", "integrated_gradients"])
def test_half_precision_weights_are_computed_in_float32(kind: torch.dtype, method: str) -> None:
    """Reference: the same rounded weights as a float32 model, <= 1e-6; the half ones stay what they were."""
    ours = create_model(
        "vit_ti16", num_classes=5, image_size=(8, 12), width=24, depth=2, heads=3, patch_size=(4, 4), seed=0
    )
    nn.init.normal_(ours.get_parameter("head.linear.weight"))
    for model in (Plain("module"), ours):
        model = model.to(kind)
        images = torch.randn(1, 3, 8, 12)
        expected = explain(copy.deepcopy(model).float(), images, target=[1, 2], method=method)
        found = explain(model, images, target=[1, 2], method=method)
        torch.testing.assert_close(found.tokens, expected.tokens, rtol=0, atol=1e-6)
        assert {parameter.dtype for parameter in model.parameters()} == {kind}


class Windows(nn.Module):
    """Attention within windows beside the images, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, 12, 4, stride=4)
        self.inside = Written("matmul")
        self.head = nn.Linear(12, 5)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.cut(images).flatten(2).transpose(1, 2).reshape(-1, 3, 12)
        logits: Tensor = self.head(self.inside(tokens).view(len(images), -1, 12).mean(1))
        return logits


def test_attention_that_cannot_be_placed_says_why_and_what_works() -> None:
    """Windows of an unknown model: attention methods are refused with the reason, the others work."""
    model, images = Windows(), torch.randn(2, 3, 8, 12)
    with pytest.raises(UsageError, match="within windows") as refused:
        explain(model, images, method="rollout")
    assert "gradient_input" in refused.value.hint
    assert explain(model, images).method == "gradient_input"


@pytest.mark.parametrize("name", ["vit", "segformer classifier", "segformer segmenter"])
def test_every_method_gives_finite_maps(name: str) -> None:
    """All methods on foreign models: shapes, finite values, shares with sum 1 where they are shares."""
    model, images = make(name)
    for method in methods():
        found = explain(model, images, target=[0, 3], method=method, samples=4)
        assert found.map.shape == (2, 2, *images.shape[2:])
        assert torch.isfinite(found.tokens).all()
        if method not in ("presence", "surrogate", "integrated_gradients", "occlusion", "rise"):
            total = found.tokens.sum((2, 3)) + found.prefix_mass
            empty = (total == 0) & (method == "gradcam")  # nothing spoke for the class
            torch.testing.assert_close(total + empty, torch.ones(2, 2), rtol=0, atol=1e-5)


def test_labels_of_transformers_are_known() -> None:
    """id2label of the configuration names the classes."""
    model, images = make("vit")
    assert explain(model, images, target="LABEL_3", method="rollout").targets.tolist() == [[3], [3]]
