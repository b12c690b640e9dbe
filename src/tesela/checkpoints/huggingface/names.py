"""Two-way names of tensors of Hugging Face's ViT (and hybrids), DeiT and DINOv2.

The names are those of the files on the hub, which transformers reads and writes in every version (in memory,
version 5 uses others). A model without a classifier ("bare") has the same names without the prefix.

Odd: DeiT's classifier without a teacher reads the class token alone, so its distillation token is a register
here. DINOv2's SwiGLU keeps gate and value in one matrix, in the order of ours. Its mask token and everybody's
pooler have no use here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tesela.checkpoints.huggingface.hybrid import bit_rules
from tesela.checkpoints.huggingface.segformer import segformer_table
from tesela.checkpoints.layout import REGISTERS, Fold, TensorTable
from tesela.checkpoints.rules import Rule, layer


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """A class of transformers.

    Attributes:
        model_type: of its config.json.
        prefix: of the body's names; empty for a bare model.
        head: ``classifier``, ``teacher`` (two of them), ``decoder`` or ``none``.
    """

    model_type: str
    prefix: str = ""
    head: Literal["classifier", "teacher", "decoder", "none"] = "none"


ARCHITECTURES = {
    "ViTForImageClassification": Architecture(model_type="vit", prefix="vit.", head="classifier"),
    "ViTModel": Architecture(model_type="vit"),
    "ViTHybridForImageClassification": Architecture(
        model_type="vit-hybrid", prefix="vit.", head="classifier"
    ),
    "ViTHybridModel": Architecture(model_type="vit-hybrid"),
    "DeiTForImageClassification": Architecture(model_type="deit", prefix="deit.", head="classifier"),
    "DeiTForImageClassificationWithTeacher": Architecture(model_type="deit", prefix="deit.", head="teacher"),
    "DeiTModel": Architecture(model_type="deit"),
    "Dinov2ForImageClassification": Architecture(model_type="dinov2", prefix="dinov2.", head="classifier"),
    "Dinov2Model": Architecture(model_type="dinov2"),
    "Dinov2WithRegistersForImageClassification": Architecture(
        model_type="dinov2_with_registers", prefix="dinov2_with_registers.", head="classifier"
    ),
    "Dinov2WithRegistersModel": Architecture(model_type="dinov2_with_registers"),
    "SegformerForSemanticSegmentation": Architecture(
        model_type="segformer", prefix="segformer.", head="decoder"
    ),
    "SegformerForImageClassification": Architecture(
        model_type="segformer", prefix="segformer.", head="classifier"
    ),
    "SegformerModel": Architecture(model_type="segformer"),
}


def huggingface_table(name: str, *, swiglu: bool = False, stages: int = 0) -> TensorTable:
    """The names of an architecture of ``ARCHITECTURES``.

    Args:
        name: the architecture.
        swiglu: DINOv2's gated MLP (its giant).
        stages: of a SegFormer, or of a hybrid's residual network.
    """
    kind = ARCHITECTURES[name]
    if kind.model_type == "segformer":
        return segformer_table(name, head=kind.head, prefix=kind.prefix, stages=stages)
    body = kind.prefix
    embeddings, block = f"{body}embeddings.", f"{body}encoder.layer.{{i}}."
    dino = kind.model_type.startswith("dinov2")
    fold = None
    rules = [
        *(
            bit_rules(embeddings, stages)
            if kind.model_type == "vit-hybrid"
            else layer("patches", f"{embeddings}patch_embeddings.projection")
        ),
        Rule(own="prefix.class_token", foreign=(f"{embeddings}cls_token",)),
        Rule(own="positions.table", foreign=(f"{embeddings}position_embeddings",)),
        *layer(
            "blocks.{i}.attention.qkv",
            *(f"{block}attention.attention.{part}" for part in ("query", "key", "value")),
        ),
        *layer("blocks.{i}.attention.out", f"{block}attention.output.dense"),
        *(_dino_block(block, swiglu=swiglu) if dino else _vit_block(block)),
        *layer("norm", f"{body}layernorm"),
    ]
    if kind.model_type == "dinov2_with_registers":
        rules.append(Rule(own="prefix.registers", foreign=(f"{embeddings}register_tokens",)))
    if kind.head == "teacher":
        rules.append(Rule(own="prefix.distillation_token", foreign=(f"{embeddings}distillation_token",)))
        rules += [
            *layer("head.linear", "cls_classifier"),
            *layer("head.distillation", "distillation_classifier"),
        ]
    elif kind.model_type == "deit":
        fold = Fold(
            tokens=((f"{embeddings}distillation_token", 1),),
            positions=f"{embeddings}position_embeddings",
            first=1,
        )
        rules.append(Rule(own="prefix.registers", foreign=(REGISTERS,)))
    if kind.head == "classifier":
        rules += layer("head.linear", "classifier")
    escaped = body.replace(".", r"\.")
    unused = (rf"{escaped}pooler\.dense\.(weight|bias)", rf"{escaped}embeddings\.mask_token")
    return TensorTable(program=name, rules=tuple(rules), unused=unused, fold=fold)


def _vit_block(block: str) -> list[Rule]:
    return [
        *layer("blocks.{i}.norm1", f"{block}layernorm_before"),
        *layer("blocks.{i}.norm2", f"{block}layernorm_after"),
        *layer("blocks.{i}.mlp.expand", f"{block}intermediate.dense"),
        *layer("blocks.{i}.mlp.contract", f"{block}output.dense"),
    ]


def _dino_block(block: str, *, swiglu: bool) -> list[Rule]:
    expand, contract = ("weights_in", "weights_out") if swiglu else ("fc1", "fc2")
    return [
        *layer("blocks.{i}.norm1", f"{block}norm1"),
        *layer("blocks.{i}.norm2", f"{block}norm2"),
        *layer("blocks.{i}.mlp.expand", f"{block}mlp.{expand}"),
        *layer("blocks.{i}.mlp.contract", f"{block}mlp.{contract}"),
        Rule(own="blocks.{i}.scale1.gamma", foreign=(f"{block}layer_scale1.lambda1",)),
        Rule(own="blocks.{i}.scale2.gamma", foreign=(f"{block}layer_scale2.lambda1",)),
    ]


def bare(name: str) -> str:
    """The architecture without its classifier."""
    kind = ARCHITECTURES[name]
    return next(
        other
        for other, found in ARCHITECTURES.items()
        if found.model_type == kind.model_type and found.head == "none"
    )
