"""Captured attention and dy/dA against eager attention with autograd, on our own models.

And what capture leaves behind.

Eager: the same weights in float64, attention written out with a leaf of ones multiplied in, differentiated by
autograd.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tesela.attribution.capture.call import undisturbed
from tesela.attribution.capture.capture import capture
from tesela.attribution.capture.rows import attention_rows
from tesela.attribution.explain import explain
from tesela.attribution.methods.gradient_rollout import attention_gradient, class_gradients
from tesela.layers.attention.attention import Attention
from tesela.layers.trace import OFF, AttentionRecord, Trace
from tesela.models.factory import create_model

MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "distilled with registers": {"distillation": True, "registers": 2},
    "mean pooling": {"pool": "mean"},
    "attention pooling": {"pool": "attention"},
    "wide heads, post-norm": {"attention": "wide", "norm": "post"},
    "sequence pooling": {"pool": "sequence"},
}


def make(name: str = "plain", **overrides: Any) -> nn.Module:
    """A small ViT on 16 x 24 images with 4 x 6 patches and weights that are not zero."""
    fields = {"width": 24, "depth": 3, "heads": 3, "patch_size": (4, 4), **MODELS[name], **overrides}
    model = create_model("vit_ti16", num_classes=5, image_size=(16, 24), seed=0, **fields)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return model


def pictures(count: int = 2) -> Tensor:
    """Normal noise, 16 x 24."""
    return torch.randn(count, 3, 16, 24, generator=torch.Generator().manual_seed(2))


class Eager:
    """Attention as three visible steps on copies of a model.

    Keeps every map and lets autograd differentiate it.
    """

    def __init__(self) -> None:
        self.maps: list[Tensor] = []

    def install(self, model: nn.Module) -> None:
        """Replace the forward of each self-attention, in the order of the blocks."""
        for module in model.modules():
            if isinstance(module, Attention):
                module.forward = self._forward(module)  # type: ignore[method-assign]

    def _forward(self, module: Attention) -> Callable[..., Tensor]:
        def forward(tokens: Tensor, *, first: int | None = None, trace: Trace = OFF) -> Tensor:
            q, k, v = F.linear(tokens, module.qkv.weight, module.qkv.bias).chunk(3, dim=-1)
            q, k, v = (part.reshape(*part.shape[:2], module.heads, -1).transpose(1, 2) for part in (q, k, v))
            weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
            weights.retain_grad()
            self.maps.append(weights)
            return F.linear(
                (weights @ v).transpose(1, 2).flatten(2)[:, :first], module.out.weight, module.out.bias
            )

        return forward


def relative(ours: Tensor, expected: Tensor) -> float:
    """Largest difference as a share of the largest expected value."""
    return float((ours.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", MODELS)
def test_attention_and_its_gradient_equal_eager_autograd(name: str) -> None:
    """Reference: eager float64 attention with autograd.

    <= 1e-5 relative for A and dy/dA, every layer, two classes.
    """
    model, images = make(name).eval(), pictures()
    eager, twin = Eager(), copy.deepcopy(model).double()
    eager.install(twin)
    with undisturbed(model):
        found = capture(model, images, gradient=True)
    assert [layer.name for layer in found.layers] == [f"block{index:02d}.attention" for index in range(3)]
    targets = torch.tensor([[1, 4], [1, 4]])
    gradients = list(class_gradients(found.logits.gather(1, targets), [layer.out for layer in found.layers]))
    for column, target in enumerate((1, 4)):
        eager.maps.clear()
        logits = twin(images.double())
        assert relative(found.logits.detach(), logits.detach()) <= 1e-5
        logits[:, target].sum().backward()
        for index, expected in enumerate(eager.maps):
            tokens = expected.shape[-1]
            assert relative(attention_rows(found.layers[index])(0, tokens), expected.detach()) <= 1e-5
            assert expected.grad is not None
            assert (
                relative(
                    attention_gradient(found.layers[index], gradients[column][index])(0, tokens),
                    expected.grad,
                )
                <= 1e-5
            )


@pytest.mark.parametrize("kind", ["float", "bool"])
def test_rows_with_bias_equal_the_fused_kernel(kind: str) -> None:
    """Reference: torch's scaled_dot_product_attention with the same mask and v = identity gives A itself."""
    generator = torch.Generator().manual_seed(3)
    q, k = (torch.randn(2, 3, 7, 4, generator=generator) for _ in range(2))
    bias = (
        torch.randn(1, 3, 7, 7, generator=generator)
        if kind == "float"
        else torch.rand(2, 1, 7, 7, generator=generator) > 0.4
    )
    if kind == "bool":
        bias |= torch.eye(7, dtype=torch.bool)
    eye = torch.eye(7).expand(2, 3, 7, 7)
    expected = F.scaled_dot_product_attention(q, k, eye, attn_mask=bias, scale=0.3)
    record = AttentionRecord(name="x", q=q, k=k, v=k, out=q, scale=0.3, bias=bias)
    ours = torch.cat([attention_rows(record)(begin, begin + 1) for begin in range(7)], dim=2)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_a_row_that_may_see_nothing_is_all_zero() -> None:
    """softmax of nothing is not NaN here, so that the row counts as the unit row."""
    q = torch.ones(1, 1, 2, 4)
    bias = torch.tensor([[False, False], [True, False]])[None, None]
    record = AttentionRecord(name="x", q=q, k=q, v=q, out=q, scale=1.0, bias=bias)
    assert attention_rows(record)(0, 2).flatten().tolist() == [0.0, 0.0, 1.0, 0.0]


def test_defect_fused_attention_is_captured_and_stays_fused() -> None:
    """Forward hooks on an attention-dropout layer never fire with the fused kernel.

    The trace records every layer.
    """
    model, images = make(), pictures()
    calls = 0
    original = F.scaled_dot_product_attention

    def counting(*args: Any, **kwargs: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return original(*args, **kwargs)

    F.scaled_dot_product_attention = counting
    try:
        with undisturbed(model):
            found = capture(model, images, gradient=False)
    finally:
        F.scaled_dot_product_attention = original
    assert calls == len(found.layers) == 3


def test_layers_are_ordered_by_name_not_by_time() -> None:
    """A model that computes block10 before block9 and block2 is explained in the order of its names."""

    class Shuffled(nn.Module):
        def grid(self, size: tuple[int, int]) -> tuple[int, int]:
            return 1, 3

        def forward(self, images: Tensor, *, trace: Trace = OFF) -> Tensor:
            q = images.reshape(1, 1, 3, 1)
            for scope in ("block10", "block9", "block2"):
                trace.inside(scope).inside("attention").attention(q, q, q, q, scale=1.0)
            return images.sum((1, 2))

    found = capture(Shuffled(), torch.ones(1, 1, 1, 3), gradient=False)
    assert [layer.name for layer in found.layers] == [
        "block2.attention",
        "block9.attention",
        "block10.attention",
    ]


def test_without_gradient_neither_values_nor_qkv_stay_alive() -> None:
    """q and k are copies whose storage holds nothing else: N x d x heads x 4 bytes each."""
    with undisturbed(model := make()):
        found = capture(model, pictures(1), gradient=False)
    for layer in found.layers:
        for tensor in (layer.q, layer.k):
            assert not tensor.requires_grad
            assert tensor.untyped_storage().nbytes() == tensor.numel() * 4
        assert layer.v is layer.k
        assert layer.out is layer.q


class Failing(nn.Module):
    """Raises in its n-th call, counted over all instances of one model."""

    def __init__(self, inner: nn.Module, counter: list[int]) -> None:
        super().__init__()
        self.inner, self.counter = inner, counter

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.counter[0] -= 1
        if self.counter[0] == 0:
            raise RuntimeError("injected")
        return self.inner(*args, **kwargs)


def state(model: nn.Module) -> dict[str, Any]:
    """Everything that explaining could disturb."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "weights": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "grads": {
            name: None if one.grad is None else one.grad.clone() for name, one in model.named_parameters()
        },
        "identity": [id(one.grad) for one in model.parameters()],
        "required": [one.requires_grad for one in model.parameters()],
        "flags": [module.training for module in model.modules()],
        "hooks": [[len(getattr(module, hook)) for hook in hooks] for module in model.modules()],
        "random": torch.get_rng_state(),
        "grad mode": torch.is_grad_enabled(),
    }


def same(before: Any, after: Any) -> bool:
    """Equality that looks into tensors."""
    if isinstance(before, Tensor):
        return torch.equal(before, after)
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(same(before[key], after[key]) for key in before)
    return bool(before == after)


@pytest.mark.parametrize("method", ["rollout", "gradient_rollout", "gradient_input", "presence"])
def test_nothing_is_disturbed_even_when_the_model_raises(method: str) -> None:
    """Mixed train flags, dropout, gradients, frozen weights and a user's hook.

    The n-th inner call fails, for every n.
    """
    counter = [0]
    model = make(dropout=0.3, drop_path=0.3, attention_dropout=0.3)
    blocks: Any = model.get_submodule("backbone.blocks")
    for index in range(3):
        for child in ("attention", "mlp"):
            setattr(blocks[index], child, Failing(getattr(blocks[index], child), counter))
    model.train()
    blocks[1].eval()
    model(pictures()).square().sum().backward()
    next(iter(model.parameters())).requires_grad_(False)
    model.register_forward_hook(lambda module, args, result: result)
    before, failures = state(model), 0
    for n in range(1, 9):
        counter[0] = n
        try:
            explain(model, pictures(), method=method)
        except RuntimeError as error:
            assert str(error) == "injected"
            failures += 1
        assert same(before, state(model))
    assert failures == 6


def test_dropout_is_off_and_calls_repeat() -> None:
    """A model in training mode is explained as in evaluation: the same call gives the same bits."""
    model = make(dropout=0.5, drop_path=0.5).train()
    first, second = (explain(model, pictures()).tokens for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(first, explain(model.eval(), pictures()).tokens)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_gradients_work_where_the_caller_has_switched_them_off(context: Callable[[], Any]) -> None:
    """Within no_grad and inference_mode, with all weights frozen, the result is the same."""
    model = make()
    expected = explain(model, pictures()).tokens
    model.requires_grad_(False)
    with context():
        torch.testing.assert_close(explain(model, pictures()).tokens, expected)


class Grouped(nn.Module):
    """Attention whose four query heads share two heads of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 16)

    def forward(self, images: Tensor) -> Tensor:
        tokens = images.flatten(2).transpose(1, 2)
        q, k, v = self.project(tokens).split((8, 4, 4), dim=-1)
        q, k, v = (part.unflatten(2, (-1, 2)).transpose(1, 2) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return mixed.transpose(1, 2).flatten(2).mean(1)


def test_shared_keys_are_repeated_for_their_queries() -> None:
    """Reference: softmax of each query head with the key head of its group, written out."""
    torch.manual_seed(0)
    model, images = Grouped().eval(), torch.randn(1, 8, 2, 3)
    with undisturbed(model):
        found = capture(model, images, gradient=False)
    tokens = images.flatten(2).transpose(1, 2)
    q, k, _ = model.project(tokens).split((8, 4, 4), dim=-1)
    q, k = q.unflatten(2, (4, 2)).transpose(1, 2), k.unflatten(2, (2, 2)).transpose(1, 2)
    expected = torch.stack([(q[0, head] @ k[0, head // 2].T * 2**-0.5).softmax(-1) for head in range(4)])
    torch.testing.assert_close(found.layers[0].dense()[0], expected)
