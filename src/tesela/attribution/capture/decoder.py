"""Shares of the stages of a pyramid in a segmenter's decoder: the energy of its linear maps.

SegFormer's decoder maps each stage by a linear layer, upsamples, puts the last stage first and mixes all by a
1 x 1 convolution. Up to there it is linear, so a stage's share is the squared Frobenius norm of its whole
map, over the sum for all stages.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

#: Names under which the maps of the stages are known: transformers 5 and 4.
_STAGES = ("linear_projections", "linear_c")
_FUSE = "linear_fuse"


def decoder_shares(model: nn.Module, stages: int) -> tuple[float, ...]:
    """Shares with sum 1, the first stage first; equal ones where the decoder is another."""
    for module in model.modules():
        mixing = getattr(module, _FUSE, None)
        maps: Any = next((getattr(module, name) for name in _STAGES if hasattr(module, name)), None)
        if isinstance(mixing, nn.Conv2d) and isinstance(maps, nn.ModuleList) and len(maps) == stages:
            linear: list[Any] = [one.get_submodule("proj") for one in maps]
            return _energies(
                mixing.weight.detach().double().flatten(1), [one.weight.detach().double() for one in linear]
            )
    return (1.0 / stages,) * stages


def _energies(mixing: Tensor, maps: list[Tensor]) -> tuple[float, ...]:
    parts = mixing.chunk(len(maps), dim=1)[::-1]
    sizes = torch.stack([(part @ one).square().sum() for part, one in zip(parts, maps, strict=True)])
    return tuple((sizes / sizes.sum()).tolist())
