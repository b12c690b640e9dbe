"""Grad-CAM on tokens (Selvaraju et al. 2017, arXiv 1610.02391, equations 1 and 2).

Channels are weighted by their mean gradient.

The mean is over the patches. The tokens are those that enter the attention of the chosen layer, after its
norm; by default the last layer's, because behind it a class token's patches have no gradient. What is not for
the class is zero; a map has sum 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tesela.attribution.methods.gradient_rollout import class_gradients
from tesela.attribution.methods.pyramid import descend
from tesela.attribution.request import LogitsAndMaps, Request
from tesela.core.errors import UsageError


def gradcam(request: Request) -> LogitsAndMaps:
    """Evidence for each class in the tokens of one layer.

    Raises:
        UsageError: there is no such layer, or its tokens are not known.
    """
    layer = request.layer()
    tokens = request.capture.entering.get(layer.name)
    if tokens is None:
        raise UsageError(
            f"the tokens that enter {layer.name!r} are not known",
            hint="use another layer, or gradient_rollout",
        )
    prefix = request.capture.prefix
    maps = [
        weighted(tokens, gradient, prefix=prefix)
        for (gradient,) in class_gradients(request.scores(), [tokens])
    ]
    shares = torch.stack(maps, dim=1).double()
    starts = [
        shares if any(layer is one for one, _ in stage.layers) else None for stage in request.capture.stages
    ]
    patches = descend(request.capture.stages, starts, lambda vectors, *_: vectors)
    total = patches.sum(-1, keepdim=True)
    patches = patches / total.masked_fill(total == 0, 1.0)
    return patches.reshape(*request.shape, *request.capture.grid).float(), patches.new_zeros(
        request.shape
    ).float()


def weighted(tokens: Tensor, gradient: Tensor, *, prefix: int) -> Tensor:
    """Positive part of patches (B, n) of tokens (B, N, D), channels weighted by the mean gradient."""
    channels = gradient[:, prefix:].mean(1)
    return torch.einsum("bnd,bd->bn", tokens[:, prefix:].detach(), channels).relu()
