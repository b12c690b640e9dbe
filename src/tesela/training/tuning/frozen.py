"""Frozen backbone of a run that trains the head alone: placement, cost, batches."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch

from tesela.core.errors import ConfigError
from tesela.core.format import byte_size, duration
from tesela.core.progress import progress_bar
from tesela.data.augment.flips import views
from tesela.hardware.autocast import autocast
from tesela.models.classifier import Classifier
from tesela.models.model import Model
from tesela.runs.folder import Run
from tesela.training.choices import Choices
from tesela.training.config import TrainConfig
from tesela.training.tuning.features import FEATURE_BYTES, Body, FeatureLoader, HeadModel, head_input

if TYPE_CHECKING:
    from rich.console import Console

    from tesela.data.loader import Loader
    from tesela.imaging.spec import ImageSpec


class FrozenBody:
    """The frozen part of a model whose head alone is trained.

    Args:
        model: the whole model.
        spec: what it sees.
        config: of the run.
        device: where the model is.
        training: number of training images.
        validation: number of validation images.
    """

    def __init__(
        self,
        model: Model,
        spec: ImageSpec,
        config: TrainConfig,
        *,
        device: torch.device,
        training: int,
        validation: int,
    ) -> None:
        self.model, self.spec, self.config, self.device = model, spec, config, device
        #: The head, as a model of features.
        self.head = HeadModel(model.head)
        #: Images that pass the body, each view of one counted.
        self.passes = training * len(views(config.augment)) + validation

    @functools.cached_property
    def width(self) -> int:
        """Width of what the head reads."""
        image = torch.zeros(1, self.spec.channels, self.spec.height, self.spec.width, device=self.device)
        return head_input(self.model, image).shape[1]

    @property
    def bytes(self) -> int:
        """What the features take."""
        return 4 * self.width * self.passes

    def place(self) -> str:
        """Place of the features: ram, disk, or empty if they are not kept.

        Raises:
            ConfigError: they are asked for, and training sees more than an image and its flips.
        """
        wanted = self.config.tune_cache
        if self.config.tune != "head" or wanted == "none":
            return ""
        if not isinstance(self.model, Classifier):
            if wanted == "auto":
                return ""
            raise ConfigError(
                "features are kept for classifiers only, whose head reads one vector of an image",
                hint="use --tune-cache none",
            )
        if not self.config.augment.only_flips:
            if wanted == "auto":
                return ""
            raise ConfigError(
                "features can be kept only where images are at most flipped",
                hint="turn the augmentation off, or --tune-cache none",
            )
        return wanted if wanted != "auto" else "ram" if self.bytes <= FEATURE_BYTES else "disk"

    def seconds(self, choices: Choices) -> float:
        """What computing the features is thought to take."""
        return choices.feature_seconds * self.passes / choices.batch_size

    def text(self, choices: Choices, run: Run) -> str:
        """For the plan; empty where features are not kept."""
        if not choices.features:
            return ""
        count = len(views(self.config.augment))
        times = f"{count} views of each image pass" if count > 1 else "each image passes"
        where = "in memory" if choices.features == "ram" else f"in {run.features}"
        return (
            f"{times} the frozen body once, about {duration(self.seconds(choices))}; "
            f"{byte_size(self.bytes)} {where}"
        )

    def batches(
        self,
        loaders: dict[str, Loader],
        choices: Choices,
        run: Run,
        *,
        base: str | None,
        console: Console | None,
    ) -> dict[str, FeatureLoader]:
        """Batches of features in place of images, computed now unless the run folder has them.

        Args:
            loaders: of images, by split.
            choices: precision, kernel, batch size and place.
            run: its folder.
            base: digest of the body.
            console: where progress goes.

        Raises:
            StorageError: there is no room for them.
        """
        key = f"{base} {self.spec} {choices.precision} {choices.attention} {choices.batch_size}"
        body = Body(
            model=self.model,
            device=self.device,
            autocast=functools.partial(autocast, self.device, choices.precision),
            key=key,
        )
        found: dict[str, FeatureLoader] = {}
        for split, loader in loaders.items():
            training = split == "train"
            file = run.features / f"{split}.bin" if choices.features == "disk" else None
            augment = self.config.augment if training else None
            with progress_bar(console, f"features of {split}", len(loader.plain())) as bar:
                found[split] = FeatureLoader(
                    loader, body, width=self.width, augment=augment, shuffle=training, file=file, bar=bar
                )
            loader.close()
        return found
