"""Private parts of PyTorch against their public meaning: fails when a PyTorch changes one.

And the ways without them.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tesela.hardware import torch_private as private

BF16 = torch.bfloat16
EIGHT = TensorDataset(torch.arange(8))


@pytest.mark.parametrize("there", [True, False])
def test_a_packed_weight(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same product as with the plain weight for any number of rows; None where PyTorch cannot pack."""
    values, weight, bias = (
        torch.randn(4, 7, 16).to(BF16),
        torch.randn(5, 16).to(BF16),
        torch.randn(5).to(BF16),
    )
    expected = private.linear_bf16(values, weight, bias)
    if not there:
        monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    packed = private.packed_weight(weight, 3)
    if packed is None:
        supported = there and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        assert not supported
        return
    assert there
    torch.testing.assert_close(private.linear_bf16(values, packed, bias), expected)
    torch.testing.assert_close(private.linear_bf16(values[0, :1], packed, bias), expected[0, :1])


@pytest.mark.parametrize("there", [True, False])
def test_a_product_of_whole_numbers(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reference: int64."""
    left, right = (torch.randint(-127, 128, (32, 32), dtype=torch.int8) for _ in range(2))
    if not there:
        monkeypatch.delattr(torch, "_int_mm")
    assert torch.equal(private.int8_product(left, right).long(), left.long() @ right.long())


@pytest.mark.parametrize("there", [True, False])
def test_a_dense_layer(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reference: float64; bf16 keeps 8 bits."""
    if not there:
        monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    values, weight, bias = torch.randn(4, 3, 16), torch.randn(5, 16), torch.randn(5)
    found = private.linear_bf16(values.to(BF16), weight.to(BF16), bias.to(BF16))
    expected = nn.functional.linear(
        values.to(BF16).double(), weight.to(BF16).double(), bias.to(BF16).double()
    )
    torch.testing.assert_close(found.double(), expected, rtol=0.01, atol=0.05)


@pytest.mark.parametrize("there", [True, False])
def test_the_gradient_of_a_softmax(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reference: autograd."""
    if not there:
        monkeypatch.delattr(torch, "_softmax_backward_data")
    logits = torch.randn(2, 3, 7, requires_grad=True)
    gradient, softmax = torch.randn(2, 3, 7), logits.softmax(-1)
    (expected,) = torch.autograd.grad(softmax, logits, gradient)
    torch.testing.assert_close(private.softmax_backward(gradient, softmax.detach()), expected)


@pytest.mark.parametrize("there", [True, False])
def test_moving_all_tensors_a_part_of_the_way(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reference: ``lerp`` of each, bit for bit."""
    if not there:
        monkeypatch.delattr(torch, "_foreach_lerp_")
    targets, sources = [torch.randn(3), torch.randn(2, 2)], [torch.randn(3), torch.randn(2, 2)]
    expected = [target.lerp(source, 0.3) for target, source in zip(targets, sources, strict=True)]
    private.lerp_all_(targets, sources, 0.3)
    assert all(torch.equal(one, other) for one, other in zip(targets, expected, strict=True))


def test_workers_end() -> None:
    loader: Any = DataLoader(EIGHT, num_workers=1, persistent_workers=True)
    next(iter(loader))
    workers = loader._iterator._workers
    private.stop_workers(loader)
    assert not any(worker.is_alive() for worker in workers)
    assert len(list(loader)) == 8
    private.stop_workers(loader)
    private.stop_workers(DataLoader(EIGHT))


def test_a_copy_with_another_child_shares_the_rest() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    twin = private.with_child(model, "1", nn.Sigmoid())
    values = torch.randn(3, 2)
    assert torch.equal(twin(values), model[0](values).sigmoid())
    assert torch.equal(model(values), model[0](values).relu())
    assert twin[0].weight is model[0].weight


def test_parameters_behind_a_property() -> None:
    class Doubled(nn.Linear):
        @property
        def weight(self) -> torch.Tensor:  # type: ignore[override]
            return 2 * private.own_parameter(self, "weight")

    inner = nn.Linear(2, 2)
    outer = Doubled.__new__(Doubled)
    nn.Module.__init__(outer)
    private.share_parameters(outer, inner)
    assert private.own_parameter(outer, "weight") is inner.weight
    assert torch.equal(outer.weight, 2 * inner.weight)
    assert set(outer.state_dict()) == {"weight", "bias"}


def test_a_function_with_other_globals() -> None:
    """Also the one it is for: the kernel that ``nn.MultiheadAttention`` calls."""
    seen = []

    def watched(*args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(args[0].shape)
        return nn.functional.scaled_dot_product_attention(*args, **kwargs)

    layer = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    tokens = torch.randn(1, 5, 8)
    forward = private.with_globals(
        nn.functional.multi_head_attention_forward, {"scaled_dot_product_attention": watched}
    )
    turned = tokens.transpose(0, 1)
    weights = (layer.in_proj_weight, layer.in_proj_bias, None, None, False, 0.0)
    found, _ = forward(
        turned, turned, turned, 8, 2, *weights, layer.out_proj.weight, layer.out_proj.bias, need_weights=False
    )
    torch.testing.assert_close(found.transpose(0, 1), layer(tokens, tokens, tokens, need_weights=False)[0])
    assert seen == [(1, 2, 5, 4)]


def test_untouched_layers() -> None:
    """Canary: every public way to hook into a layer is noticed, and a layer without them is not."""
    assert private.is_untouched(nn.Linear(2, 2), nn.Linear)
    assert not private.is_untouched(nn.Conv2d(2, 2, 1), nn.Linear)
    for hook in (
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ):
        layer = nn.Linear(2, 2)
        handle = getattr(layer, hook)(lambda *_: None)
        assert not private.is_untouched(layer, nn.Linear), hook
        handle.remove()
        assert private.is_untouched(layer, nn.Linear), hook
    layer = nn.Linear(2, 2)
    layer.forward = layer.forward  # type: ignore[method-assign]
    assert not private.is_untouched(layer, nn.Linear)
