"""An exponential moving average of weights and buffers, through PyTorch's AveragedModel.

Odd: the decay warms up as min(decay, (1 + n) / (10 + n)) over the first updates n, so that a short run is not averaged with its
random start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tesela.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True, slots=True)
class EmaConfig:
    """Moving average of the weights."""

    decay: float = 0.0
    """Share of the average that each step keeps, such as 0.999; 0 turns it off. The average is what is validated and shipped."""
    every: int = 1
    """Steps between two updates."""

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ConfigError(f"ema.decay must lie in 0..1, not {self.decay}", hint="0.999 is usual, 0 turns it off")
        if self.every < 1:
            raise ConfigError(f"ema.every must be at least 1, not {self.every}", hint="give a number of steps")


class Ema:
    """The average of one model over its steps."""

    def __init__(self, model: nn.Module, config: EmaConfig) -> None:
        from torch.optim.swa_utils import AveragedModel

        self._config = config
        self._updates = 0
        self._averaged = AveragedModel(model, multi_avg_fn=self._blend, use_buffers=True)

    @property
    def model(self) -> nn.Module:
        """The averaged model."""
        module: nn.Module = self._averaged.module
        return module

    def update(self, model: nn.Module, *, step: int) -> None:
        """Take in the weights after ``step`` steps."""
        if step % self._config.every == 0:
            self._averaged.update_parameters(model)
            self._updates += 1

    def state(self) -> dict[str, Any]:
        """Tensors and count, for a checkpoint."""
        return {"updates": self._updates, "tensors": self._averaged.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what ``state`` gave."""
        self._averaged.load_state_dict(state["tensors"])
        self._updates = state["updates"]

    def _blend(self, averaged: Any, current: Any, _: Any) -> None:
        from torch.optim.swa_utils import get_ema_multi_avg_fn

        decay = min(self._config.decay, (1 + self._updates) / (10 + self._updates))
        blend: Any = get_ema_multi_avg_fn
        blend(decay)(averaged, current, 0)
