"""All tokens to one vector per image.

``class``: the class token; with a distillation token the mean of both, so that one head sees what DeiT's
two heads average. ``mean``: over the patches. ``class_mean``: the class token, then the mean, 2 D numbers
(the classifier of DINOv2, arXiv 2304.07193). ``sequence``: a weighted mean whose weights are a softmax of
one linear map per token (Hassani et al. 2021, arXiv 2104.05704). ``attention``: a learned query attends to
all tokens or to the patches alone, then a residual MLP (multi-head attention pooling of Zhai et al. 2022,
arXiv 2106.04560).

Odd: prefix tokens take no part in a mean and in ``sequence``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor, nn

from tesela.layers.attention.attention import attend
from tesela.layers.attention.kernels import HasKernel
from tesela.layers.initialise import xavier_uniform_
from tesela.layers.mlp import Mlp
from tesela.layers.norm import make_token_norm
from tesela.layers.trace import OFF, Trace


class Readout(NamedTuple):
    """Readout: the tokens of the last layer that a head reads.

    Attributes:
        how: ``first``: the mean of some first tokens, or each of them; ``mean`` of the patches;
            ``class_mean``: the class token and the mean side by side; ``weighted``: a mean with traced
            weights; ``attention``: a traced attention.
        tokens: number of first tokens, if it reads these alone; else 0.
    """

    how: Literal["first", "mean", "class_mean", "weighted", "attention"]
    tokens: int = 0

    @property
    def averages(self) -> bool:
        """Whether a mean over patches is computed."""
        return self.how in ("mean", "class_mean", "weighted")


class ClassPool(nn.Module):
    """The class token, or the mean of the first ``tokens`` tokens."""

    def __init__(self, tokens: int = 1) -> None:
        super().__init__()
        self.readout = Readout("first", tokens)

    def forward(self, tokens: Tensor, prefix: int, *, trace: Trace = OFF) -> Tensor:  # noqa: ARG002
        """(B, N, D) to (B, D)."""
        return trace(
            "", tokens[:, 0] if self.readout.tokens == 1 else tokens[:, : self.readout.tokens].mean(dim=1)
        )


class MeanPool(nn.Module):
    """The mean of the patch tokens."""

    readout = Readout("mean")

    def forward(self, tokens: Tensor, prefix: int, *, trace: Trace = OFF) -> Tensor:
        """(B, N, D) to (B, D)."""
        return trace("", tokens[:, prefix:].mean(dim=1))


class ClassMeanPool(nn.Module):
    """The class token, then the mean of the patch tokens."""

    readout = Readout("class_mean")

    def forward(self, tokens: Tensor, prefix: int, *, trace: Trace = OFF) -> Tensor:
        """(B, N, D) to (B, 2 D)."""
        return trace("", torch.cat([tokens[:, 0], tokens[:, prefix:].mean(dim=1)], dim=1))


class SequencePool(nn.Module):
    """A weighted mean of the patch tokens; the weights (B, 1, n) are traced as ``weights``."""

    readout = Readout("weighted")

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def reset(self, generator: Generator | None = None) -> None:
        """Xavier uniform weight, bias zero."""
        xavier_uniform_(self.score, generator=generator)

    def forward(self, tokens: Tensor, prefix: int, *, trace: Trace = OFF) -> Tensor:
        """(B, N, D) to (B, D)."""
        patches = tokens[:, prefix:]
        weights = trace("weights", self.score(patches).softmax(dim=1).transpose(1, 2))
        return trace("", (weights @ patches).squeeze(1))


class AttentionPool(HasKernel, nn.Module):
    """A learned query over all tokens or the patches, then a residual MLP.

    Args:
        width: D.
        heads: H.
        hidden: hidden width of the MLP.
        activation: of the MLP.
        norm_kind: of the norm before the MLP, ``layer`` or ``rms``.
        norm_eps: of that norm.
        with_prefix: whether the query attends to prefix tokens too.
    """

    readout = Readout("attention")

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        hidden: int,
        activation: str = "gelu",
        norm_kind: str = "layer",
        norm_eps: float = 1e-6,
        with_prefix: bool = True,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.with_prefix = with_prefix
        self.probe = nn.Parameter(torch.empty(1, 1, width))
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm = make_token_norm(norm_kind, width, eps=norm_eps)
        self.mlp = Mlp(width, hidden, activation=activation)

    def reset(self, generator: Generator | None = None) -> None:
        """Xavier uniform for the probe and each projection; biases zero."""
        width = self.probe.shape[-1]
        bound = (6.0 / (1 + width)) ** 0.5
        nn.init.uniform_(self.probe, -bound, bound, generator=generator)
        xavier_uniform_(self.q, generator=generator)
        xavier_uniform_(self.kv, generator=generator, fan_out=width)
        xavier_uniform_(self.out, generator=generator)

    def forward(self, tokens: Tensor, prefix: int, *, trace: Trace = OFF) -> Tensor:
        """(B, N, D) to (B, D)."""
        if not self.with_prefix:
            tokens = tokens[:, prefix:]
        batch, _, width = tokens.shape
        shape = (self.heads, width // self.heads)
        q = self.q(self.probe).expand(batch, -1, -1).unflatten(2, shape).transpose(1, 2)
        k, v = self.kv(tokens).unflatten(2, (2, *shape)).transpose(1, 3).unbind(2)
        result = attend(q, k, v, kernel=self.kernel)
        trace.inside("attention").attention(q, k, v, result, scale=shape[1] ** -0.5)
        pooled = self.out(result.transpose(1, 2).flatten(2))
        pooled = pooled + self.mlp(self.norm(pooled))
        return trace("", pooled.squeeze(1))
