"""Reusable scratch buffers.

A fresh tensor of some megabytes costs as much to map as to fill.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Scratch:
    """Tensors by name that are overwritten at their next use."""

    def __init__(self) -> None:
        self._flat: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], *, like: Tensor) -> Tensor:
        """A contiguous tensor of that shape, with the type and device of ``like`` and any contents."""
        count = math.prod(shape)
        flat = self._flat.get(name)
        if flat is None or flat.numel() < count or flat.dtype != like.dtype or flat.device != like.device:
            flat = self._flat[name] = torch.empty(count, dtype=like.dtype, device=like.device)
        return flat[:count].view(shape)
