"""Principal filters of the patch embedding (paper, figure 7 left).

The D x (C ph pw) weight's rows are centred and decomposed by SVD; the right singular vectors are patches. A
vector's sign is free: it is fixed so that the entry of largest size is positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tesela.core.errors import UsageError
from tesela.models.model import file_names

COUNT = 28


@dataclass(frozen=True, kw_only=True, slots=True)
class Filters:
    """Principal filters, the strongest first.

    Attributes:
        images: (m, C, ph, pw), unit vectors; m is 28 or what there is.
        variance: (m,), the share of the rows' variance along each.
        name: the weight they belong to.
    """

    images: Tensor
    variance: Tensor
    name: str


def principal_filters(model: nn.Module, *, count: int = COUNT) -> Filters:
    """The principal filters of the first layer that sees pixels.

    Raises:
        UsageError: no layer takes patches of an image.
    """
    channels = getattr(getattr(model, "config", None), "channels", None)
    seen = (channels,) if isinstance(channels, int) else (1, 3)
    for name, weight in file_names(model, dict(model.named_parameters())).items():
        if weight.ndim == 4 and weight.shape[1] in seen and weight[0, 0].numel() > 1:
            images, variance = decompose(weight, count=count)
            return Filters(images=images, variance=variance, name=name)
    raise UsageError(
        "this model has no layer that takes patches of an image",
        hint="give a model whose first layer is a convolution",
    )


def decompose(weight: Tensor, *, count: int = COUNT) -> tuple[Tensor, Tensor]:
    """Principal filters (m, C, ph, pw) of (D, C, ph, pw), and their shares of the variance (m,)."""
    rows = weight.detach().double().flatten(1).cpu()
    _, sizes, vectors = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    vectors = vectors * torch.where(largest < 0, -1.0, 1.0)
    power = sizes.square()
    share = power / power.sum().clamp(min=torch.finfo(power.dtype).tiny)
    return vectors[:count].reshape(-1, *weight.shape[1:]).float(), share[:count].float()
