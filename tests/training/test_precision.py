"""The measurement chooses what is fastest and leaves the model alone.

Activations are counted, not guessed.
"""

from __future__ import annotations

import time

import pytest
import torch
from tests.batches import batch_of
from torch import nn

from tesela.data.batch import Batch
from tesela.hardware.memory import activation_bytes, automatic_batch
from tesela.layers.attention.attention import Attention, set_attention_kernel
from tesela.layers.attention.kernels import HasKernel
from tesela.models.factory import create_model
from tesela.tasks.classification.objective import CrossEntropy
from tesela.tasks.objective import Draw, Loss
from tesela.training.optim.optimizer import OptimConfig, build_optimizers
from tesela.training.precision import Timed, candidates, fastest, time_settings
from tesela.training.step import TrainingStep, seed_step


class Slow(CrossEntropy):
    """Waits where autocast is on, in proportion to the batch, so that the right choice is known."""

    def loss(self, model: nn.Module, batch: Batch, draw: Draw) -> Loss:
        """The usual loss, later."""
        time.sleep(len(batch) * (0.001 if torch.is_autocast_enabled("cpu") else 0.0001))
        return super().loss(model, batch, draw)


def make_batch(count: int, *shape: int) -> Batch:
    return batch_of(torch.randn(count, *shape), torch.zeros(count, dtype=torch.int64))


def test_the_slow_pair_is_not_chosen_and_the_model_is_untouched() -> None:
    """Reference: waiting times that are known; weights before and after."""
    model = create_model("vit_nano", num_classes=3, seed=0, width=8, depth=1, heads=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = make_batch(32, 1, 8, 8)
    pairs = [("fp32", "fused"), ("bf16", "fused")]
    found = time_settings(
        model,
        Slow(),
        pairs,
        batch,
        build=lambda trial, loss: build_optimizers(trial, OptimConfig(), objective=loss),
        set_kernel=set_attention_kernel,
        device=torch.device("cpu"),
        limit=0.5,
    )
    assert [(timed.precision, timed.attention) for timed in found] == pairs
    assert found[1].seconds >= 0.032
    assert fastest(found) is found[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class WithAttention(CrossEntropy):
    """Has a layer of its own, as decoders and teachers have, and keeps what each step was computed with."""

    def __init__(self, steps: list[tuple[str, str]]) -> None:
        super().__init__()
        self.steps, self.own = steps, Attention(8, 2)

    def __deepcopy__(self, memo: dict[int, object]) -> WithAttention:
        return WithAttention(self.steps)

    def loss(self, model: nn.Module, batch: Batch, draw: Draw) -> Loss:
        """The usual loss."""
        kernels = {module.kernel for module in model.modules() if isinstance(module, HasKernel)}
        self.steps.append((" ".join(kernels), self.own.kernel))
        return super().loss(model, batch, draw)


def test_layers_of_the_objective_are_measured_with_the_same_kernel() -> None:
    model = create_model("vit_nano", num_classes=3, seed=0, width=8, depth=1, heads=2)
    steps: list[tuple[str, str]] = []
    time_settings(
        model,
        WithAttention(steps),
        [("fp32", "fused"), ("fp32", "matmul")],
        make_batch(8, 1, 8, 8),
        build=lambda trial, loss: build_optimizers(trial, OptimConfig(), objective=loss),
        set_kernel=set_attention_kernel,
        device=torch.device("cpu"),
        limit=0.1,
    )
    assert set(steps) == {("fused", "fused"), ("matmul", "matmul")}


def test_noise_does_not_decide() -> None:
    """bf16 must win by a tenth, the plain kernel by a twentieth; reference: by hand."""

    def pick(*seconds: float) -> tuple[str, str]:
        pairs = [("fp32", "fused"), ("fp32", "matmul"), ("bf16", "fused"), ("bf16", "matmul")]
        chosen = fastest(
            [Timed(precision=p, attention=a, seconds=s) for (p, a), s in zip(pairs, seconds, strict=True)]
        )
        return chosen.precision, chosen.attention

    assert pick(1.0, 0.97, 0.93, 0.95) == ("fp32", "fused")
    assert pick(1.0, 0.9, 1.0, 1.0) == ("fp32", "matmul")
    assert pick(1.0, 1.0, 0.8, 0.79) == ("bf16", "fused")
    assert pick(1.0, 1.0, 0.8, 0.6) == ("bf16", "matmul")


def test_candidates_are_what_was_left_open() -> None:
    """Reference: by hand."""
    cpu = torch.device("cpu")
    assert candidates("fp32", "fused", cpu) == [("fp32", "fused")]
    assert candidates("auto", "matmul", cpu) == [("fp32", "matmul"), ("bf16", "matmul")]
    assert len(candidates("auto", "auto", cpu)) == 5


def test_activations_of_a_known_network() -> None:
    """Reference: by hand; per image a linear layer keeps its input (5 floats), tanh its output (7), the
    loss its log-softmax (7)."""
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh())
    per_image = activation_bytes(
        model,
        lambda trial: CrossEntropy().loss(trial, make_batch(64, 5), Draw(0, 0)),
        images=64,
    )
    assert per_image == pytest.approx(4 * (5 + 7 + 7), abs=12)


@pytest.mark.parametrize(
    ("images", "per_image", "free", "batch"),
    [
        (1437, 1000, 10**9, 32),
        (50_000, 10**5, 10**10, 256),
        (50_000, 10**6, 10**8, 32),
        (10, 1000, 10**9, 10),
        (5000, 1000, 10**9, 64),
    ],
)
def test_automatic_batch(images: int, per_image: int, free: int, batch: int) -> None:
    """Reference: the rule of the module's header by hand: 5000 // 40 = 125 gives 64.

    Half of 1e8 bytes holds 50 images, which gives 32.
    """
    assert automatic_batch(images, per_image=per_image, free=free) == batch


def test_randomness_is_a_function_of_seed_and_step() -> None:
    """The same pair gives the same numbers; neighbours differ in about half of their bits."""
    seed_step(3, 10)
    first = torch.rand(4)
    seed_step(3, 11)
    assert not torch.equal(first, torch.rand(4))
    seed_step(3, 10)
    assert torch.equal(first, torch.rand(4))
    bits = []
    for step in range(500):
        seed_step(3, step)
        before = torch.initial_seed()
        seed_step(3, step + 1)
        bits.append(bin(before ^ torch.initial_seed()).count("1"))
    assert 28 < sum(bits) / len(bits) < 35


def test_accumulated_batches_give_the_gradient_of_the_whole_one() -> None:
    """Reference: one backward pass over all images."""
    images, targets = torch.randn(8, 1, 8, 8), torch.arange(8) % 3
    gradients = []
    for parts in (1, 4):
        model = create_model("vit_nano", num_classes=3, seed=0, width=8, depth=1, heads=2)
        optimizers = build_optimizers(model, OptimConfig())
        step = TrainingStep(
            model, CrossEntropy(), optimizers, device=torch.device("cpu"), precision="fp32", clip_norm=0
        )
        for piece, labels in zip(images.chunk(parts), targets.chunk(parts), strict=True):
            step.backward(step.loss(batch_of(piece, labels), Draw(0, 0)), share=1 / parts)
        gradients.append([parameter.grad for parameter in model.parameters()])
    for whole, summed in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, summed, rtol=1e-4, atol=1e-6)
