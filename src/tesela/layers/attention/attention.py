"""Multi-head self-attention (Vaswani et al. 2017), with ordinary or wide heads.

Ordinary heads share the width: d = D / H. A wide head keeps the full width, d = D, so that q, k and v map
D to H * D and the output maps back; article C counts its parameters so.

Queries and keys of each head may be normalised before they meet (arXiv 2302.05442), and the joined heads
before the output projection (arXiv 2110.09456).

Odd: q, k and v come from one matrix product and stay views of its result, (B, N, 3, H, d); nothing is
copied before the kernel (``project_apart`` is for graphs, whose engines would copy). The kernel is chosen by
name (``tesela.layers.attention.kernels``) and can be changed at any time.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Generator, Tensor, nn

from tesela.core.errors import UnknownNameError
from tesela.layers.attention.cpu_bf16 import Dense, applies, bf16_attention, dense
from tesela.layers.attention.kernels import KERNELS, HasKernel, Kernel
from tesela.layers.initialise import xavier_uniform_
from tesela.layers.token_layout import TokenLayout
from tesela.layers.trace import OFF, Trace


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    scale: float | None = None,
    kernel: str = "fused",
) -> Tensor:
    """softmax(q kT * scale + bias) v.

    Args:
        q: queries (B, H, N, d).
        k: keys (B, H, M, d).
        v: values (B, H, M, d).
        bias: added to the scaled logits, broadcastable to (B, H, N, M).
        dropout: share of attention weights set to zero; the caller gives 0 outside training.
        scale: factor of the logits; 1 / sqrt(d) if None.
        kernel: a name of ``tesela.layers.attention.kernels.KERNELS``.

    Returns:
        (B, H, N, d).
    """
    return _kernel(kernel)(q, k, v, bias, dropout, q.shape[-1] ** -0.5 if scale is None else scale)


def _kernel(name: str) -> Kernel:
    if name not in KERNELS:
        raise UnknownNameError("attention kernel", name, KERNELS)
    return KERNELS[name]


class Attention(HasKernel, nn.Module):
    """Self-attention of (B, N, D) to (B, N, D).

    Args:
        width: D.
        heads: H.
        wide: every head keeps the full width D instead of D / H.
        qkv_bias: whether the qkv projection has a bias.
        dropout: after the output projection.
        attention_dropout: on the attention weights.
        out_bias: whether the output projection has a bias.
        norms: makes a norm of a width.
        qk_norm: whether queries and keys of each head are normalised.
        inner_norm: whether the joined heads are.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        wide: bool = False,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        out_bias: bool = True,
        norms: Callable[[int], nn.Module] = nn.LayerNorm,
        qk_norm: bool = False,
        inner_norm: bool = False,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = width if wide else width // heads
        self.scale = self.head_width**-0.5
        self.apart = False
        self.attention_dropout = attention_dropout
        inner = heads * self.head_width
        self.qkv = Dense(width, 3 * inner, bias=qkv_bias)
        self.q_norm = norms(self.head_width) if qk_norm else nn.Identity()
        self.k_norm = norms(self.head_width) if qk_norm else nn.Identity()
        self.inner_norm = norms(inner) if inner_norm else nn.Identity()
        self.out = Dense(inner, width, bias=out_bias)
        self.dropout = nn.Dropout(dropout)

    def reset(self, generator: Generator | None = None) -> None:
        """Xavier uniform for each of q, k, v and the output; biases zero."""
        inner, width = self.out.in_features, self.out.out_features
        xavier_uniform_(self.qkv, generator=generator, fan_in=width, fan_out=inner)
        xavier_uniform_(self.out, generator=generator)

    def forward(
        self,
        tokens: Tensor,
        *,
        first: int | None = None,
        layout: TokenLayout | None = None,  # noqa: ARG002
        trace: Trace = OFF,
    ) -> Tensor:
        """Attention of all tokens to all tokens.

        Of the ``first`` ones only, to all, where the others' results have no reader.

        Where the tokens stand, ``layout``, does not matter here.
        """
        if first is None and trace is OFF and self._uses_bf16(tokens):
            joined: Tensor = self.out(bf16_attention(self.qkv(tokens), heads=self.heads, scale=self.scale))
            return trace("", self.dropout(joined))
        q, k, v = self.project(tokens) if first is None else self.project_first(tokens, first)
        dropout = self.attention_dropout if self.training else 0.0
        result = attend(q, k, v, dropout=dropout, scale=self.scale, kernel=self.kernel)
        trace.attention(q, k, v, result, scale=self.scale)
        return trace("", self.joined(result))

    def joined(self, result: Tensor) -> Tensor:
        """The heads' results (B, H, N, d) through the output projection, (B, N, D)."""
        mixed: Tensor = self.dropout(self.out(self.inner_norm(result.transpose(1, 2).flatten(2))))
        return mixed

    def _uses_bf16(self, tokens: Tensor) -> bool:
        plain = isinstance(self.q_norm, nn.Identity) and isinstance(self.inner_norm, nn.Identity)
        return plain and self.kernel == "cpu_bf16" and self.attention_dropout == 0 and applies(tokens)

    def project(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of (B, N, D), each (B, H, N, d), views of one tensor unless ``apart``."""
        if self.apart and self._has_rows():
            return self._project_rows(tokens, tokens)
        batch, count, _ = tokens.shape
        qkv: Tensor = self.qkv(tokens)
        q, k, v = qkv.view(batch, count, 3, self.heads, self.head_width).unbind(2)
        return self.q_norm(q.transpose(1, 2)), self.k_norm(k.transpose(1, 2)), v.transpose(1, 2)

    def project_first(self, tokens: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """As ``project``, with queries (B, H, first, d) of the first tokens only."""
        if self._has_rows():
            return self._project_rows(tokens[:, :first], tokens)
        q, k, v = self.project(tokens)
        return q[:, :, :first], k, v

    def _has_rows(self) -> bool:
        """Whether rows of the weight are all that a part of qkv needs.

        Another library's layer or hook may do more.
        """
        return isinstance(self.qkv, Dense) and self.qkv.is_its_weight()

    def _project_rows(self, asking: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of (B, M, D), keys and values of (B, N, D), each from its own rows of the weight."""
        inner = self.heads * self.head_width
        weight, bias = self.qkv.weight, self.qkv.bias

        def part(values: Tensor, begin: int, end: int) -> Tensor:
            rows_bias = None if bias is None else bias[begin:end]
            return dense(values, weight[begin:end], rows_bias, kernel=self.kernel)

        def heads(found: Tensor) -> Tensor:
            return found.view(*found.shape[:2], self.heads, self.head_width).transpose(1, 2)

        q = heads(part(asking, 0, inner))
        if self.apart:
            k, v = (heads(part(tokens, place * inner, (place + 1) * inner)) for place in (1, 2))
        else:
            rest = part(tokens, inner, 3 * inner).view(*tokens.shape[:2], 2, self.heads, self.head_width)
            k, v = (one.transpose(1, 2) for one in rest.unbind(2))
        return self.q_norm(q), self.k_norm(k), v


def project_apart(model: nn.Module) -> None:
    """Let every attention in ``model`` compute q, k and v by a matrix product each.

    For graphs: engines copy what PyTorch views.
    """
    for module in model.modules():
        if isinstance(module, Attention):
            module.apart = True


def set_attention_kernel(model: nn.Module, name: str) -> None:
    """Let every attention in ``model`` use the kernel of that name; ``cpu_bf16`` concerns dense layers too.

    Raises:
        UnknownNameError: there is no such kernel.
    """
    _kernel(name)
    for module in model.modules():
        if isinstance(module, HasKernel):
            module.kernel = name
