"""Outputs of a validation batch: embeddings, losses, and pictures on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PretextOutputs:
    """What a scorer is given.

    Attributes:
        embeddings: (B, D).
        losses: (B,) loss of each image; None where a method has none without its teacher.
        draw: pictures (H, W, C), uint8, of some rows of the batch, for a person.
    """

    embeddings: Tensor
    losses: Tensor | None
    draw: Callable[[list[int]], list[NDArray[np.uint8]]] | None
