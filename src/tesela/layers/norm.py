"""Norms of feature maps (batch, arXiv 1502.03167; group, arXiv 1803.08494) and of tokens.

Maps are (B, C, H, W), tokens (..., D). Tokens are normalised by mean and variance (LayerNorm, arXiv
1607.06450) or by their root mean square alone (RMSNorm, arXiv 1910.07467).

A norm at the end of a residual branch may start with scale zero, so that a new unit is the identity and
deep networks start as shallow ones (Goyal et al. 2017, arXiv 1706.02677, section 5.1).

Odd: nothing is drawn at random; ``reset_parameters`` is what ``initialise`` calls.
"""

from __future__ import annotations

from torch import Tensor, nn

from tesela.hardware.distributed import is_shared, total

EPS = 1e-5


class BatchNorm(nn.BatchNorm2d):
    """Mean and variance of the batch while training, running ones afterwards.

    Where a batch lies on several ranks, those of all of it.

    Args:
        width: C.
        zero: start with scale zero instead of one.
        eps: added to the variance.
    """

    start: float = 1.0

    def __init__(self, width: int, *, zero: bool = False, eps: float = EPS) -> None:
        super().__init__(width, eps=eps)
        self.start = 0.0 if zero else 1.0

    def reset_parameters(self) -> None:
        """Scale as it starts, shift zero, running mean zero and variance one."""
        super().reset_parameters()
        nn.init.constant_(self.weight, self.start)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W), normalised."""
        if not (self.training and is_shared()):
            return super().forward(maps)
        axes, values = (0, 2, 3), maps.float()
        count = total(values.new_tensor(float(maps.shape[0] * maps.shape[2] * maps.shape[3])))
        mean = total(values.sum(axes)) / count
        centred = values - mean[:, None, None]
        variance = total(centred.square().sum(axes)) / count
        self._remember(mean.detach(), (variance * count / (count - 1)).detach())
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(maps.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var), self.momentum)


class GroupNorm(nn.GroupNorm):
    """Mean and variance of each image's groups of channels; no batch, no running values.

    Args:
        groups: how many.
        width: C, a multiple of the groups.
        zero: start with scale zero instead of one.
        eps: added to the variance.
    """

    start: float = 1.0

    def __init__(self, groups: int, width: int, *, zero: bool = False, eps: float = EPS) -> None:
        super().__init__(groups, width, eps=eps)
        self.start = 0.0 if zero else 1.0

    def reset_parameters(self) -> None:
        """Scale as it starts, shift zero."""
        super().reset_parameters()
        nn.init.constant_(self.weight, self.start)


def make_norm(kind: str, width: int, *, groups: int = 32, zero: bool = False, eps: float = EPS) -> nn.Module:
    """The norm of that kind: ``batch`` or ``group``."""
    return (
        BatchNorm(width, zero=zero, eps=eps)
        if kind == "batch"
        else GroupNorm(groups, width, zero=zero, eps=eps)
    )


def make_token_norm(kind: str, width: int, *, eps: float) -> nn.Module:
    """The norm of tokens (..., D) of that kind: ``layer`` or ``rms``."""
    return nn.RMSNorm(width, eps=eps) if kind == "rms" else nn.LayerNorm(width, eps=eps)
