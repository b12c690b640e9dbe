"""Input to an attribution method: model, captured forward pass, target, options."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tesela.attribution.capture.record import Capture
from tesela.attribution.methods.rollout import RolloutOptions
from tesela.attribution.question import Question
from tesela.core.errors import ConfigError, UsageError
from tesela.layers.trace import AttentionRecord

#: (B, T, Hp, Wp) values of patches, and (B, T) what stays on prefix tokens.
LogitsAndMaps = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Options of the methods other than rollouts."""

    patch: tuple[int, int] | None = None
    """Start at this (row, column) of the last layer's grid instead of where the head reads; rollouts,
    relevance and attention."""
    layer: int | None = None
    """Layer that attention and gradcam look at, counted from 0, or from the end if negative; None is the
    last."""
    head: int | None = None
    """Head that attention looks at; None fuses all."""
    samples: int | None = None
    """Points, noisy copies or masks; None is the method's own number."""
    seed: int = 0
    """Of noise and masks."""

    def __post_init__(self) -> None:
        if self.samples is not None and self.samples < 1:
            raise ConfigError(f"samples cannot be {self.samples}", hint="give a positive number")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Everything that a method needs to explain.

    Attributes:
        model: the classifier or segmenter, to be called inside ``undisturbed`` only.
        capture: what one forward pass left behind.
        question: the scores that are asked for.
        options: of the walk through layers.
        settings: of the other methods.
    """

    model: nn.Module
    capture: Capture
    question: Question
    options: RolloutOptions
    settings: Settings

    @property
    def shape(self) -> tuple[int, int]:
        """B and T."""
        return self.question.targets.shape[0], self.question.targets.shape[1]

    def scores(self) -> Tensor:
        """(B, T) of the captured pass, in its graph."""
        with torch.enable_grad():
            return self.question.scores(self.capture.logits)

    def starts(self) -> list[Tensor | None]:
        """For each stage, (B, 1 or T, N) shares in what is read of its last layer."""
        return self.capture.starts(
            fusion=self.options.head_fusion, patch=self.settings.patch, pixels=self.question.pixels
        )

    def layer(self) -> AttentionRecord:
        """The chosen layer.

        Raises:
            UsageError: there is none of that number.
        """
        layers, index = self.capture.layers, -1 if self.settings.layer is None else self.settings.layer
        if not -len(layers) <= index < len(layers):
            last = len(layers) - 1
            raise UsageError(
                f"there is no layer {index}, the model has {len(layers)}",
                hint=f"give 0 to {last}, or -1 for the last",
            )
        return layers[index]


def as_map(request: Request, shares: Tensor) -> LogitsAndMaps:
    """Shares (B, 1 or T, N) of all tokens as patches and prefix."""
    prefix, (images, several) = request.capture.prefix, request.shape
    shares = shares.expand(-1, several, -1)
    tokens = shares[..., prefix:].reshape(images, several, *request.capture.grid)
    return tokens.float(), shares[..., :prefix].sum(-1).float()
