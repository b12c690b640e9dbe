"""The bf16 path against the plain one.

The same mathematics in float64 through autograd, and PyTorch's own autocast.

bf16 keeps 8 bits, so a result of it lies about 2^-9 from the truth per operation; the bf16 path may be at
most as far off as autocast is, with a quarter to spare, and both must be near.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tesela.layers.attention.attention import set_attention_kernel
from tesela.layers.attention.cpu_bf16 import Dense, applies, bf16_attention, column_sums, weight_gradient
from tesela.layers.trace import Trace
from tesela.models.factory import create_model

BF16 = torch.bfloat16


def distance(found: Tensor, truth: Tensor) -> float:
    return float((found.double() - truth).norm() / truth.norm())


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("outputs", "inputs"), [(48, 16), (16, 48), (1600, 8), (8, 1600), (32, 32)])
def test_dense_and_its_gradients(outputs: int, inputs: int) -> None:
    """Reference: x W^T + b and its derivatives in float64."""
    layer, values, push = Dense(inputs, outputs), draw(3, 5, inputs), draw(3, 5, outputs, seed=1)
    truth, truth_in = copy.deepcopy(layer).double(), values.double().requires_grad_()
    expected = torch.nn.functional.linear(truth_in, truth.weight, truth.bias)
    expected.backward(push.double())
    layer.kernel = "cpu_bf16"
    given = values.clone().requires_grad_()
    with torch.autocast("cpu", BF16):
        result = layer(given)
    assert result.dtype == BF16
    result.backward(push.to(BF16))
    pairs = [
        (result, expected),
        (given.grad, truth_in.grad),
        (layer.weight.grad, truth.weight.grad),
        (layer.bias.grad, truth.bias.grad),
    ]
    for found, wanted in pairs:
        assert found is not None
        assert wanted is not None
        assert distance(found.detach(), wanted.detach()) < 0.01
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    layer = Dense(8, 4, bias=False)
    layer.kernel = "cpu_bf16"
    layer.weight.requires_grad_(False)
    values = draw(2, 8).requires_grad_()
    with torch.autocast("cpu", BF16):
        layer(values).sum().backward()
    assert layer.weight.grad is None
    assert values.grad is not None
    assert distance(values.grad, layer.weight.double().sum(0).expand(2, 8)) < 0.01


@pytest.mark.parametrize("heads", [1, 3])
def test_attention_and_its_gradient(heads: int) -> None:
    """Reference: softmax(q k^T s) v in float64 through autograd."""
    batch, count, width, scale = 2, 7, 6, 0.4
    values, push = (
        draw(batch, count, 3 * heads * width).to(BF16),
        draw(batch, count, heads * width, seed=1).to(BF16),
    )
    truth = values.double().requires_grad_()
    q, k, v = truth.view(batch, count, 3, heads, width).permute(2, 0, 3, 1, 4).unbind(0)
    expected = ((q @ k.transpose(-2, -1) * scale).softmax(-1) @ v).transpose(1, 2).flatten(2)
    expected.backward(push.double())
    given = values.clone().requires_grad_()
    result = bf16_attention(given, heads=heads, scale=scale)
    result.backward(push)
    assert given.grad is not None
    assert truth.grad is not None
    assert distance(result.detach(), expected.detach()) < 0.01
    assert distance(given.grad, truth.grad) < 0.015


@pytest.mark.parametrize("shape", [(40, 3, 5), (40, 5, 3), (40, 1536, 2), (40, 2, 1536)])
def test_weight_gradient_in_both_orders(shape: tuple[int, int, int]) -> None:
    rows, outputs, inputs = shape
    gradient, values = draw(rows, outputs), draw(rows, inputs, seed=1)
    torch.testing.assert_close(
        weight_gradient(gradient, values), torch.einsum("mo,mi->oi", gradient, values), rtol=1e-4, atol=1e-4
    )


def test_column_sums_are_gathered_in_fp32() -> None:
    """4,096 ones and small values: a bf16 running sum would stop at 256."""
    assert torch.equal(column_sums(torch.ones(4096, 3, dtype=BF16)).float(), torch.full((3,), 4096.0))


@pytest.mark.parametrize("name", ["vit_nano", "cct_2_3x2_32", "vit_mnist_fine"])
def test_a_whole_step_is_as_near_to_fp64_as_autocast(name: str) -> None:
    """Loss and every parameter's gradient of a model.

    Cpu_bf16 and matmul, both under autocast, against float64.
    """
    model: Any = create_model(name, seed=0, attention_dropout=0.0, drop_path=0.0)
    torch.nn.init.normal_(model.head.linear.weight, std=0.2, generator=torch.Generator().manual_seed(1))
    images = draw(8, model.config.channels, *model.config.image_size)
    targets = torch.arange(8) % 10

    def gradients(kernel: str, kind: torch.dtype) -> dict[str, Tensor]:
        one = copy.deepcopy(model).to(kind)
        set_attention_kernel(one, kernel)
        with torch.autocast("cpu", BF16, enabled=kind == torch.float32):
            logits = one(images.to(kind))
        torch.nn.functional.cross_entropy(logits.to(kind), targets).backward()
        return {
            name: parameter.grad for name, parameter in one.named_parameters() if parameter.grad is not None
        }

    truth, plain, low = (
        gradients("matmul", torch.float64),
        gradients("matmul", torch.float32),
        gradients("cpu_bf16", torch.float32),
    )
    assert truth.keys() == plain.keys() == low.keys()
    flat = {
        kind: torch.cat([of[name].flatten().double() for name in truth])
        for kind, of in (("t", truth), ("p", plain), ("l", low))
    }
    off_plain, off_low = distance(flat["p"], flat["t"]), distance(flat["l"], flat["t"])
    assert off_low < 0.04
    assert off_low < 2 * off_plain + 0.005


def test_elsewhere_it_is_matmul() -> None:
    """Without gradients, without autocast, or with a trace, the ordinary path runs, to the bit."""
    model: Any = create_model("vit_nano", seed=0).eval()
    images = draw(2, 1, 8, 8)
    assert not applies(images)
    with torch.no_grad():
        set_attention_kernel(model, "matmul")
        expected = model(images)
        set_attention_kernel(model, "cpu_bf16")
        assert torch.equal(model(images), expected)
    trace = Trace()
    with torch.autocast("cpu", BF16):
        model(images, trace=trace)
    assert len(trace.attentions) == model.config.depth
