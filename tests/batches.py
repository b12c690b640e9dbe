"""Batches made by hand for tests."""

from __future__ import annotations

import torch
from torch import Tensor

from tesela.data.batch import Batch


def batch_of(images: Tensor, targets: Tensor) -> Batch:
    """Images (B, ...) with targets (B, ...), numbered from 0."""
    return Batch(images=images, targets=targets, indices=torch.arange(len(images)))
