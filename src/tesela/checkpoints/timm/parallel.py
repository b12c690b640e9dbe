"""Names of timm's ParallelScalingBlock, whose attention and MLP read one fused layer.

The fused layer's outputs are the MLP's hidden values, then queries, keys and values; where these have no
bias, the hidden values have one of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tesela.checkpoints.attention_order import AttentionOrder
from tesela.checkpoints.layout import Cut
from tesela.checkpoints.rules import Rule, layer
from tesela.core.errors import WeightsError

#: timm's name of the block, and the tensor that shows it.
PARALLEL, FUSED = "ParallelScalingBlock", "in_proj.weight"


def check_block(stated: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuse a kind of block other than what the tensors show.

    Args:
        stated: ``block_fn`` of the config or the architecture.
        tensors: of the checkpoint.

    Raises:
        WeightsError: both differ.
    """
    if (stated == PARALLEL) != (f"blocks.0.{FUSED}" in tensors):
        raise WeightsError(
            f"the config states block_fn={stated!r}, which the tensors do not fit",
            hint="use the config.json that came with the weights",
        )


def as_plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, and those of the first block under the names of a plain block too.

    Raises:
        WeightsError: the block is not whole.
    """
    block = "blocks.0."
    fused, contract = tensors[block + FUSED], tensors.get(f"{block}mlp_out_proj.weight")
    if contract is None or contract.ndim != 2 or contract.shape[1] >= len(fused):
        raise WeightsError(
            f"the checkpoint's blocks have {FUSED} without a fitting mlp_out_proj.weight",
            hint="give the checkpoint of a VisionTransformer with block_fn='ParallelScalingBlock'",
        )
    hidden = contract.shape[1]
    found = {"mlp.fc1.weight": fused[:hidden], "attn.qkv.weight": fused[hidden:], "mlp.fc2.weight": contract}
    names = {
        "attn.q_norm.weight": "q_norm.weight",
        "attn.proj.bias": "attn_out_proj.bias",
        "attn.qkv.bias": "in_proj.bias",
        "ls1.gamma": "ls.gamma",
    }
    found |= {plain: tensors[block + name] for plain, name in names.items() if block + name in tensors}
    return {**tensors, **{block + plain: tensor for plain, tensor in found.items()}}


def parallel_rules(fields: Mapping[str, Any]) -> list[Rule]:
    """The rules of a block; ``parallel_cuts`` gives their parts of the fused layer."""
    block, biased = "blocks.{i}.", bool(fields["qkv_bias"])
    own = f"{block}attention.qkv"
    order = AttentionOrder(heads=fields.get("heads", 1))
    hidden = f"{block}(hidden).bias" if biased else f"{block}mlp_bias"
    return [
        *layer(f"{block}norm1", f"{block}in_norm"),
        *order.rules(own, [f"{block}(qkv).weight"], [f"{block}(qkv).bias"] if biased else []),
        *layer(f"{block}attention.q_norm", f"{block}q_norm"),
        *layer(f"{block}attention.k_norm", f"{block}k_norm"),
        *layer(f"{block}attention.out", f"{block}attn_out_proj"),
        Rule(own=f"{block}mlp.expand.weight", foreign=(f"{block}(hidden).weight",)),
        Rule(own=f"{block}mlp.expand.bias", foreign=(hidden,)),
        *layer(f"{block}mlp.contract", f"{block}mlp_out_proj"),
        Rule(own=f"{block}scale1.gamma", foreign=(f"{block}ls.gamma",)),
    ]


def parallel_cuts(fields: Mapping[str, Any]) -> tuple[Cut, ...]:
    """The parts of the fused layers of all blocks."""
    width = int(fields["width"])
    shares = round(width * fields["mlp_ratio"]), 3 * width
    kinds = ("weight", "bias") if fields["qkv_bias"] else ("weight",)
    return tuple(
        Cut(
            name=f"blocks.{index}.in_proj.{kind}",
            parts=tuple(
                (f"blocks.{index}.({part}).{kind}", share)
                for part, share in zip(("hidden", "qkv"), shares, strict=True)
            ),
        )
        for index in range(fields["depth"])
        for kind in kinds
    )
