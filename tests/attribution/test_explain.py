"""``explain`` as a whole.

Against the oracle on real models, planted models whose answer is known, batches, start vectors, errors.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.attribution import oracle
from torch import Tensor, nn

from tesela.attribution.explain import explain
from tesela.core.errors import UsageError
from tesela.imaging.spec import ImageSpec
from tesela.layers.attention.attention import attend
from tesela.layers.pool import Readout
from tesela.layers.trace import OFF, Trace
from tesela.models.bundle import describe
from tesela.models.factory import create_model

PLANTED = int(os.environ.get("TESELA_PLANTED_CASES", "100"))


def make(**fields: Any) -> nn.Module:
    """A small ViT for 16 x 24 pixels, 4 x 6 patches, all weights random and not small."""
    model = create_model(
        "vit_ti16",
        num_classes=5,
        image_size=(16, 24),
        **{"width": 24, "depth": 3, "heads": 3, "patch_size": (4, 4), **fields},
    )
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return model.eval()


def pictures(count: int = 1, seed: int = 6) -> Tensor:
    """Normal noise, 16 x 24."""
    return torch.randn(count, 3, 16, 24, generator=torch.Generator().manual_seed(seed))


def eager(
    model: nn.Module, image: Tensor, target: int
) -> tuple[list[oracle.Array], list[oracle.Array], Tensor]:
    """A and dy/dA of each layer of one image, and its logits, in float64.

    Dy/dA by autograd through A v, written out here.
    """
    trace = Trace()
    logits = model.double()(image.double(), trace=trace)
    maps, slopes = [], []
    records = [record for record in trace.attentions.values() if record.q.shape[2] > 1]
    gradients = torch.autograd.grad(logits[0, target], [record.out for record in records])
    for record, gradient in zip(records, gradients, strict=True):
        weights = (record.q @ record.k.transpose(-1, -2) * record.scale).softmax(-1).detach().requires_grad_()
        (slope,) = torch.autograd.grad(((weights @ record.v.detach()) * gradient).sum(), weights)
        maps.append(weights[0].detach().numpy())
        slopes.append(slope[0].numpy())
    model.float()
    return maps, slopes, logits.detach()


STARTS: list[tuple[dict[str, Any], int, Any]] = [
    ({}, 1, np.eye(25)[0]),
    ({"distillation": True}, 2, (np.eye(26)[0] + np.eye(26)[1]) / 2),
    ({"registers": 4}, 5, np.eye(29)[0]),
    ({"pool": "mean"}, 0, np.full(24, 1 / 24)),
    ({"pool": "mean", "registers": 2}, 2, np.r_[0, 0, np.full(24, 1 / 24)]),
]


@pytest.mark.parametrize(("fields", "prefix", "start"), STARTS)
@pytest.mark.parametrize(
    ("method", "share"),
    [("rollout", 0.0), ("rollout", 0.7), ("rollout_literature", 0.0), ("gradient_rollout", 0.0)],
)
def test_equals_the_oracle_on_models(
    fields: dict[str, Any], prefix: int, start: oracle.Array, method: str, share: float
) -> None:
    """Reference: oracle.py on A and dy/dA in float64; <= 1e-6 for rollout.

    Fails for sqrt(N - 1) as grid, or gradients of other layers.
    """
    model, image = make(**fields), pictures()
    found = explain(model, image, target=3, method=method, discard=share)
    maps, slopes, logits = eager(model, image, 3)
    layers = (
        [oracle.gradient_layer(*pair) for pair in zip(maps, slopes, strict=True)]
        if method == "gradient_rollout"
        else maps
    )
    expected = oracle.rollout(
        layers,
        start,
        how="mean",
        share=share,
        residual=0.5,
        prefix=prefix,
        literature=method == "rollout_literature",
    )
    np.testing.assert_allclose(
        found.tokens[0, 0].numpy(),
        expected[prefix:].reshape(4, 6),
        atol=1e-6 if method != "gradient_rollout" else 1e-5,
    )
    np.testing.assert_allclose(found.prefix_mass[0, 0].numpy(), expected[:prefix].sum(), atol=1e-5)
    np.testing.assert_allclose(found.scores[0, 0].numpy(), logits[0, 3].numpy(), rtol=1e-4, atol=1e-5)
    assert found.tokens.sum() + found.prefix_mass.sum() == pytest.approx(1.0, abs=1e-5)


def test_defect_each_gradient_belongs_to_its_layer() -> None:
    """Reference: the oracle.

    Backward hooks fire from last layer to first; paired with forward hooks in that order, the map is another.
    """
    model, image = make(), pictures()
    maps, slopes, _ = eager(model, image, 3)
    results = []
    for gradients in (slopes, slopes[::-1]):
        layers = [oracle.gradient_layer(*pair) for pair in zip(maps, gradients, strict=True)]
        results.append(
            oracle.rollout(layers, np.eye(25)[0], how="mean", share=0.0, residual=0.5, prefix=1)[1:].reshape(
                4, 6
            )
        )
    found = explain(model, image, target=3, method="gradient_rollout").tokens[0, 0].numpy()
    np.testing.assert_allclose(found, results[0], atol=1e-5)
    assert np.abs(found - results[1]).max() > 1e-3


@pytest.mark.parametrize("prefix", [{}, {"registers": 3}])
def test_defect_the_grid_is_the_models_not_a_square_root(prefix: dict[str, Any]) -> None:
    """4 x 6 patches and one or four tokens before them: no root of N - 1 gives the grid."""
    assert explain(make(**prefix), pictures(), method="rollout").tokens.shape == (1, 1, 4, 6)


def test_defect_no_hook_stays_behind() -> None:
    """After an explanation an ordinary call runs no code of ours.

    Nothing is kept, no mode is on, no hook is there.
    """
    model = make()
    explain(model, pictures(), target=1, method="gradient_rollout")
    assert not any(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
        for module in model.modules()
    )
    assert not torch.overrides._get_current_function_mode_stack()


@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
def test_attention_pooling_starts_with_the_pools_own_row(fusion: str) -> None:
    """Reference: the oracle, started with the pool's attention computed from its traced q and k."""
    model, image = make(pool="attention"), pictures()
    found = explain(model, image, method="rollout", head_fusion=fusion)  # type: ignore[arg-type]
    maps, _, _ = eager(model, image, 0)
    trace = Trace()
    model(image, trace=trace)
    pool = trace.attentions["pool.attention"]
    row = oracle.attention(
        pool.q[0].detach().double().numpy(), pool.k[0].detach().double().numpy(), pool.scale
    )
    start = oracle.fused(row, fusion)[0]
    expected = oracle.rollout(maps, start / start.sum(), how=fusion, share=0.0, residual=0.5, prefix=0)
    np.testing.assert_allclose(found.tokens[0, 0].numpy(), expected.reshape(4, 6), atol=1e-6)


def test_sequence_pooling_starts_with_its_weights() -> None:
    """Reference: the oracle, started with softmax of the pool's linear map of the last tokens."""
    model, image = make(pool="sequence"), pictures()
    found = explain(model, image, method="rollout")
    maps, _, _ = eager(model, image, 0)
    tokens: Tensor = model.features(image).tokens  # type: ignore[operator]
    score: Any = model.get_submodule("pool.score")
    start = oracle.softmax((tokens[0] @ score.weight[0] + score.bias).detach().double().numpy())
    expected = oracle.rollout(maps, start, how="mean", share=0.0, residual=0.5, prefix=0)
    np.testing.assert_allclose(found.tokens[0, 0].numpy(), expected.reshape(4, 6), atol=1e-6)


def test_a_chosen_patch_is_the_start() -> None:
    """Reference: the oracle, started with the unit vector of patch (2, 5): token 1 + 2 * 6 + 5."""
    model, image = make(), pictures()
    found = explain(model, image, method="rollout", patch=(2, 5))
    maps, _, _ = eager(model, image, 0)
    expected = oracle.rollout(maps, np.eye(25)[18], how="mean", share=0.0, residual=0.5, prefix=1)
    np.testing.assert_allclose(found.tokens[0, 0].numpy(), expected[1:].reshape(4, 6), atol=1e-6)
    with pytest.raises(UsageError, match="no patch 4,0"):
        explain(model, image, method="rollout", patch=(4, 0))


@pytest.mark.parametrize("method", ["rollout", "gradient_rollout", "gradient_input", "presence", "surrogate"])
@pytest.mark.parametrize("discard", [0.0, 0.6])
def test_a_batch_of_images_and_classes_equals_single_calls(method: str, discard: float) -> None:
    """8 images x 5 classes in one call against 40 calls: <= 1e-6."""
    model, images = make(), pictures(8)
    together = explain(model, images, target=[0, 1, 2, 3, 4], method=method, discard=discard)
    assert together.map.shape == (8, 5, 16, 24)
    assert together.map.dtype == together.tokens.dtype == torch.float32
    assert together.prefix_mass.shape == together.scores.shape == together.probabilities.shape == (8, 5)
    for image in range(8):
        for target in range(5):
            alone = explain(model, images[image], target=target, method=method, discard=discard)
            assert (together.tokens[image, target] - alone.tokens[0, 0]).abs().max() <= 1e-6
            assert (together.map[image, target] - alone.map[0, 0]).abs().max() <= 1e-6
            assert (together.scores[image, target] - alone.scores[0, 0]).abs() <= 1e-5


def test_the_predicted_class_is_explained_by_default() -> None:
    """Per image: the same as asking for the argmax of its logits.

    Scores and probabilities are that class's.
    """
    model, images = make(), pictures(6)
    found, logits = explain(model, images), model(images).detach()
    assert found.method == "surrogate"
    assert torch.equal(found.targets[:, 0], logits.argmax(1))
    torch.testing.assert_close(found.scores[:, 0], logits.amax(1))
    torch.testing.assert_close(found.probabilities[:, 0], logits.softmax(1).amax(1))
    for image in range(6):
        alone = explain(model, images[image : image + 1], target=int(logits[image].argmax()))
        torch.testing.assert_close(found.tokens[image], alone.tokens[0], rtol=0, atol=1e-6)


def test_the_map_does_not_depend_on_the_logits_scale() -> None:
    """The head's weights times 1e-12 and 1e6.

    Gradient rollout stays, though products would vanish in float32; presence grows with it.
    """
    model, images = make(), pictures(2)
    expected, presence = (
        explain(model, images, target=1, method=method).tokens for method in ("gradient_rollout", "presence")
    )
    head: Any = model.get_submodule("head.linear")
    for factor in (1e-12, 1e6):
        original = head.weight.detach().clone()
        with torch.no_grad():
            head.weight.mul_(factor)
        torch.testing.assert_close(
            explain(model, images, target=1, method="gradient_rollout").tokens, expected, rtol=0, atol=1e-6
        )
        torch.testing.assert_close(
            explain(model, images, target=1, method="presence").tokens / factor,
            presence,
            rtol=1e-4,
            atol=1e-6,
        )
        with torch.no_grad():
            head.weight.copy_(original)


def test_the_map_is_the_tokens_drawn_between_patch_centres() -> None:
    """Reference: linear interpolation in NumPy along each axis, constant outside the outer centres."""
    found = explain(make(), pictures(), target=2)
    tokens = found.tokens[0, 0].double().numpy()
    rows = np.stack(
        [np.interp((np.arange(16) + 0.5) / 4 - 0.5, range(4), tokens[:, column]) for column in range(6)],
        axis=1,
    )
    expected = np.stack(
        [np.interp((np.arange(24) + 0.5) / 4 - 0.5, range(6), rows[row]) for row in range(16)]
    )
    np.testing.assert_allclose(found.map[0, 0].numpy(), expected, atol=1e-6)


class Planted(nn.Module):
    """Class token reads the patches with a "loud" mark.

    Only the patch with a "voice" speaks for class 1, another against it.

    Pixels are 1 x 1 patches of four channels: loud, for class 1, against class 1, passed on. With two hops,
    the voice is first read by a relay patch and the class token reads the relay alone.
    """

    def __init__(self, *, hops: int) -> None:
        super().__init__()
        self.hops = hops
        self.prefix_tokens = 1

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        return size

    def readout(self) -> Readout:
        """The class token."""
        return Readout("first", 1)

    def forward(self, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        patches = images.flatten(2).transpose(1, 2)
        tokens = torch.cat([torch.zeros_like(patches[:, :1]), patches], dim=1)
        for layer in range(self.hops):
            last = layer == self.hops - 1
            loud = tokens[..., 0] if last else tokens[..., 3]
            k = torch.stack([loud, torch.ones_like(loud)], -1).unsqueeze(1)
            reads = torch.zeros_like(loud)
            reads[:, 0] = 1.0
            q = (
                torch.stack([reads if last else tokens[..., 0], torch.zeros_like(loud)], -1).unsqueeze(1)
                * 8.0
            )
            v = tokens[..., 1:3].unsqueeze(1)
            out = attend(q, k, v, scale=1.0)
            trace.inside(f"block{layer}").attention(q, k, v, out, scale=1.0)
            tokens = torch.cat([tokens[..., :1], tokens[..., 1:3] + out[:, 0], tokens[..., 3:]], dim=-1)
        value = tokens[:, 0, 0:3]
        return torch.stack([value[:, 2] - value[:, 1], value[:, 1] - value[:, 2]], dim=1)


def planted_image(draw: np.random.Generator, *, hops: int) -> tuple[Tensor, tuple[int, int]]:
    """Noise, two loud patches or a relay, a voice for class 1 and one against it.

    And where the voice for class 1 is.
    """
    rows, columns = int(draw.integers(3, 9)), int(draw.integers(3, 9))
    image = torch.from_numpy(draw.normal(0, 0.02, (1, 4, rows, columns))).float()
    image[0, 0], image[0, 3] = 0.0, 0.0
    voice, other, relay = draw.choice(rows * columns, 3, replace=False)
    flat = image.flatten(2)
    flat[0, 1, voice], flat[0, 2, other] = 1.0, 1.0
    if hops == 1:
        flat[0, 0, voice], flat[0, 0, other] = 1.0, 1.05  # the head looks more at the wrong one
    else:
        flat[0, 0, relay] = 1.0
        flat[0, 3, voice], flat[0, 3, other] = 1.0, 1.02
    return image, (int(voice) // columns, int(voice) % columns)


@pytest.mark.parametrize(("hops", "least"), [(1, 1.0), (2, 0.99)])
def test_planted_models_are_explained_by_the_token_that_matters(hops: int, least: float) -> None:
    """Known truth: the voice for class 1.

    Plain rollout, blind to the class, prefers the louder voice against it.
    """
    draw = np.random.default_rng(hops)
    right = blind = 0
    for _ in range(PLANTED):
        image, truth = planted_image(draw, hops=hops)
        for method in ("gradient_rollout", "rollout"):
            tokens = explain(Planted(hops=hops), image, target=1, method=method).tokens[0, 0].clone()
            if hops == 2 and method == "gradient_rollout":
                relay = divmod(int(image[0, 0].argmax()), image.shape[3])
                tokens[relay] = 0.0  # the skip connection leaves a share at the relay, rightly
            hit = divmod(int(tokens.argmax()), image.shape[3]) == truth
            right, blind = (
                right + (hit and method == "gradient_rollout"),
                blind + (hit and method == "rollout"),
            )
    assert right >= least * PLANTED
    assert blind <= 0.1 * PLANTED


class Convolutional(nn.Module):
    """A classifier without attention that does not even know of traces."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.conv(images).relu().mean((2, 3))
        return logits


def labelled(model: Any) -> nn.Module:
    """The model as if loaded from a bundle; two of its labels look like numbers."""
    spec = ImageSpec(height=16, width=24, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    model.info = replace(describe(model, name="small", labels=["cat", "dog", "horse", "0", "7"], image=spec))
    return model  # type: ignore[no-any-return]
