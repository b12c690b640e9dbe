"""Masked autoencoder (He et al. 2022, arXiv 2111.06377).

The encoder sees the visible patches alone, which makes a step cheap. A small decoder gets their tokens and a
mask token for each hidden patch, with the sine and cosine positions of all, and predicts the hidden pixels,
each patch normalised by its own mean and deviation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tesela.core.errors import ConfigError
from tesela.data.batch import Batch
from tesela.layers.attention.attention import Attention
from tesela.layers.block import Block
from tesela.layers.initialise import initialise, xavier_uniform_
from tesela.layers.mlp import Mlp
from tesela.layers.position.embedding import SinCosPositions
from tesela.tasks.objective import Draw
from tesela.tasks.pretraining.corruption import chosen_patches
from tesela.tasks.pretraining.objective import PatchPretext, at_places

#: Width of a decoder's attention head, about; its MLP is this many times as wide as its tokens.
HEAD_WIDTH, MLP_RATIO = 32, 4
VARIANCE_EPS = 1e-6


class MaskedAutoencoder(PatchPretext):
    """Pixels of hidden patches from the visible ones, through a decoder that is thrown away afterwards."""

    def build(self, backbone: Any, generator: torch.Generator) -> None:
        """The decoder.

        Raises:
            ConfigError: the network's attention needs the whole grid, or the decoder's width does not fit.
        """
        kind = getattr(backbone.config, "attention", "full")
        if kind in ("axial", "local"):
            raise ConfigError(
                f"mae leaves holes in the grid that {kind} attention needs",
                hint="use attention full or wide, or objective.method=masked",
            )
        width = self._config.decoder_width or max(4, self.width // 2 // 4 * 4)
        if width % 4:
            raise ConfigError(
                f"decoder_width must be a multiple of 4, not {width}", hint=f"use {width // 4 * 4 + 4}"
            )
        heads = next(count for count in range(max(1, width // HEAD_WIDTH), 0, -1) if width % count == 0)
        self.enter = nn.Linear(self.width, width)
        self.mask_token = nn.Parameter(torch.empty(width))
        self.positions = SinCosPositions(width)
        self.blocks = nn.ModuleList(
            Block(Attention(width, heads), Mlp(width, MLP_RATIO * width), width=width)
            for _ in range(self._config.decoder_depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.leave = nn.Linear(width, self.spec.channels * self.patch[0] * self.patch[1])
        initialise(self, generator)
        for layer in (self.enter, self.leave):
            xavier_uniform_(layer, generator=generator)
        nn.init.normal_(self.mask_token, std=0.02, generator=generator)

    def predict(self, model: nn.Module, batch: Batch, draw: Draw) -> tuple[Tensor, Tensor]:
        """Hidden patches and (B, m, C * ph * pw) pixels of each."""
        images, grid = batch.images, self.grid_of(batch.images)
        patches = grid[0] * grid[1]
        order = chosen_patches(draw, batch.indices, patches, patches)
        hidden, seen = order[:, : self.count(patches)], order[:, self.count(patches) :]
        seen = seen.sort(dim=1).values
        features = model.backbone(images, kept=seen)  # type: ignore[operator]
        tokens = self.enter(features.tokens[:, features.prefix :])  # (B, n - m, D)
        table = self.positions.at(grid, device=tokens.device, dtype=tokens.dtype)[0]
        asked = self.mask_token.to(tokens.dtype) + table[hidden]
        tokens = torch.cat([tokens + table[seen], asked], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return hidden, self.leave(self.norm(tokens[:, -hidden.shape[1] :])).float()

    def errors(self, images: Tensor, places: Tensor, predictions: Tensor) -> Tensor:
        """The mean squared error over the pixels of each patch."""
        targets = at_places(self.flat(images), places).float()
        if self._config.pixel_norm:
            mean, deviation = statistics_of(targets)
            targets = (targets - mean) / deviation
        return (predictions - targets).square().mean(2)

    def painted(self, images: Tensor, places: Tensor, predictions: Tensor) -> Tensor:
        """Pixels, with the true mean and deviation of each patch where these were taken out."""
        if self._config.pixel_norm:
            mean, deviation = statistics_of(at_places(self.flat(images), places).float())
            predictions = predictions * deviation + mean
        return self.colored(predictions)


def statistics_of(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (B, m, 1) of the pixels of each patch (B, m, P), as in the authors' code."""
    if patches.shape[2] == 1:
        return patches, torch.ones_like(patches)
    variance = patches.var(dim=2, keepdim=True)
    return patches.mean(dim=2, keepdim=True), (variance + VARIANCE_EPS).sqrt()
