"""An exponential moving average of what training changes: weights and buffers.

Odd: the decay warms up as min(decay, (1 + n) / (10 + n)) over the first updates n, so that a short run is not
averaged with its random start. What training leaves alone is shared with the trained model and costs neither
time nor memory. Counters (whole numbers, such as BatchNorm's) are copied.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tesela.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class EmaConfig:
    """Moving average of the weights."""

    decay: float = 0.0
    """Share of the average that each step keeps, such as 0.999; 0 turns it off. The average is what is
    validated and shipped."""
    every: int = 1
    """Steps between two updates."""

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ConfigError(
                f"ema.decay must lie in 0..1, not {self.decay}", hint="0.999 is usual, 0 turns it off"
            )
        if self.every < 1:
            raise ConfigError(
                f"ema.every must be at least 1, not {self.every}", hint="give a number of steps"
            )


class Ema:
    """The average of one model over its steps.

    Args:
        model: what is trained.
        config: decay and interval.
        changing: names of the tensors that training changes; all of them if None.
    """

    def __init__(
        self, model: nn.Module, config: EmaConfig, *, changing: Collection[str] | None = None
    ) -> None:
        self._config = config
        self._updates = 0
        self._names = [name for name in model.state_dict() if changing is None or name in changing]
        #: The averaged model.
        self.model = _copied(model, set(self._names))

    def update(self, model: nn.Module, *, step: int) -> None:
        """Take in the weights after ``step`` steps."""
        import torch

        from tesela.hardware.distributed import local_part
        from tesela.hardware.torch_private import lerp_all_

        if step % self._config.every:
            return
        averaged, current = (
            {name: local_part(tensor) for name, tensor in one.state_dict().items()}
            for one in (self.model, model)
        )
        blended = [name for name in self._names if self._updates and averaged[name].is_floating_point()]
        decay = min(self._config.decay, (1 + self._updates) / (10 + self._updates))
        with torch.no_grad():
            if blended:
                lerp_all_(
                    [averaged[name] for name in blended], [current[name] for name in blended], 1 - decay
                )
            for name in set(self._names) - set(blended):
                averaged[name].copy_(current[name])
        self._updates += 1

    def state(self) -> dict[str, Any]:
        """Tensors and count, for a checkpoint."""
        from tesela.training.tuning.tuning import changing_tensors

        return {"updates": self._updates, "tensors": changing_tensors(self.model, self._names)}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what ``state`` gave."""
        from tesela.training.tuning.tuning import load_changing

        load_changing(self.model, state["tensors"], self._names)
        self._updates = state["updates"]


def _copied(model: nn.Module, changing: set[str]) -> nn.Module:
    """A copy of ``model`` that shares what does not change."""
    tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shared = {id(tensor): tensor for name, tensor in tensors.items() if name not in changing}
    return copy.deepcopy(model, memo=dict(shared))
