"""Predictions from some of the patches, whose positions stay the same.

Our encoders leave the tokens out (``dropped``): the sequence gets shorter, nothing is put in the place of
what is missing, and a pass over a quarter of the patches costs about a quarter. Where that cannot be done
(foreign models, networks without tokens, axial and local attention and decoders, which need a whole grid),
the patches' pixels are filled with the image's mean colour (``filled``).

Odd: tokens of a convolutional stem have seen their neighbours' pixels before they are dropped. The model
itself is not touched: a shallow copy shares its weights and differs in one module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tesela.attribution.capture.call import call
from tesela.hardware.torch_private import with_child
from tesela.layers.grid import Grid
from tesela.layers.patch_dropout import PatchDropout

#: Images with different patches that go through the model at once.
CHUNK = 64
How = Literal["dropped", "filled"]
PartialLogits = Callable[[Tensor, Tensor], Tensor]


class Chosen(PatchDropout):
    """Leaves the given patches, in evaluation too.

    Args:
        kept: (B, k), numbers of patches in raster order.
        prefix: tokens before the patches, which always stay.
    """

    def __init__(self, kept: Tensor, *, prefix: int) -> None:
        super().__init__(0.0, prefix=prefix)
        self.numbers = kept

    def choose(self, tokens: Tensor) -> Tensor | None:  # noqa: ARG002
        """The given patches."""
        return self.numbers


def masking_mode(model: nn.Module) -> How:
    """How patches are taken from this model."""
    stem = getattr(getattr(model, "backbone", None), "patch_dropout", None)
    whole = getattr(getattr(model, "config", None), "attention", None) in ("axial", "local")
    whole = whole or getattr(model, "whole_grid", False)
    return "dropped" if isinstance(stem, PatchDropout) and not whole else "filled"


def partial_logits(model: nn.Module, images: Tensor, kept: Tensor, grid: Grid) -> Tensor:
    """Logits (B, S, K) of images that show S choices of their patches each; call it inside ``undisturbed``.

    Args:
        model: a classifier.
        images: (B, C, H, W).
        kept: (B, S, k), numbers of the patches that are left, in raster order; k is at least 1.
        grid: rows and columns of patches.
    """
    batch, choices, _ = kept.shape
    one = _dropped if masking_mode(model) == "dropped" else _filled
    flat = kept.sort(dim=-1).values.flatten(0, 1)
    owner = torch.arange(batch, device=images.device).repeat_interleave(choices)
    with torch.no_grad():
        parts = [
            one(model, images[owner[at : at + CHUNK]], flat[at : at + CHUNK], grid)
            for at in range(0, len(flat), CHUNK)
        ]
    return torch.unflatten(torch.cat(parts).float(), 0, (batch, choices))


def _dropped(model: nn.Module, images: Tensor, kept: Tensor, grid: Grid) -> Tensor:  # noqa: ARG001
    backbone: Any = model.backbone
    chosen = Chosen(kept, prefix=backbone.patch_dropout.prefix)
    return call(with_child(model, "backbone", with_child(backbone, "patch_dropout", chosen)), images)


def _filled(model: nn.Module, images: Tensor, kept: Tensor, grid: Grid) -> Tensor:
    seen = torch.zeros(len(images), grid[0] * grid[1], device=images.device, dtype=images.dtype).scatter_(
        1, kept, 1.0
    )
    mask = F.interpolate(seen.view(-1, 1, *grid), size=images.shape[2:], mode="nearest-exact")
    mean = images.mean(dim=(2, 3), keepdim=True)
    return call(model, torch.where(mask > 0, images, mean))
