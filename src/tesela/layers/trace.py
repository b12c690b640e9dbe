"""Named intermediate results, written down while a model runs.

``model(images)`` returns logits; ``model(images, trace=Trace())`` returns the same logits and fills the trace
with every step's tensor and, for each attention, its queries, keys, values and output. Attention maps are not
stored: they are recomputed from q and k by whoever wants them, so the fused kernel stays on. All tensors stay
in the autograd graph.

Odd: ``OFF`` is a trace too; it keeps nothing and costs one call that returns its argument. A subclass may
keep something else; all scopes share its attributes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionRecord:
    """One attention as it was computed: softmax(q kT * scale + bias) v = out.

    Attributes:
        name: the layer's name, such as ``block00.attention``.
        q: queries (B, H, N, d).
        k: keys (B, H, M, d).
        v: values (B, H, M, d).
        out: the result (B, H, N, d), in the autograd graph; with attention dropout, after it.
        scale: factor of the logits.
        bias: added to the scaled logits, broadcastable to (B, H, N, M), or None; -inf (or False) where a
            query does not see a key, as in axial attention and local windows.
        places: where attention ran within g windows of m places and B counts the windows of all images, those
            of an image together: (g, m), the number of each place's token in raster order, -1 where it is
            padding. None where N counts all tokens.
    """

    name: str
    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor
    scale: float
    bias: Tensor | None = None
    places: Tensor | None = None

    def dense(self) -> Tensor:
        """The whole attention matrix (B, H, N, M), whatever the layout.

        For small inputs, because it is as large as it says.

        Rows sum to 1 and ``dense() @ v`` is ``out`` where no dropout was.
        """
        logits = (self.q * self.scale) @ self.k.transpose(-2, -1)
        if self.bias is not None:
            logits = (
                logits.masked_fill(~self.bias, -torch.inf)
                if self.bias.dtype == torch.bool
                else logits + self.bias
            )
        return logits.softmax(dim=-1)


class Trace:
    """A book of intermediate results.

    Args:
        keep: which tensors to keep, by full name; all where it is None.
        attention: whether attentions are kept.

    Attributes:
        tensors: kept tensors by full name, in the order of computation.
        attentions: kept attentions by layer name, from input to output.
    """

    def __init__(self, *, keep: Callable[[str], bool] | None = None, attention: bool = True) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.attentions: dict[str, AttentionRecord] = {}
        self._keep = keep
        self._keep_attention = attention
        self._scope = ""

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        """Write ``tensor`` down under ``name`` in this scope and return it.

        An empty name is the scope itself.
        """
        full = f"{self._scope}.{name}".strip(".")
        if self._keep is None or self._keep(full):
            self.tensors[full] = tensor
        return tensor

    def inside(self, scope: str) -> Trace:
        """The same book, with ``scope.`` before every name."""
        inner = copy.copy(self)
        inner._scope = f"{self._scope}.{scope}".strip(".")
        return inner

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        *,
        scale: float,
        bias: Tensor | None = None,
        places: Tensor | None = None,
    ) -> None:
        """Write one attention down under the name of this scope."""
        if self._keep_attention:
            self.attentions[self._scope] = AttentionRecord(
                name=self._scope, q=q, k=k, v=v, out=out, scale=scale, bias=bias, places=places
            )


class _Off(Trace):
    """Keeps nothing."""

    def __call__(self, name: str, tensor: Tensor) -> Tensor:  # noqa: ARG002
        return tensor

    def inside(self, scope: str) -> Trace:  # noqa: ARG002
        return self

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        *,
        scale: float,
        bias: Tensor | None = None,
        places: Tensor | None = None,
    ) -> None:
        """Do nothing."""


OFF: Trace = _Off()
