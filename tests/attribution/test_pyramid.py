"""Walking through SegFormer's stages, against dense NumPy matrices.

A U in full, the merging and the decoder as explicit operators.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.attribution import oracle
from tests.attribution.foreign_models import make
from torch import Tensor, nn

from tesela.attribution.capture.call import undisturbed
from tesela.attribution.capture.capture import capture
from tesela.attribution.capture.rows import attention_rows
from tesela.attribution.explain import explain
from tesela.attribution.methods.pyramid import Reduction, merging, upsampled_back
from tesela.attribution.methods.rollout import RolloutOptions, step
from tesela.core.errors import UsageError
from tesela.layers.attention.attention import Attention
from tesela.layers.block import Block
from tesela.layers.mlp import Mlp
from tesela.layers.trace import OFF, Trace

Array = oracle.Array


def spreading(grid: tuple[int, int], cells: tuple[int, int], ratio: tuple[int, int]) -> Array:
    """U (M x N): every key's row is even over its cell."""
    matrix = np.zeros((cells[0] * cells[1], grid[0] * grid[1]))
    for row in range(cells[0] * ratio[0]):
        for column in range(cells[1] * ratio[1]):
            key = row // ratio[0] * cells[1] + column // ratio[1]
            matrix[key, row * grid[1] + column] = 1 / (ratio[0] * ratio[1])
    return matrix


def merged(weight: Array, stride: int, padding: int, fine: tuple[int, int]) -> Array:
    """(n x m): each coarse token's receptive field, weighted by the kernel's energy inside the image, rows
    with sum 1."""
    energy, side = (weight**2).sum((0, 1)), weight.shape[2]
    coarse = [(length + 2 * padding - side) // stride + 1 for length in fine]
    matrix = np.zeros((coarse[0] * coarse[1], fine[0] * fine[1]))
    for row in range(coarse[0]):
        for column in range(coarse[1]):
            for i in range(side):
                for j in range(side):
                    y, x = row * stride - padding + i, column * stride - padding + j
                    if 0 <= y < fine[0] and 0 <= x < fine[1]:
                        matrix[row * coarse[1] + column, y * fine[1] + x] += energy[i, j]
    result: Array = matrix / matrix.sum(1, keepdims=True)
    return result


def bilinear(coarse: int, fine: int) -> Array:
    """(fine x coarse): upsampling of one axis with pixel centres, ends repeated."""
    matrix = np.zeros((fine, coarse))
    for pixel in range(fine):
        place = min(max((pixel + 0.5) * coarse / fine - 0.5, 0.0), coarse - 1.0)
        low = int(place)
        matrix[pixel, low] += 1 - (place - low)
        matrix[pixel, min(low + 1, coarse - 1)] += place - low
    return matrix


@pytest.mark.parametrize(("grid", "ratio"), [((8, 12), (4, 4)), ((7, 10), (2, 3))])
def test_spreading_equals_the_matrix(grid: tuple[int, int], ratio: tuple[int, int]) -> None:
    """Reference: U in full, also where cells do not fill the grid.

    A token's own cell is the row of U that holds it.
    """
    cells = (grid[0] // ratio[0], grid[1] // ratio[1])
    reduction, matrix = Reduction(grid=grid, cells=cells, ratio=ratio), spreading(grid, cells, ratio)
    keys = torch.randn(2, 3, cells[0] * cells[1], dtype=torch.float64)
    np.testing.assert_allclose(reduction.spread(keys).numpy(), keys.numpy() @ matrix, atol=1e-12)
    own = reduction.own(torch.device("cpu")).numpy()
    for token, cell in enumerate(own):
        assert (matrix[:, token] > 0).any() == (cell >= 0)
        assert cell < 0 or matrix[cell, token] > 0


@pytest.mark.parametrize(
    ("side", "stride", "padding", "fine"), [(7, 4, 3, (16, 24)), (3, 2, 1, (7, 10)), (4, 4, 0, (9, 11))]
)
def test_merging_equals_the_matrix(side: int, stride: int, padding: int, fine: tuple[int, int]) -> None:
    """Reference: loops over coarse tokens and kernel places; sums stay."""
    weight = np.random.default_rng(0).normal(size=(5, 3, side, side))
    matrix = merged(weight, stride, padding, fine)
    coarse = tuple((length + 2 * padding - side) // stride + 1 for length in fine)
    operator = merging(torch.from_numpy(weight), (stride, stride), (padding, padding), entered=fine)
    shares = torch.rand(2, 3, coarse[0] * coarse[1], dtype=torch.float64)
    found = operator.pull(shares, coarse).numpy()  # type: ignore[arg-type]
    np.testing.assert_allclose(found, shares.numpy() @ matrix, atol=1e-12)
    np.testing.assert_allclose(found.sum(-1), shares.sum(-1).numpy())


def test_upsampling_back_equals_the_matrix() -> None:
    """Reference: the transpose of bilinear interpolation, one matrix per axis; sums stay."""
    pixels = torch.rand(2, 1, 16, 24, dtype=torch.float64)
    expected = bilinear(4, 16).T @ pixels[:, 0].numpy() @ bilinear(6, 24)
    np.testing.assert_allclose(
        upsampled_back(pixels, (4, 6))[:, 0].numpy(), expected.reshape(2, -1), atol=1e-12
    )


@pytest.mark.parametrize("share", [0.0, 0.6])
@pytest.mark.parametrize("fusion", ["mean", "max"])
def test_a_step_with_reduced_keys_equals_the_matrix(fusion: str, share: float) -> None:
    """Reference: (I + F U) / 2 in full, F's rows with sum 1 after discarding.

    A token's own cell is kept as the diagonal is.
    """
    grid, cells = (4, 6), (2, 3)
    heads = torch.randn(1, 2, 24, 6, dtype=torch.float64).softmax(-1)
    reduction = Reduction(grid=grid, cells=cells, ratio=(2, 2))
    fused = oracle.fused(heads[0].numpy(), fusion)
    own = reduction.own(torch.device("cpu")).numpy()
    for row in range(24):
        smallest = np.argsort(fused[row], kind="stable")[: int(share * 6)]
        fused[row, smallest[smallest != own[row]]] = 0
    mixing = (np.eye(24) + fused / fused.sum(1, keepdims=True) @ spreading(grid, cells, (2, 2))) / 2
    start = torch.rand(1, 2, 24, dtype=torch.float64)
    options = RolloutOptions(head_fusion=fusion, discard=share)  # type: ignore[arg-type]
    found = step(
        start,
        lambda begin, end: heads[:, :, begin:end],
        prefix=0,
        options=options,
        block=5,
        reduction=reduction,
    )
    np.testing.assert_allclose(found[0].numpy(), start[0].numpy() @ mixing, atol=1e-12)


def dense(model: Any, found: Any, starts: list[Array | None]) -> Array:
    """The whole rollout of one image by dense matrices, from the configuration of the model."""
    config, shares = model.config, None
    grids = [stage.grid for stage in found.stages]
    for index in reversed(range(4)):
        start = starts[index]
        shares = start if shares is None else shares if start is None else shares + start
        for record, _ in reversed(found.stages[index].layers):
            fused = oracle.attention(
                record.q[0].detach().double().numpy(), record.k[0].detach().double().numpy(), record.scale
            ).mean(0)
            ratio = config.sr_ratios[index]
            if ratio > 1:
                cells = (grids[index][0] // ratio, grids[index][1] // ratio)
                fused = fused @ spreading(grids[index], cells, (ratio, ratio))
            assert shares is not None
            shares = (shares + shares @ fused) / 2
        if index:
            weight = model.segformer.stages[index].patch_embeddings.proj.weight.detach().double().numpy()
            stride, padding = config.strides[index], config.patch_sizes[index] // 2
            assert shares is not None
            shares = shares @ merged(weight, stride, padding, grids[index - 1])
    assert shares is not None
    return shares


def test_rollout_of_the_classifier_equals_dense_matrices() -> None:
    """Reference: matrices from SegFormer's configuration; the head averages the last stage."""
    model, images = make("segformer classifier")
    with undisturbed(model):
        found = capture(model, images[:1], gradient=True)
    assert [stage.grid for stage in found.stages] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    expected = dense(model, found, [None, None, None, np.full(6, 1 / 6)])
    tokens = explain(model, images[:1], method="rollout").tokens[0, 0]
    np.testing.assert_allclose(tokens.numpy().ravel(), expected, atol=1e-6)
    assert tokens.sum() == pytest.approx(1.0, abs=1e-5)


def test_rollout_of_the_segmenter_starts_with_the_pixels_pulled_back_through_the_decoder() -> None:
    """Reference: bilinear matrices, and each stage's share by the energy of its map through the 1 x 1
    convolution, last stage first."""
    model, images = make("segformer segmenter")
    region = torch.zeros(64, 96)
    region[8:24, 40:80] = 1.0
    with undisturbed(model):
        found = capture(model, images[:1], gradient=True)
    head = model.decode_head
    mixing = head.linear_fuse.weight.detach().double().numpy()[:, :, 0, 0]
    maps = [
        mixing[:, (3 - i) * 16 : (4 - i) * 16]
        @ head.linear_projections[i].proj.weight.detach().double().numpy()
        for i in range(4)
    ]
    energy = np.array([(one**2).sum() for one in maps])
    pixels = np.zeros((16, 24))
    pixels[2:6, 10:20] = 1 / 40
    starts = [
        (bilinear(rows, 16).T @ pixels @ bilinear(columns, 24)).ravel() * share
        for (rows, columns), share in zip(
            [(16, 24), (8, 12), (4, 6), (2, 3)], energy / energy.sum(), strict=True
        )
    ]
    expected = dense(model, found, starts)
    result = explain(model, images[:1], target=2, method="rollout", region=region)
    np.testing.assert_allclose(result.tokens[0, 0].numpy().ravel(), expected, atol=1e-6)
    logits = found.logits.detach()[0, 2, 2:6, 10:20]
    torch.testing.assert_close(result.scores[0, 0], logits.mean())


def test_a_segmenters_class_is_explained_over_the_pixels_that_it_wins() -> None:
    """The score is the mean logit over the argmax region; by default the class with most pixels.

    A batch equals single calls.
    """
    model, images = make("segformer segmenter")
    logits = model(images).logits.detach()
    won = logits.argmax(1)
    found = explain(model, images, method="gradient_rollout")
    for image in range(2):
        common = int(won[image].flatten().mode().values)
        assert found.targets[image, 0] == common
        torch.testing.assert_close(found.scores[image, 0], logits[image, common][won[image] == common].mean())
        alone = explain(model, images[image], target=common, method="gradient_rollout")
        torch.testing.assert_close(alone.tokens[0], found.tokens[image], rtol=0, atol=1e-6)


def test_attention_of_one_layer_of_a_pyramid_keeps_its_mass() -> None:
    """Reference: the chosen layer's dense matrix between merging matrices."""
    model, images = make("segformer classifier")
    with undisturbed(model):
        found = capture(model, images[:1], gradient=True)
    found_map = explain(model, images[:1], method="attention", layer=3).tokens[0, 0].numpy().ravel()
    record, _ = found.stages[2].layers[0]
    weights = [
        stage.patch_embeddings.proj.weight.detach().double().numpy() for stage in model.segformer.stages
    ]
    shares = np.full(6, 1 / 6) @ merged(weights[3], 2, 1, (4, 6))
    whole = attention_rows(record, precise=True)(0, 24)[0].mean(0).numpy()
    shares = (
        shares
        @ whole
        @ spreading((4, 6), (2, 3), (2, 2))
        @ merged(weights[2], 2, 1, (8, 12))
        @ merged(weights[1], 2, 1, (16, 24))
    )
    np.testing.assert_allclose(found_map, shares, atol=1e-6)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [({"region": torch.zeros(64, 96)}, "no pixel"), ({"region": torch.ones(3, 64, 96)}, "must be a mask")],
)
def test_bad_regions_say_so(keywords: dict[str, Any], message: str) -> None:
    """An empty region and one of another batch."""
    model, images = make("segformer segmenter")
    with pytest.raises(UsageError, match=message):
        explain(model, images, target=1, **keywords)


def test_a_region_needs_a_segmenter() -> None:
    """A classifier has no pixels to choose."""
    model, images = make("vit")
    with pytest.raises(UsageError, match="segmenter"):
        explain(model, images, region=torch.ones(16, 24))


class OwnPyramid(nn.Module):
    """Two stages of this package's blocks, 6 x 4 and 3 x 2 tokens, as a model that takes a trace."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.first = Block(Attention(8, 2), Mlp(8, 16), width=8)
        self.merge = nn.Conv2d(8, 16, 2, stride=2)
        self.second = Block(Attention(16, 2), Mlp(16, 32), width=16)
        self.head = nn.Linear(16, 3)

    def forward(self, images: Tensor, *, trace: Trace = OFF) -> Tensor:
        """The logits."""
        tokens = self.stem(images).flatten(2).transpose(1, 2)
        tokens = self.first(tokens, trace=trace.inside("block00"))
        maps = self.merge(tokens.transpose(1, 2).unflatten(2, (6, 4)))
        tokens = self.second(maps.flatten(2).transpose(1, 2), trace=trace.inside("block01"))
        logits: Tensor = self.head(tokens.mean(1))
        return logits


class WithoutTrace(nn.Module):
    """The same for capture as somebody else's network."""

    def __init__(self, inner: OwnPyramid) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        """The logits."""
        logits: Tensor = self.inner(images)
        return logits


@pytest.mark.parametrize("method", ["rollout", "gradient_rollout", "presence"])
def test_an_own_pyramid_is_walked_through_its_stages(method: str) -> None:
    """Reference: the same network as a third-party one, whose stages are compared with SegFormer's
    elsewhere."""
    torch.manual_seed(0)
    model = OwnPyramid().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    images = torch.randn(2, 3, 24, 16)
    found, other = explain(model, images, method=method), explain(WithoutTrace(model), images, method=method)
    assert found.tokens.shape == (2, 1, 6, 4)
    assert found.tokens.abs().max() > 0
    torch.testing.assert_close(found.tokens, other.tokens, rtol=1e-5, atol=1e-7)
