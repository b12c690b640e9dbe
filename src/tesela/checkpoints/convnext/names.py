"""Names of the tensors of ConvNeXt in transformers and timm."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tesela.checkpoints.layout import TensorTable
from tesela.checkpoints.rules import Rule, layer


def _flat(parts: Sequence[Tensor]) -> Tensor:
    """A dense layer's weight (O, I), of which timm keeps some as a 1x1 convolution (O, I, 1, 1)."""
    return parts[0].flatten(1)


def _pointwise(tensor: Tensor, count: int) -> Sequence[Tensor]:  # noqa: ARG001
    return [tensor[:, :, None, None]]


def _vector(parts: Sequence[Tensor]) -> Tensor:
    """A vector (D), which transformers keeps as (1, 1, 1, D)."""
    return parts[0].flatten()


def timm_convnext_table(stages: int, *, convolutions: bool, head: bool) -> TensorTable:
    """The names of timm.

    Args:
        stages: how many.
        convolutions: whether the dense layers are kept as 1x1 convolutions.
        head: whether there is a classifier.
    """
    rules = [*layer("stages.0.patches", "stem.0"), *layer("stages.0.norm", "stem.1")]
    for stage in range(stages):
        own, theirs = f"stages.{stage}.", f"stages.{stage}."
        if stage:
            rules += layer(f"{own}norm", f"{theirs}downsample.0")
            rules += layer(f"{own}patches", f"{theirs}downsample.1")
        own, theirs = f"{own}blocks.{{i}}.", f"{theirs}blocks.{{i}}."
        rules += [
            *layer(f"{own}depthwise", f"{theirs}conv_dw"),
            *layer(f"{own}norm", f"{theirs}norm"),
            *_mlp(own, f"{theirs}mlp.fc1", f"{theirs}mlp.fc2", convolutions=convolutions),
            Rule(own=f"{own}mlp.norm.gamma", foreign=(f"{theirs}mlp.grn.weight",)),
            Rule(own=f"{own}mlp.norm.beta", foreign=(f"{theirs}mlp.grn.bias",)),
            Rule(own=f"{own}scale.gamma", foreign=(f"{theirs}gamma",)),
        ]
    rules += layer("pooled_norm", "head.norm")
    rules += layer("head.linear", "head.fc") if head else ()
    return TensorTable(program="timm", rules=tuple(rules), unused=(), fold=None)


def transformers_convnext_table(stages: int, prefix: str, *, head: bool) -> TensorTable:
    """The names of transformers' ``ConvNextForImageClassification`` and ``ConvNextV2...``.

    Args:
        stages: how many.
        prefix: of the body's names: ``convnext.``, ``convnextv2.``, or nothing where the body is alone.
        head: whether there is a classifier.
    """
    body = f"{prefix}encoder.stages."
    rules = [
        *layer("stages.0.patches", f"{prefix}embeddings.patch_embeddings"),
        *layer("stages.0.norm", f"{prefix}embeddings.layernorm"),
    ]
    for stage in range(stages):
        own = f"stages.{stage}."
        if stage:
            rules += layer(f"{own}norm", f"{body}{stage}.downsampling_layer.0")
            rules += layer(f"{own}patches", f"{body}{stage}.downsampling_layer.1")
        own, theirs = f"{own}blocks.{{i}}.", f"{body}{stage}.layers.{{i}}."
        rules += [
            *layer(f"{own}depthwise", f"{theirs}dwconv"),
            *layer(f"{own}norm", f"{theirs}layernorm"),
            *_mlp(own, f"{theirs}pwconv1", f"{theirs}pwconv2", convolutions=False),
            Rule(own=f"{own}mlp.norm.gamma", foreign=(f"{theirs}grn.weight",), join=_vector, split=_spread),
            Rule(own=f"{own}mlp.norm.beta", foreign=(f"{theirs}grn.bias",), join=_vector, split=_spread),
            Rule(own=f"{own}scale.gamma", foreign=(f"{theirs}layer_scale_parameter",)),
        ]
    rules += layer("pooled_norm", f"{prefix}layernorm")
    rules += layer("head.linear", "classifier") if head else ()
    return TensorTable(program="transformers", rules=tuple(rules), unused=(), fold=None)


def _spread(tensor: Tensor, count: int) -> Sequence[Tensor]:  # noqa: ARG001
    return [tensor[None, None, None]]


def _mlp(own: str, first: str, second: str, *, convolutions: bool) -> list[Rule]:
    rules = []
    for name, theirs in (("expand", first), ("contract", second)):
        rules += [
            Rule(own=f"{own}mlp.{name}.weight", foreign=(f"{theirs}.weight",), join=_flat, split=_pointwise)
            if convolutions
            else Rule(own=f"{own}mlp.{name}.weight", foreign=(f"{theirs}.weight",)),
            Rule(own=f"{own}mlp.{name}.bias", foreign=(f"{theirs}.bias",)),
        ]
    return rules
