"""Walking through Swin's shifted windows, against attention between all places, spelled out with autograd."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from tesela.attribution.explain import explain
from tesela.models.factory import create_model
from tesela.models.segmenter.segmenter import Segmenter

SIZE = (14, 21)  # maps of 7 x 11 and 4 x 6, windows of 3: padded in both stages
SIZES: dict[str, Any] = {
    "widths": (8, 12),
    "depths": (2, 2),
    "heads": (2, 3),
    "windows": (3, 3),
    "patch": 2,
    "image_size": SIZE,
}


class Eager(NamedTuple):
    """A pass in float64: logits, and of each stage the attention (H, N, N) of its layers."""

    logits: Tensor
    attention: list[list[Tensor]]


def made(edges: str = "transformers", **changes: Any) -> Any:
    model: Any = create_model(
        "swin_nano_small", num_classes=3, seed=0, **(SIZES | {"edges": edges} | changes)
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(
                torch.randn(parameter.shape, generator=generator) * (1.0 if "table" in name else 0.3)
            )
    return model.eval()


def pictures() -> Tensor:
    return torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def axis_places(side: int, *, window: int, shift: int, edges: str) -> list[tuple[int, int, int]]:
    """Along an axis, each place after shift and padding: its token (-1 for padding), window and region."""
    padded = -(-side // window) * window
    moved = side if edges == "timm" else padded
    found = []
    for place in range(padded):
        token = (place + shift) % moved if place < moved else side
        region = (place >= padded - window) + (place >= padded - shift) if shift else 0
        found.append((token if token < side else -1, place // window, region))
    return found


def attend(
    block: Any, normed: Tensor, grid: tuple[int, int], shifted: bool, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Result (N, D) and attention (H, N, N) of tokens (N, D) among all places; keys weighted by ``mask``."""
    attention, edges = block.attention, block.attention.windows.edges
    shifts = [1 if shifted and side > 3 else 0 for side in grid]
    if edges == "transformers" and 0 in shifts:
        shifts = [0, 0]
    rows, columns = (
        axis_places(side, window=3, shift=shift, edges=edges)
        for side, shift in zip(grid, shifts, strict=True)
    )
    places = [(row, column) for row in range(len(rows)) for column in range(len(columns))]
    tokens = torch.tensor(
        [
            rows[row][0] * grid[1] + columns[column][0] if min(rows[row][0], columns[column][0]) >= 0 else -1
            for row, column in places
        ]
    )
    inside = tokens >= 0
    whole = normed.new_zeros(len(places), normed.shape[1])
    whole[inside] = normed[tokens[inside]]
    heads, width = attention.heads, attention.head_width
    q, k, v = attention.qkv(whole).view(-1, 3, heads, width).permute(1, 2, 0, 3)
    logits = q @ k.mT * width**-0.5
    bias = torch.full((heads, len(places), len(places)), -torch.inf, dtype=normed.dtype)
    for one, (row, column) in enumerate(places):
        for other, (down, right) in enumerate(places):
            if rows[row][1:] == rows[down][1:] and columns[column][1:] == columns[right][1:]:
                bias[:, one, other] = attention.table[(row - down + 2) * 5 + column - right + 2]
    seen = torch.ones(len(places), dtype=normed.dtype)
    seen = torch.where(inside, mask[tokens], seen)
    weights = (logits + bias + seen.log()).softmax(-1)
    result = attention.out((weights @ v).transpose(0, 1).flatten(1))
    order = torch.argsort(tokens[inside])
    only = weights[:, inside][:, :, inside]
    return result[inside][order], only[:, order][:, :, order]


def eager(model: Any, images: Tensor, masks: list[Tensor]) -> Eager:
    """Logits and attention of a classifier; ``masks`` are the presences of each stage's tokens."""
    body, grids = model.backbone, model.config.grids(SIZE)
    tokens, _ = body.stages[0].embed(images)
    kept = []
    for number, (stage, grid) in enumerate(zip(body.stages, grids, strict=True)):
        if number:
            tokens = stage.merging(tokens, grids[number - 1])
        layers = []
        for index, block in enumerate(stage.blocks):
            result, weights = attend(block, block.norm1(tokens)[0], grid, index % 2 == 1, masks[number])
            tokens = tokens + result
            tokens = tokens + block.mlp(block.norm2(tokens))
            layers.append(weights)
        kept.append(layers)
    last = body.norm(tokens)[0]
    pooled = (last * masks[-1][:, None]).sum(0) / masks[-1].sum()
    return Eager(model.head(pooled[None]), kept)


def pulled(model: Any, shares: Tensor, grids: list[tuple[int, int]]) -> Tensor:
    """Shares of the coarse grid handed to the tokens that were merged, by the energy of their weights."""
    merging = model.backbone.stages[1].merging
    weight = (merging.reduction.weight * merging.norm.weight).view(-1, 2, 2, shares.new_zeros(8).numel())
    energy = weight.square().sum((0, 3))  # (right, down): down runs faster
    (rows, columns), (fine_rows, fine_columns) = grids[1], grids[0]
    found = torch.zeros(fine_rows, fine_columns, dtype=shares.dtype)
    for row in range(rows):
        for column in range(columns):
            cells = [
                (2 * row + down, 2 * column + right, energy[right, down])
                for down in (0, 1)
                for right in (0, 1)
                if 2 * row + down < fine_rows and 2 * column + right < fine_columns
            ]
            total = sum(value for _, _, value in cells)
            for down, right, value in cells:
                found[down, right] += shares[row * columns + column] * value / total
    return found.flatten()


@pytest.mark.parametrize("edges", ["transformers", "timm"])
def test_logits_and_the_default_map_are_those_of_eager_attention(edges: str) -> None:
    """Presence is the gradient by masks on each stage's keys, and on the mean, pulled to the first grid."""
    model, images = made(edges), pictures()
    found = explain(model, images, 1, method="auto")
    assert found.method == "presence"
    model, images = model.double(), images.double()
    grids = model.config.grids(SIZE)
    masks = [torch.ones(rows * columns, dtype=torch.float64, requires_grad=True) for rows, columns in grids]
    result = eager(model, images, masks)
    torch.testing.assert_close(result.logits, model(images), rtol=1e-9, atol=1e-9)
    fine, coarse = torch.autograd.grad(result.logits[0, 1], masks)
    expected = (fine + pulled(model, coarse, grids)).view(1, 1, *grids[0]).detach()
    torch.testing.assert_close(found.tokens.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("edges", ["transformers", "timm"])
def test_rollout_walks_through_windows_at_their_places(edges: str) -> None:
    """Half of each token's share stays, half goes where its row of attention says; padding keeps its part."""
    model, images = made(edges), pictures()
    found = explain(model, images, method="rollout").tokens.double()
    model = model.double()
    grids = model.config.grids(SIZE)
    with torch.no_grad():
        masks = [torch.ones(rows * columns, dtype=torch.float64) for rows, columns in grids]
        layers = eager(model, images.double(), masks).attention
        shares = torch.full((len(masks[1]),), 1.0 / len(masks[1]), dtype=torch.float64)
        for weights in reversed(layers[1]):
            shares = 0.5 * shares + 0.5 * shares @ weights.mean(0)
        shares = pulled(model, shares, grids)
        for weights in reversed(layers[0]):
            shares = 0.5 * shares + 0.5 * shares @ weights.mean(0)
    torch.testing.assert_close(found.flatten(), shares, rtol=1e-5, atol=1e-7)
    assert 0.1 < found.sum() < 1.0


def test_one_layer_and_head_from_one_patch() -> None:
    """What a patch of the last map stands for, through the first block, whose windows are not shifted."""
    model, images = made("timm"), pictures()
    found = explain(model, images, method="attention", layer=0, head=1, patch=(0, 0)).tokens[0, 0]
    assert found[3:].abs().max() == 0 and found[:, 3:].abs().max() == 0
    model = model.double()
    grids = model.config.grids(SIZE)
    with torch.no_grad():
        masks = [torch.ones(rows * columns, dtype=torch.float64) for rows, columns in grids]
        weights = eager(model, images.double(), masks).attention[0][0][1]
        start = torch.zeros(len(masks[1]), dtype=torch.float64)
        start[0] = 1.0
        expected = pulled(model, start, grids) @ weights
    torch.testing.assert_close(found.flatten().double(), expected, rtol=1e-5, atol=1e-7)


def test_gradient_methods_see_no_row_of_attention_that_is_too_small() -> None:
    """A row whose only weights for a class are below the smallest float32 keeps its share."""
    model = made()
    with torch.no_grad():
        for stage in model.backbone.stages:
            for block in stage.blocks:
                block.attention.qkv.weight.mul_(12.0)
    for method in ("gradient_rollout", "relevance", "presence"):
        assert explain(model, pictures(), method=method).tokens.isfinite().all()


def test_a_segmenter_is_explained_in_a_region() -> None:
    """Each stage counts as the decoder reads it; what reaches the first map is on its windows' places."""
    model = Segmenter(made().backbone, num_classes=3, decoder={"name": "mlp", "width": 8})
    model.initialise(torch.Generator().manual_seed(0))
    region = torch.zeros(SIZE, dtype=torch.bool)
    region[:3, :3] = True
    found = explain(model.eval(), pictures(), 1, region=region).tokens[0, 0]
    assert found[:4, :4].sum() > found.sum() / 2 > 0
