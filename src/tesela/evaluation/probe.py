"""Probe of a frozen model: a linear classifier of its features."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

#: Weight of the squared weights beside the summed losses; scikit-learn's C is its inverse.
PROBE_L2 = 1.0
_MOST_STEPS = 1000


def linear_probe(
    features: NDArray[np.float64], targets: NDArray[np.int64], *, classes: int, l2: float = PROBE_L2
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Multinomial logistic regression: the minimum of summed cross-entropies + l2 / 2 |W|^2, by L-BFGS.

    Args:
        features: (N, D), best standardised.
        targets: (N,) class numbers.
        classes: K.
        l2: above 0; the intercept is free.

    Returns:
        weights (D, K) and intercept (K,), float64.
    """
    with torch.inference_mode(False), torch.enable_grad():  # an evaluation may call it
        return _minimum(torch.tensor(features), torch.tensor(targets), classes, l2)


def _minimum(
    inputs: Tensor, targets: Tensor, classes: int, l2: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    weights = torch.zeros(inputs.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weights, bias],
        max_iter=_MOST_STEPS,
        history_size=20,
        tolerance_grad=1e-6,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(inputs @ weights + bias, targets, reduction="sum")
        value = value + l2 / 2 * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call, unused-ignore]
    return weights.detach().numpy(), bias.detach().numpy()
