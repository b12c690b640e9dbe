"""Models with a known answer.

A ViT whose weights are set by hand so that each class's logit comes from one patch.

A patch of pure red, green or blue is evidence of class 0, 1 or 2; all others are grey noise. One hop:
somewhere in the network one head lets the class token look for coloured patches and copy their colour to
where the head reads. Two hops: four patches with a chequered pattern look for colour in one layer, and the
class token looks for the chequered ones in a later layer; it never sees the coloured patch itself. Every
image has evidence of two classes, so a map that knows no class is right half of the time at best.

All other heads look at random places and copy nothing, so that the logit depends on nothing else.
Odd: two entries of every token hold a large constant, so that LayerNorm scales all tokens about alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tesela.layers.grid import Grid
from tesela.models.factory import create_model

CLASSES, PATCH, RELAYS = 3, 4, 4
WIDTH, HEADS, DEPTH = 24, 2, 4
#: Entries of a token: colours, marks of the class token and of relays, the constants, and where results are
#: put.
COLOUR, CLASS_MARK, RELAY_MARK, CONSTANT, FIRST, SECOND = 0, 3, 6, 4, 8, 11
SHARPNESS, CONTRAST = 3.5, 2.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Planted:
    """A model, images, and the patch that each asked class comes from.

    Attributes:
        model: the classifier, in evaluation mode.
        images: (B, 3, H, W).
        targets: (B, 2), the two classes with evidence in each image; different images have different ones.
        truth: (B, 2), numbers of their patches in raster order.
        grid: rows and columns of patches.
    """

    model: nn.Module
    images: Tensor
    targets: Tensor
    truth: Tensor
    grid: Grid


def planted(*, hops: int, seed: int, images: int = 20, grid: Grid = (6, 8)) -> Planted:
    """A planted model and images for it.

    Args:
        hops: 1 or 2, attention steps from the coloured patch to the class token.
        seed: of layers, heads, noise and images.
        images: how many.
        grid: rows and columns of patches.
    """
    draw = torch.Generator().manual_seed(seed)
    size = grid[0] * PATCH, grid[1] * PATCH
    model: Any = create_model(
        "vit_ti16",
        num_classes=CLASSES,
        image_size=size,
        seed=seed,
        width=WIDTH,
        depth=DEPTH,
        heads=HEADS,
        patch_size=(PATCH, PATCH),
    )
    with torch.no_grad():
        _empty(model, draw)
        layers = torch.randperm(DEPTH, generator=draw)[:hops].sort().values.tolist()
        heads = torch.randint(HEADS, (hops,), generator=draw).tolist()
        if hops == 1:
            _copy(
                model.backbone.blocks[layers[0]].attention,
                heads[0],
                asks=CLASS_MARK,
                seeks=[0, 1, 2],
                reads=COLOUR,
                writes=FIRST,
            )
        else:
            _copy(
                model.backbone.blocks[layers[0]].attention,
                heads[0],
                asks=RELAY_MARK,
                seeks=[0, 1, 2],
                reads=COLOUR,
                writes=FIRST,
            )
            _copy(
                model.backbone.blocks[layers[1]].attention,
                heads[1],
                asks=CLASS_MARK,
                seeks=[RELAY_MARK],
                reads=FIRST,
                writes=SECOND,
            )
        for index in range(CLASSES):
            model.head.linear.weight[index, (FIRST if hops == 1 else SECOND) + index] = 4.0
    return _with_images(model.eval(), draw, count=images, grid=grid)


def _empty(model: Any, draw: torch.Generator) -> None:
    """Random attention that copies nothing, norms that only norm, and an embedding of colour and pattern."""
    for name, parameter in model.named_parameters():
        parameter.zero_()
        if "norm" in name and name.endswith("weight"):
            parameter.fill_(1.0)
        if name.startswith(("patches.", "positions.")):
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.01)
        if name.endswith("qkv.weight"):
            queries_and_keys = parameter[: 2 * WIDTH]
            queries_and_keys.copy_(torch.randn(queries_and_keys.shape, generator=draw) * 0.3)
    pattern = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(PATCH // 2, PATCH // 2)
    model.backbone.patches.weight[RELAY_MARK] += pattern / (3 * PATCH**2)
    for channel in range(CLASSES):
        model.backbone.patches.weight[COLOUR + channel, channel] += 1 / PATCH**2
    for token in (model.backbone.patches.bias, model.backbone.prefix.class_token[0, 0]):
        token[CONSTANT], token[CONSTANT + 1] = 6.0, -6.0
    model.backbone.prefix.class_token[0, 0, CLASS_MARK] = CONTRAST


def _copy(attention: Any, head: int, *, asks: int, seeks: list[int], reads: int, writes: int) -> None:
    """Let tokens with entry ``asks`` look for tokens with one of ``seeks`` and add three entries of theirs
    to their own."""
    inner, first = HEADS * attention.head_width, head * attention.head_width
    weight = attention.qkv.weight
    for part in (0, inner):
        weight[part + first : part + first + attention.head_width] = 0.0
    weight[first, asks] = SHARPNESS
    for entry in seeks:
        weight[inner + first, entry] = SHARPNESS
    for index in range(CLASSES):
        weight[2 * inner + first + index, reads + index] = 1.0
        attention.out.weight[writes + index, first + index] = 1.0


def _with_images(model: nn.Module, draw: torch.Generator, *, count: int, grid: Grid) -> Planted:
    """Noise with two coloured patches and four chequered ones, all in different places."""
    pixels = torch.randn(count, 3, *grid, PATCH, PATCH, generator=draw) * 0.3
    pattern = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(PATCH // 2, PATCH // 2)
    targets, truth = torch.zeros(count, 2, dtype=torch.long), torch.zeros(count, 2, dtype=torch.long)
    for index in range(count):
        places = torch.randperm(grid[0] * grid[1], generator=draw)[: 2 + RELAYS]
        targets[index] = torch.randperm(CLASSES, generator=draw)[:2]
        truth[index] = places[:2]
        for number, place in enumerate(places.tolist()):
            row, column = divmod(place, grid[1])
            if number < 2:
                pixels[index, targets[index, number], row, column] += CONTRAST
            else:
                pixels[index, :, row, column] += CONTRAST * pattern
    images = pixels.permute(0, 1, 2, 4, 3, 5).reshape(count, 3, grid[0] * PATCH, grid[1] * PATCH)
    return Planted(model=model, images=images, targets=targets, truth=truth, grid=grid)


def hits(case: Planted, method: str, **options: Any) -> tuple[int, int]:
    """How many maps of ``method`` have their highest patch where the asked class's evidence is, and how
    many maps there are."""
    from tesela.attribution.explain import explain

    found = explain(case.model, case.images, list(range(CLASSES)), method, **options)
    best = found.tokens.flatten(2).argmax(-1).cpu().gather(1, case.targets)
    return int((best == case.truth).sum()), case.truth.numel()
