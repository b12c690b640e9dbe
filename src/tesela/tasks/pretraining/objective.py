"""Common part of the objectives that hide patches: checks, validation, pictures."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tesela.core.errors import ConfigError
from tesela.data.batch import Batch
from tesela.imaging.spec import ImageSpec
from tesela.layers.grid import Grid
from tesela.layers.patch import PatchEmbedding, unfold
from tesela.tasks.objective import Draw, Loss, Objective
from tesela.tasks.pretraining.config import PretrainConfig
from tesela.tasks.pretraining.outputs import PretextOutputs
from tesela.tasks.pretraining.patches import fold, pixel_values

#: Random numbers of a validation, so that each one hides the same patches.
FIXED = Draw(0, 0)
#: Grey of hidden patches in pictures.
HIDDEN = 128


class PatchPretext(Objective):
    """Something to predict of the patches that are hidden from the network.

    Args:
        config: of the task.
    """

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self._config = config

    def attach(self, model: nn.Module, spec: ImageSpec, *, seed: int) -> None:
        """Check that each token is one patch, and let the mean of the patches be the embedding.

        Raises:
            ConfigError: the network's tokens see each other before its blocks, or there are too few.
        """
        refuse_frozen(model)
        backbone: Any = model.backbone
        stem = getattr(backbone, "patches", None)
        if not isinstance(stem, PatchEmbedding):
            raise ConfigError(
                f"the method {self._config.method} hides patches, and this network's tokens are not patches",
                hint="use a ViT, such as vit_s16, or objective.method=dino",
            )
        if getattr(backbone.config, "patch_dropout", 0.0):
            raise ConfigError(
                f"patch_dropout leaves out patches that the method {self._config.method} asks for",
                hint="set it to 0",
            )
        rows, columns = backbone.grid(spec.size)
        if rows * columns < 2:
            raise ConfigError(
                "the image is a single patch, of which nothing can be hidden",
                hint="use a model with smaller patches, or larger images",
            )
        model.read_with("mean")  # type: ignore[operator]
        self.spec, self.patch, self.width = spec, stem.patch, int(backbone.config.token_width)
        self._untaught = getattr(backbone.config, "pool", None) == "class"
        self.build(backbone, torch.Generator().manual_seed(seed + 1))

    def notes(self) -> list[tuple[str, str]]:
        """A class token, which a fine-tuning would read."""
        text = "the class token, which hidden patches teach nothing and a fine-tuning reads all the same"
        return [("note", text)] if self._untaught else []

    @abstractmethod
    def build(self, backbone: Any, generator: torch.Generator) -> None:
        """Create the objective's own layers."""

    @abstractmethod
    def predict(self, model: nn.Module, batch: Batch, draw: Draw) -> tuple[Tensor, Tensor]:
        """(B, m) numbers of the patches that are asked for, and (B, m, ...) predictions, float32."""

    @abstractmethod
    def errors(self, images: Tensor, places: Tensor, predictions: Tensor) -> Tensor:
        """(B, m) loss of each prediction."""

    @abstractmethod
    def painted(self, images: Tensor, places: Tensor, predictions: Tensor) -> Tensor:
        """(B, m, C * ph * pw) pixels 0..255 of the predictions, for a picture."""

    def logs(self, images: Tensor, places: Tensor, predictions: Tensor) -> dict[str, Tensor]:
        """Further scalars to show; none by default."""
        del images, places, predictions
        return {}

    def loss(self, model: nn.Module, batch: Batch, draw: Draw) -> Loss:
        """The mean over the hidden patches."""
        places, predictions = self.predict(model, batch, draw)
        value = self.errors(batch.images, places, predictions).mean()
        with torch.no_grad():
            return Loss(value, self.logs(batch.images, places, predictions.detach()))

    def outputs(self, model: nn.Module, batch: Batch) -> PretextOutputs:
        """Embeddings of whole images, and the loss with the same patches hidden each time."""
        embeddings = model(batch.images)
        places, predictions = self.predict(model, batch, FIXED)
        losses = self.errors(batch.images, places, predictions).mean(1)

        def draw(rows: list[int]) -> list[NDArray[np.uint8]]:
            return self._pictures(batch.images[rows], places[rows], predictions[rows])

        return PretextOutputs(embeddings, losses, draw)

    def _pictures(self, images: Tensor, places: Tensor, predictions: Tensor) -> list[NDArray[np.uint8]]:
        """Image, what is left of it, and the same with predictions, side by side."""
        values, grid = pixel_values(images, self.spec), self.grid_of(images)
        patches = self.flat(values)
        at = places[..., None].expand(-1, -1, patches.shape[2])
        filled = self.painted(images, places, predictions).round().clamp(0, 255).to(patches.dtype)
        parts = [values] + [
            fold(patches.scatter(1, at, content), self.patch, grid)
            for content in (torch.full_like(filled, HIDDEN), filled)
        ]
        whole = torch.cat(parts, dim=3).permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()
        return list(whole)

    def colored(self, pixels: Tensor) -> Tensor:
        """Values 0..255 of normalised pixels (B, m, C * ph * pw)."""
        area = self.patch[0] * self.patch[1]
        mean, std = (
            torch.tensor(values, device=pixels.device).repeat_interleave(area)
            for values in (self.spec.mean, self.spec.std)
        )
        return (pixels * std + mean) * 255

    def grid_of(self, images: Tensor) -> Grid:
        """Rows and columns of patches."""
        return images.shape[2] // self.patch[0], images.shape[3] // self.patch[1]

    def flat(self, images: Tensor) -> Tensor:
        """(B, n, C * ph * pw) patches of images (B, C, H, W)."""
        return unfold(images, self.patch, self.grid_of(images))

    def count(self, patches: int) -> int:
        """How many of the patches are hidden: the share that was asked for, but one at least stays."""
        return min(max(round(patches * self._config.ratio), 1), patches - 1)


def at_places(values: Tensor, places: Tensor) -> Tensor:
    """Rows (B, m, ...) of values (B, n, ...) at places (B, m)."""
    index = places.view(*places.shape, *(1,) * (values.ndim - 2)).expand(-1, -1, *values.shape[2:])
    return values.gather(1, index)


def refuse_frozen(model: nn.Module) -> None:
    """Refuse a model of which nothing is trained.

    Raises:
        ConfigError: all its weights are frozen.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            "pre-training trains the body of a network, and all of it is frozen",
            hint="train all of it: tune=all",
        )
