"""Encoder block: attention and MLP, each in a residual branch (paper, equations 2 and 3).

Pre-norm (the paper): z' = MSA(LN(z)) + z, then MLP(LN(z')) + z'. Post-norm (Vaswani et al. 2017): LN(z +
MSA(z)), then LN(z' + MLP(z')). Branch norm (Liu et al. 2022, arXiv 2111.09883, section 3.2): z +
LN(MSA(z)), then z' + LN(MLP(z')). Parallel (Dehghani et al. 2023, arXiv 2302.05442, equation 1): with y =
LN(z), z + MSA(y) + MLP(y). Stochastic depth (Huang et al. 2016, arXiv 1603.09382) drops a whole
branch per image and scales the kept ones up, so that evaluation needs no correction. Layer scale (Touvron
et al. 2021, arXiv 2103.17239) multiplies each channel of a branch by a learned factor that starts small.
"""

from __future__ import annotations

from torch import Tensor, nn

from tesela.layers.attention.attention import Attention
from tesela.layers.layer_scale import LayerScale
from tesela.layers.mlp import Mlp, SwiGlu
from tesela.layers.norm import make_token_norm
from tesela.layers.token_layout import TokenLayout
from tesela.layers.trace import OFF, Trace


class DropPath(nn.Module):
    """Sets a branch to zero for a share of the images while training; identity otherwise."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """(B, ...) with whole images dropped."""
        if not self.training or self.rate == 0.0:
            return branch
        keep = branch.new_empty((branch.shape[0],) + (1,) * (branch.ndim - 1)).bernoulli_(1.0 - self.rate)
        return branch * (keep / (1.0 - self.rate))


class Block(nn.Module):
    """(B, N, D) to (B, N, D).

    Args:
        attention: the token mixer.
        mlp: the function of each token.
        width: D.
        norm: ``pre``, ``post``, ``branch`` or ``parallel``, which has one norm and one branch of both sums.
        norm_kind: ``layer`` or ``rms``.
        norm_eps: of both norms.
        drop_path: rate of stochastic depth of both branches.
        layer_scale: start value of the factors of both branches; 0 for none.
    """

    def __init__(
        self,
        attention: Attention,
        mlp: Mlp | SwiGlu,
        *,
        width: int,
        norm: str = "pre",
        norm_kind: str = "layer",
        norm_eps: float = 1e-6,
        drop_path: float = 0.0,
        layer_scale: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = make_token_norm(norm_kind, width, eps=norm_eps)
        self.attention = attention
        apart = norm != "parallel"
        self.norm2 = make_token_norm(norm_kind, width, eps=norm_eps) if apart else nn.Identity()
        self.mlp = mlp
        self.drop_path = DropPath(drop_path)
        self.scale1 = LayerScale(width, layer_scale) if layer_scale else nn.Identity()
        self.scale2 = LayerScale(width, layer_scale) if layer_scale and apart else nn.Identity()
        self.order = norm

    def forward(
        self,
        tokens: Tensor,
        *,
        first: int | None = None,
        layout: TokenLayout | None = None,
        trace: Trace = OFF,
    ) -> Tensor:
        """Both branches in the order of the config.

        Args:
            tokens: (B, N, D).
            first: how many of the first tokens somebody reads; the result then has these only, (B, first, D).
                None is all.
            layout: where the tokens stand, for an attention that asks; None is not handed on.
            trace: where the steps are written down.
        """
        steps = {"pre": self._pre, "post": self._post, "branch": self._branch, "parallel": self._parallel}
        return trace("", steps[self.order](tokens, first, layout, trace))

    def _pre(self, tokens: Tensor, first: int | None, layout: TokenLayout | None, trace: Trace) -> Tensor:
        normed = trace("norm1", self.norm1(tokens))
        mixed = self.scale1(self._mixed(normed, first, layout, trace))
        tokens = tokens[:, :first] + self.drop_path(mixed)
        normed = trace("norm2", self.norm2(tokens))
        branch: Tensor = self.drop_path(self.scale2(trace("mlp", self.mlp(normed))))
        return tokens + branch

    def _post(self, tokens: Tensor, first: int | None, layout: TokenLayout | None, trace: Trace) -> Tensor:
        mixed = self.scale1(self._mixed(tokens, first, layout, trace))
        tokens = trace("norm1", self.norm1(tokens[:, :first] + self.drop_path(mixed)))
        branch = self.scale2(trace("mlp", self.mlp(tokens)))
        return trace("norm2", self.norm2(tokens + self.drop_path(branch)))

    def _branch(self, tokens: Tensor, first: int | None, layout: TokenLayout | None, trace: Trace) -> Tensor:
        mixed = trace("norm1", self.norm1(self._mixed(tokens, first, layout, trace)))
        tokens = tokens[:, :first] + self.drop_path(self.scale1(mixed))
        branch = trace("norm2", self.norm2(trace("mlp", self.mlp(tokens))))
        scaled: Tensor = self.drop_path(self.scale2(branch))
        return tokens + scaled

    def _parallel(
        self, tokens: Tensor, first: int | None, layout: TokenLayout | None, trace: Trace
    ) -> Tensor:
        normed = trace("norm1", self.norm1(tokens))
        mixed = self._mixed(normed, first, layout, trace)
        branch = mixed + trace("mlp", self.mlp(normed[:, :first]))
        scaled: Tensor = self.drop_path(self.scale1(branch))
        return tokens[:, :first] + scaled

    def _mixed(self, tokens: Tensor, first: int | None, layout: TokenLayout | None, trace: Trace) -> Tensor:
        inside = trace.inside("attention")
        if layout is None:
            mixed: Tensor = self.attention(tokens, first=first, trace=inside)
        else:
            mixed = self.attention(tokens, first=first, layout=layout, trace=inside)
        return mixed
