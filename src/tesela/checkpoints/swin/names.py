"""Two-way tensor names of Swin in transformers, timm and the official code.

Odd: timm merges patches at the beginning of a stage, the others at the end of the one before.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from tesela.checkpoints.layout import TensorTable
from tesela.checkpoints.rules import Rule, layer

Program = Literal["transformers", "timm", "official"]


class _Names(NamedTuple):
    """Names within a program, of blocks relative to the block."""

    body: str
    patches: str
    patch_norm: str
    qkv: tuple[str, ...]
    out: str
    table: str
    norms: tuple[str, str]
    mlp: tuple[str, str]
    last_norm: str
    head: str


_TIMM = _Names(
    body="layers",
    patches="patch_embed.proj",
    patch_norm="patch_embed.norm",
    qkv=("attn.qkv",),
    out="attn.proj",
    table="attn.relative_position_bias_table",
    norms=("norm1", "norm2"),
    mlp=("mlp.fc1", "mlp.fc2"),
    last_norm="norm",
    head="head.fc",
)
_NAMES: dict[str, _Names] = {
    "timm": _TIMM,
    "official": _TIMM._replace(head="head"),
    "transformers": _Names(
        body="encoder.layers",
        patches="embeddings.patch_embeddings.projection",
        patch_norm="embeddings.norm",
        qkv=("attention.self.query", "attention.self.key", "attention.self.value"),
        out="attention.output.dense",
        table="attention.self.relative_position_bias_table",
        norms=("layernorm_before", "layernorm_after"),
        mlp=("intermediate.dense", "output.dense"),
        last_norm="layernorm",
        head="classifier",
    ),
}
#: Buffers that older files hold, and the token of masked pre-training.
_UNUSED = (r".*\.relative_position_index", r".*\.attn_mask", r"(.*\.)?embeddings\.mask_token")


def swin_names(program: Program) -> _Names:
    """The names of a program."""
    return _NAMES[program]


def swin_table(program: Program, stages: int, *, prefix: str = "", head: bool) -> TensorTable:
    """The names of a Swin's tensors.

    Args:
        program: whose.
        stages: how many.
        prefix: of the body's names: ``swin.`` in transformers' classifiers.
        head: whether there is a classifier.
    """
    names = _NAMES[program]
    rules: list[Rule] = [
        *layer("stages.0.patches", f"{prefix}{names.patches}"),
        *layer("stages.0.norm", f"{prefix}{names.patch_norm}"),
    ]
    for stage in range(stages):
        own, theirs = f"stages.{stage}.blocks.{{i}}.", f"{prefix}{names.body}.{stage}.blocks.{{i}}."
        if stage:
            merged = f"{prefix}{names.body}.{stage if program == 'timm' else stage - 1}.downsample"
            rules += layer(f"stages.{stage}.merging.norm", f"{merged}.norm")
            rules.append(
                Rule(own=f"stages.{stage}.merging.reduction.weight", foreign=(f"{merged}.reduction.weight",))
            )
        rules += [
            *layer(f"{own}norm1", f"{theirs}{names.norms[0]}"),
            *layer(f"{own}attention.qkv", *(f"{theirs}{name}" for name in names.qkv)),
            Rule(own=f"{own}attention.table", foreign=(f"{theirs}{names.table}",)),
            *layer(f"{own}attention.out", f"{theirs}{names.out}"),
            *layer(f"{own}norm2", f"{theirs}{names.norms[1]}"),
            *layer(f"{own}mlp.expand", f"{theirs}{names.mlp[0]}"),
            *layer(f"{own}mlp.contract", f"{theirs}{names.mlp[1]}"),
        ]
    rules += layer("norm", f"{prefix}{names.last_norm}")
    rules += layer("head.linear", names.head) if head else ()
    return TensorTable(program=program, rules=tuple(rules), unused=_UNUSED)
