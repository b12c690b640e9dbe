"""Names of the tensors of TinyViT in timm.

Odd: query, key and value of a head stand together in its qkv projection; here those of all heads do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from tesela.checkpoints.layout import TensorTable
from tesela.checkpoints.rules import Rule, layer

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_STEPS = (("expand", "conv1"), ("depthwise", "conv2"), ("contract", "conv3"))


def tiny_vit_table(heads: Sequence[int], *, head: bool) -> TensorTable:
    """The rules of a network.

    Args:
        heads: of each stage but the first.
        head: whether there is a classifier.
    """
    rules: list[Rule] = []
    for own, theirs in (("stem1", "conv1"), ("stem2", "conv2")):
        rules += _normed(f"stages.0.{own}", f"patch_embed.{theirs}")
    for own, theirs in _STEPS:
        rules += _normed(f"stages.0.blocks.{{i}}.{own}", f"stages.0.blocks.{{i}}.{theirs}")
    for stage, count in enumerate(heads, 1):
        for own, theirs in _STEPS:
            rules += _normed(f"stages.{stage}.merging.{own}", f"stages.{stage}.downsample.{theirs}")
        block = f"stages.{stage}.blocks.{{i}}."
        rules += _normed(f"{block}local", f"{block}local_conv")
        rules += [
            *layer(f"{block}attention.norm", f"{block}attn.norm"),
            *(
                Rule(
                    own=f"{block}attention.qkv.{kind}",
                    foreign=(f"{block}attn.qkv.{kind}",),
                    join=_by_part(count),
                    split=_by_head(count),
                )
                for kind in ("weight", "bias")
            ),
            *layer(f"{block}attention.out", f"{block}attn.proj"),
            Rule(own=f"{block}attention.table", foreign=(f"{block}attn.attention_biases",)),
            *layer(f"{block}norm2", f"{block}mlp.norm"),
            *layer(f"{block}mlp.expand", f"{block}mlp.fc1"),
            *layer(f"{block}mlp.contract", f"{block}mlp.fc2"),
        ]
    rules += layer("pooled_norm", "head.norm")
    rules += layer("head.linear", "head.fc") if head else ()
    return TensorTable(program="timm", rules=tuple(rules), unused=(r".*\.attention_bias_idxs",))


def _normed(own: str, theirs: str) -> Iterator[Rule]:
    """The rules of a convolution without a bias, and of its BatchNorm."""
    yield Rule(own=f"{own}.conv.weight", foreign=(f"{theirs}.conv.weight",))
    for kind in _NORM:
        yield Rule(own=f"{own}.norm.{kind}", foreign=(f"{theirs}.bn.{kind}",))


def _by_part(heads: int) -> Callable[[Sequence[Tensor]], Tensor]:
    """Rows by head, then by query, key and value, to rows by the latter, then by head."""

    def join(parts: Sequence[Tensor]) -> Tensor:
        return torch.unflatten(parts[0], 0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)

    return join


def _by_head(heads: int) -> Callable[[Tensor, int], Sequence[Tensor]]:
    def split(tensor: Tensor, count: int) -> Sequence[Tensor]:  # noqa: ARG001
        return [torch.unflatten(tensor, 0, (3, heads, -1)).transpose(0, 1).flatten(0, 2)]

    return split
