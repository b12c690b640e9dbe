"""Masked patch prediction of the ViT paper (arXiv 2010.11929, appendix B.1.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tesela.core.errors import ConfigError
from tesela.data.batch import Batch
from tesela.tasks.objective import Draw
from tesela.tasks.pretraining.corruption import corrupted
from tesela.tasks.pretraining.objective import PatchPretext, at_places
from tesela.tasks.pretraining.patches import LEVELS, STEP, mean_colors, pixel_values, small_colors

#: Colours along each side of a patch with the target ``downsized``.
SIDE = 4


class MaskedPatches(PatchPretext):
    """Colours or pixels of corrupted patches, from their tokens after the last norm.

    The layer that predicts starts at zero, so the loss over 512 classes starts at ln 512.
    """

    def build(self, backbone: Any, generator: torch.Generator) -> None:
        """A mask token and one linear layer."""
        del backbone
        channels, area = self.spec.channels, self.patch[0] * self.patch[1]
        kind = self._config.mask_target
        if kind == "downsized" and (self.patch[0] % SIDE or self.patch[1] % SIDE):
            raise ConfigError(
                f"patches of {self.patch[0]} x {self.patch[1]} pixels have no {SIDE} x {SIDE} equal parts",
                hint="use objective.mask_target=color, or a model with patches of 4, 8, 16 or 32",
            )
        self.classes = LEVELS**channels
        outputs = {"color": self.classes, "downsized": SIDE * SIDE * self.classes}.get(kind, channels * area)
        self.mask_token = nn.Parameter(torch.empty(self.width))
        nn.init.normal_(self.mask_token, std=0.02, generator=generator)
        self.head = nn.Linear(self.width, outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def predict(self, model: nn.Module, batch: Batch, draw: Draw) -> tuple[Tensor, Tensor]:
        """Corrupted patches, and (B, m, K), (B, m, 16, K) or (B, m, pixels) of each."""
        rows, columns = self.grid_of(batch.images)
        patches = rows * columns
        change = corrupted(draw, batch.indices, patches, self.count(patches))
        features = model.backbone(  # type: ignore[operator]
            batch.images, corrupt=lambda tokens: change.apply(tokens, self.mask_token)
        )
        found = self.head(at_places(features.tokens[:, features.prefix :], change.places)).float()
        if self._config.mask_target == "downsized":
            found = found.view(*found.shape[:2], SIDE * SIDE, self.classes)
        return change.places, found

    def errors(self, images: Tensor, places: Tensor, predictions: Tensor) -> Tensor:
        """Cross-entropy over the colours, or the mean squared error over the pixels."""
        targets = at_places(self.targets(images), places)
        if self._config.mask_target == "pixels":
            return (predictions - targets).square().mean(2)
        found = F.cross_entropy(predictions.flatten(0, -2), targets.flatten(), reduction="none")
        return found.view(*places.shape, -1).mean(2)

    def targets(self, images: Tensor) -> Tensor:
        """(B, n) or (B, n, 16) classes, or (B, n, C * ph * pw) normalised pixels of all patches."""
        if self._config.mask_target == "pixels":
            return self.flat(images).float()
        values, grid = pixel_values(images, self.spec), self.grid_of(images)
        if self._config.mask_target == "color":
            return mean_colors(values, self.patch, grid)
        return small_colors(values, self.patch, grid, side=SIDE)

    def logs(self, images: Tensor, places: Tensor, predictions: Tensor) -> dict[str, Tensor]:
        """The share of colours that are right."""
        if self._config.mask_target == "pixels":
            return {}
        right = predictions.argmax(-1) == at_places(self.targets(images), places)
        return {"patch_accuracy": right.float().mean()}

    def painted(self, images: Tensor, places: Tensor, predictions: Tensor) -> Tensor:
        """Predicted pixels, or the middle of the likeliest colour over each patch or part of it."""
        del images, places
        height, width = self.patch
        if self._config.mask_target == "pixels":
            return self.colored(predictions)
        channels = self.spec.channels
        places_of = LEVELS ** torch.arange(channels - 1, -1, -1, device=predictions.device)
        likely = predictions.argmax(-1)
        colors = (likely[..., None] // places_of) % LEVELS * STEP + STEP // 2  # (B, m, C) or (B, m, 16, C)
        if self._config.mask_target == "color":
            return colors.repeat_interleave(height * width, dim=2).float()
        plane = colors.transpose(2, 3).reshape(*colors.shape[:2], channels, SIDE, SIDE)
        spread = plane.repeat_interleave(height // SIDE, 3).repeat_interleave(width // SIDE, 4)
        return spread.flatten(2).float()
