"""Interception of torch's functions, to see the attention of models without a trace.

These are timm's, transformers', torchvision's or anybody's.

A mode of this thread alone sees each call of ``scaled_dot_product_attention``, ``nn.MultiheadAttention``, and
softmax followed by a matrix product, which is attention written out. The fused kernel still does the work.
Who called is read off the call stack: the innermost module of the model. Records carry that module's path and
are put in the order in which the model holds its modules, whatever ran first.

Attention that is written out costs its maps. Where a library has a switch (``config._attn_implementation`` of
transformers, ``fused_attn`` of timm), the fused kernel is chosen for the call and the choice given back.

Odd: ``nn.MultiheadAttention`` runs as a copy of torch's function with one global name bound to our recorder,
because torch switches a mode off inside its own functions and a patched module would be seen by every thread.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tesela.attribution.capture.pooled import Pooled
from tesela.hardware.torch_private import with_globals
from tesela.layers.trace import AttentionRecord

_SOFTMAX = {F.softmax, torch.softmax, Tensor.softmax}
_PRODUCT = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm}
#: Functions through which a map of attention stays what it is.
_SAME = {
    Tensor.to,
    Tensor.type,
    Tensor.type_as,
    Tensor.float,
    Tensor.half,
    Tensor.bfloat16,
    Tensor.contiguous,
    F.dropout,
    torch.dropout,
}
_CONVOLUTION = {torch.conv2d}
_MEAN = {torch.mean, Tensor.mean}
_NORM = {F.layer_norm, torch.layer_norm, F.rms_norm, torch.rms_norm}
_FUSED = "sdpa"


@dataclass(frozen=True, kw_only=True, slots=True)
class StridedLayer:
    """A convolution over a grid, as it ran.

    Attributes:
        name: path of its module.
        weight: (D, C / groups, k, k).
        stride: in rows and columns.
        padding: in rows and columns.
        entered: rows and columns of what went in.
        left: of what came out.
        groups: 1 where all channels mix.
    """

    name: str
    weight: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]
    entered: tuple[int, int]
    left: tuple[int, int]
    groups: int


class Interception(TorchFunctionMode):
    """Writes attention down while a model runs inside it.

    Args:
        model: whose modules give the names.
        gradient: keep q, k, v and the output in their graph; else copies of q and k alone, and a graph only
            behind the last layer, which tells what the head reads.
        tail: the path of the last layer; the last module of the class that called first if None.

    Attributes:
        tail: the path behind which there is a graph.
        entering: (B, N, D) normalised tokens that entered each attention, with ``gradient``.
        pooled: the last mean over tokens behind the attentions, with ``gradient``.
        convolutions: those with a grid, in no order that means anything.
    """

    def __init__(self, model: nn.Module, *, gradient: bool, tail: str | None = None) -> None:
        super().__init__()
        self._model = model
        self._gradient = gradient
        self._paths = {
            id(module): (place, path) for place, (path, module) in enumerate(model.named_modules())
        }
        self._found: dict[tuple[int, int], AttentionRecord] = {}
        self._maps: dict[int, tuple[Tensor, Tensor]] = {}
        self._normed: Tensor | None = None
        self._store: Tensor | None = None
        self.tail = tail
        self.entering: dict[str, Tensor] = {}
        self.pooled: Pooled | None = None
        self.convolutions: list[StridedLayer] = []

    @property
    def records(self) -> list[AttentionRecord]:
        """All attentions in the order of the model's modules."""
        return [self._found[key] for key in sorted(self._found)]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func``, write down what it was if it belongs to attention."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            return self._heads(func, args, kwargs)
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor):
            return result
        if func in _SOFTMAX:
            self._softmax(result, args, kwargs)
        elif func in _SAME:
            if args and id(args[0]) in self._maps and result.shape == args[0].shape:
                self._maps[id(result)] = (result, self._maps[id(args[0])][1])
        elif func in _PRODUCT:
            return self._product(result, args)
        elif func is torch.einsum:
            return self._einsum(result, args)
        elif func in _CONVOLUTION:
            self._convolution(result, *args, **kwargs)
        elif func in _NORM and self._gradient and result.ndim == 3:
            self._normed = result
        elif func in _MEAN and self._gradient:
            self._mean(result, *args, **kwargs)
        return result

    # ---- fused

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """The fused kernel, and its record."""
        options: dict[str, Any] = {"enable_gqa": True} if enable_gqa else {}
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **options
        )
        if query.ndim != 4:
            return out
        bias = attn_mask
        if is_causal:
            bias = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
        if bias is not None:
            bias = bias[(None,) * (4 - bias.ndim)]
        if key.shape[1] != query.shape[1]:
            key, value = (
                part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in (key, value)
            )
        factor = query.shape[-1] ** -0.5 if scale is None else float(scale)
        return self._write(query, key, value, out, scale=factor, bias=bias)

    def _heads(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``nn.MultiheadAttention`` through the fused kernel.

        Averaged weights are computed apart where they are asked for.
        """
        if args[0].ndim == 2:
            return func(*args, **kwargs)
        names = func.__code__.co_varnames[: func.__code__.co_argcount]
        given = dict(zip(names, args, strict=False)) | kwargs
        wanted, average = given.get("need_weights", True), given.get("average_attn_weights", True)
        known = {"scaled_dot_product_attention": self._attend, "has_torch_function": lambda *_: False}
        inner = with_globals(func, known)
        before = set(self._found)
        out, _ = inner(**{**given, "need_weights": False})
        if not wanted:
            return out, None
        with torch.no_grad():
            weights = self._found[max(set(self._found) - before)].dense()
        return out, weights.mean(1) if average else weights

    # ---- written out

    def _softmax(self, result: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if result.ndim in (3, 4) and axis in (-1, result.ndim - 1):
            self._maps = {id(result): (result, args[0] if args else kwargs["input"])}

    def _product(self, result: Tensor, args: tuple[Any, ...]) -> Tensor:
        known = self._maps.pop(id(args[0]), None) if len(args) > 1 else None
        return (
            result
            if known is None or args[1].ndim != result.ndim
            else self._written(known[1], args[1], result)
        )

    def _einsum(self, result: Tensor, args: tuple[Any, ...]) -> Tensor:
        """``b h i j, b h j d -> b h i d``, by whatever letters."""
        terms = str(args[0]).replace(" ", "").replace("->", ",").split(",")
        operands = args[1] if len(args) == 2 and isinstance(args[1], (list, tuple)) else args[1:]
        if len(terms) != 3 or len(operands) != 2 or id(operands[0]) not in self._maps:
            return result
        first, second, last = terms
        if first[:-2] + first[-1] != second[:-1] or first[:-1] + second[-1] != last:
            return result
        return self._written(self._maps.pop(id(operands[0]))[1], operands[1], result)

    def _written(self, logits: Tensor, value: Tensor, out: Tensor) -> Tensor:
        """A record of softmax(logits) value = out: the logits are its bias, its queries and keys are zero."""
        if logits.ndim == 3:  # heads beside images, as torch's own attention lays them out: the images first
            heads = getattr(self._caller()[2], "num_heads", 1)
            parts = (torch.unflatten(part, 0, (-1, heads)) for part in (logits, value, out))
            return self._written(*parts).flatten(0, 1)
        nothing = logits.new_zeros(*logits.shape[:2], 1, 1)
        q, k = nothing.expand(-1, -1, logits.shape[2], -1), nothing.expand(-1, -1, logits.shape[3], -1)
        return self._write(q, k, value, out, scale=1.0, bias=logits)

    # ---- both

    def _write(
        self, q: Tensor, k: Tensor, v: Tensor, out: Tensor, *, scale: float, bias: Tensor | None
    ) -> Tensor:
        """Keep a record under the caller's path; the output as the model goes on with it."""
        place, path, module = self._caller()
        times = sum(known[0] == place for known in self._found)
        name = path if times == 0 else f"{path}#{times + 1}"
        if self.tail is None and not self._found and module is not None:
            self.tail = [one for one, other in self._model.named_modules() if type(other) is type(module)][-1]
        if self._gradient:
            if self._normed is not None and self._normed.shape[1] == q.shape[2]:
                self.entering[name] = self._normed
        else:
            q, k = self._kept(q, k, module)
            bias = None if bias is None else bias.detach()
            if path == self.tail:
                torch.set_grad_enabled(True)
                out = out.detach().requires_grad_()
            v = k
        kept = out if self._gradient or out.requires_grad else q
        self._found[place, times] = AttentionRecord(
            name=name, q=q, k=k, v=v, out=kept, scale=scale, bias=bias
        )
        return out

    def _kept(self, q: Tensor, k: Tensor, module: nn.Module | None) -> tuple[Tensor, Tensor]:
        """Copies in one piece of memory for all layers, which leaves no holes between freed tensors."""
        if self._store is None:
            alike = sum(type(one) is type(module) for one in self._model.modules())
            self._store = (
                q.new_empty((alike, 2, *q.shape)) if q.shape == k.shape else q.new_empty((0, 2, *q.shape))
            )
        place = len(self._found)
        if (
            q.shape != k.shape
            or q.shape != self._store.shape[2:]
            or q.dtype != self._store.dtype
            or place >= len(self._store)
        ):
            copies = [part.detach().clone(memory_format=torch.contiguous_format) for part in (q, k)]
            return copies[0], copies[1]
        self._store[place, 0], self._store[place, 1] = q.detach(), k.detach()
        return self._store[place, 0], self._store[place, 1]

    def _convolution(
        self,
        result: Tensor,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,  # noqa: ARG002
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,  # noqa: ARG002
        groups: int = 1,
    ) -> None:
        if result.ndim != 4 or isinstance(padding, str):
            return
        rows, columns = (one if isinstance(one, (tuple, list)) else (one, one) for one in (stride, padding))
        self.convolutions.append(
            StridedLayer(
                name=self._caller()[1],
                weight=weight.detach(),
                stride=(int(rows[0]), int(rows[-1])),
                padding=(int(columns[0]), int(columns[-1])),
                entered=(input.shape[2], input.shape[3]),
                left=(result.shape[2], result.shape[3]),
                groups=int(groups),
            )
        )

    def _mean(self, result: Tensor, input: Tensor, dim: Any = None, *_: Any, **__: Any) -> None:
        """Keep a mean of (B, n, D) over n."""
        if self._found and dim in (1, -2, (1,), [1]) and input.ndim == 3 and result.ndim == 2:
            self.pooled = Pooled(tokens=input, result=result)

    def _caller(self) -> tuple[int, str, nn.Module | None]:
        """Place, path and module of the innermost module on the call stack."""
        frame = sys._getframe(1)
        while frame is not None:
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and id(owner) in self._paths:
                return (*self._paths[id(owner)], owner)
            frame = frame.f_back  # type: ignore[assignment]
        return -1, "", None


@contextlib.contextmanager
def recording_fused(model: nn.Module) -> Iterator[None]:
    """Libraries' switches set to the fused kernel, and given back."""
    undo: list[Callable[[], None]] = []
    seen: set[int] = set()
    try:
        for module in model.modules():
            if getattr(module, "fused_attn", None) is False:
                undo.append(functools.partial(setattr, module, "fused_attn", False))
                setattr(module, "fused_attn", True)  # noqa: B010
            config = getattr(module, "config", None)
            chosen = getattr(config, "_attn_implementation", None)
            if (
                isinstance(chosen, str)
                and chosen != _FUSED
                and id(config) not in seen
                and getattr(module, "_supports_sdpa", False)
            ):
                seen.add(id(config))
                undo.append(functools.partial(setattr, config, "_attn_implementation_internal", chosen))
                config._attn_implementation_internal = _FUSED  # type: ignore[union-attr]
        yield
    finally:
        for step in undo:
            step()
