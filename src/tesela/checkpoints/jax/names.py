"""Two-way tensor names of the paper's JAX checkpoints (.npz): ViTs and hybrids.

A dense kernel is (in, out) there and (out, in) here; queries, keys and values have an axis for the head;
images are NHWC, so a convolution's kernel is (kh, kw, C, D). The code's GELU is the tanh approximation.
What a network is stands in names and shapes: without ``cls`` it averages the tokens, ``pre_logits`` is a
tanh layer before the head, ``conv_root`` begins a ResNet, and ``block2/unit1`` is the first unit of its
second stage. Only the image size is left open, where the positions' number is no square.

Odd: published files count the parts of a block through (LayerNorm_0, attention_1, LayerNorm_2,
MlpBlock_3), a fresh initialisation counts each kind from 0. Both are read; which one it was is kept, so
that writing gives the same names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tesela.checkpoints.image_size import native_size
from tesela.checkpoints.layout import TensorTable
from tesela.checkpoints.rules import Rule
from tesela.core.errors import WeightsError

#: What may stand before every name, of an optimiser's state or of a whole training state.
JAX_PREFIXES = ("opt/target/", "optimizer/target/", "params/", "target/")
#: Names of what a training state holds beside the network.
_TRAINING = re.compile(
    r"(opt|opt_state|optimizer|optimizer_state|extra|ema|rng|rngs|state|accum_train_time|step|epoch)(/|$)"
)
_BLOCK = "Transformer/encoderblock_{i}/"


@dataclass(frozen=True, kw_only=True, slots=True)
class JaxStyle:
    """Naming variants that the model's configuration does not determine.

    Attributes:
        published: the parts of a block are counted through.
        prefix: before every name.
    """

    published: bool = False
    prefix: str = ""


def style_of(names: Mapping[str, Any]) -> JaxStyle:
    """The style of a file's names."""
    prefix = next((prefix for prefix in JAX_PREFIXES if any(name.startswith(prefix) for name in names)), "")
    return JaxStyle(published=any("MultiHeadDotProductAttention_1" in name for name in names), prefix=prefix)


def without_training_state(
    arrays: Mapping[str, Tensor], style: JaxStyle
) -> tuple[dict[str, Tensor], list[str]]:
    """The arrays but for those of an optimiser, step counters and random numbers; and what was left aside."""
    aside = [
        name
        for name in arrays
        if (not style.prefix or not name.startswith(style.prefix)) and _TRAINING.match(name)
    ]
    kinds = sorted({"/".join(name.split("/")[:2]) for name in aside})
    shown = ", ".join(kinds[:4]) + (" and others" if len(kinds) > 4 else "")
    said = [f"left aside, since it is of the training: {len(aside)} arrays under {shown}"] if aside else []
    return {name: array for name, array in arrays.items() if name not in set(aside)}, said


def jax_table(
    family: str,
    fields: Mapping[str, Any],
    *,
    style: JaxStyle | None = None,
    units: Sequence[tuple[int, int, bool]] = (),
    head: bool = True,
) -> TensorTable:
    """The names of a network of ours there.

    Args:
        family: ``vit`` or ``hybrid``.
        fields: of its configuration.
        style: of the names; those of a fresh initialisation if None.
        units: of a hybrid's backbone, as (stage, unit, whether it has a projection), counted from 0.
        head: whether there is a classifier.
    """
    style = style or JaxStyle()
    heads = fields["heads"]
    mha = _BLOCK + f"MultiHeadDotProductAttention_{int(style.published)}/"
    mlp = _BLOCK + f"MlpBlock_{3 if style.published else 0}/Dense_"
    parts = [f"{mha}{part}" for part in ("query", "key", "value")]
    rules = [
        *_convolution("patches.projection" if family == "hybrid" else "patches", "embedding", bias=True),
        Rule(own="prefix.class_token", foreign=("cls",)),
        Rule(own="positions.table", foreign=("Transformer/posembed_input/pos_embedding",)),
        *_norm("blocks.{i}.norm1", _BLOCK + "LayerNorm_0"),
        _rule(
            "blocks.{i}.attention.qkv.weight",
            [f"{part}/kernel" for part in parts],
            _heads_out,
            _split_heads_out(heads),
        ),
        _rule(
            "blocks.{i}.attention.qkv.bias",
            [f"{part}/bias" for part in parts],
            _heads_bias,
            _split_heads_bias(heads),
        ),
        _rule("blocks.{i}.attention.out.weight", [f"{mha}out/kernel"], _heads_in, _split_heads_in(heads)),
        Rule(own="blocks.{i}.attention.out.bias", foreign=(f"{mha}out/bias",)),
        *_norm("blocks.{i}.norm2", _BLOCK + f"LayerNorm_{1 + style.published}"),
        *_linear("blocks.{i}.mlp.expand", f"{mlp}0"),
        *_linear("blocks.{i}.mlp.contract", f"{mlp}1"),
        *_norm("norm", "Transformer/encoder_norm"),
        *(_linear("head.hidden", "pre_logits") if fields.get("head") == "mlp" else []),
        *(_linear("head.linear", "head") if head else []),
        *(_backbone(units) if family == "hybrid" else []),
    ]
    named = [
        Rule(own=r.own, foreign=tuple(style.prefix + name for name in r.foreign), join=r.join, split=r.split)
        for r in rules
    ]
    return TensorTable(program="the paper's JAX code", rules=tuple(named))


def _backbone(units: Sequence[tuple[int, int, bool]]) -> list[Rule]:
    rules = [
        *_convolution("patches.backbone.root.conv", "conv_root"),
        *_norm("patches.backbone.root.norm", "gn_root"),
    ]
    for stage, unit, projected in units:
        own, foreign = f"patches.backbone.stages.{stage}.{unit}", f"block{stage + 1}/unit{unit + 1}"
        for index in (1, 2, 3):
            rules += [
                *_convolution(f"{own}.conv{index}", f"{foreign}/conv{index}"),
                *_norm(f"{own}.norm{index}", f"{foreign}/gn{index}"),
            ]
        if projected:
            rules += [
                *_convolution(f"{own}.projection", f"{foreign}/conv_proj"),
                *_norm(f"{own}.projection_norm", f"{foreign}/gn_proj"),
            ]
    return rules


def units_of(names: Mapping[str, Any], *, own: bool = False) -> list[tuple[int, int, bool]]:
    """Units of a hybrid's backbone by our names or theirs: (stage, unit, has a projection)."""
    pattern = (
        r"patches\.backbone\.stages\.(\d+)\.(\d+)\.conv1\.weight"
        if own
        else r"(?:.*/)?block(\d+)/unit(\d+)/conv1/kernel"
    )
    found = [(match, name) for name in names if (match := re.fullmatch(pattern, name))]
    projection = ("conv1.weight", "projection.weight") if own else ("conv1/kernel", "conv_proj/kernel")
    less = 0 if own else 1
    return sorted(
        (int(match[1]) - less, int(match[2]) - less, name.replace(*projection) in names)
        for match, name in found
    )


def jax_fields(
    arrays: Mapping[str, Tensor], *, image_size: tuple[int, int] | None = None
) -> tuple[str, dict[str, Any]]:
    """Our family and the fields of its configuration, read off names and shapes.

    Args:
        arrays: without the prefix of their style.
        image_size: (height, width) where the positions leave it open.

    Raises:
        WeightsError: it is no such network, or the image size is open.
    """
    depth = len({name.split("/")[1] for name in arrays if name.startswith("Transformer/encoderblock_")})
    query = _first(arrays, r"Transformer/encoderblock_\d+/MultiHeadDotProductAttention_\d/query/kernel", 3)
    hidden = _first(arrays, r"Transformer/encoderblock_\d+/MlpBlock_\d/Dense_0/kernel", 2)
    patch = _first(arrays, "embedding/kernel", 4)
    rows, columns, channels, width = patch.shape
    if query.shape[0] != width or query.shape[2] not in (width, width / query.shape[1]):
        raise WeightsError(
            f"attention of {query.shape[1]} heads of {query.shape[2]} at width {width} is not known",
            hint="give another file",
        )
    fields: dict[str, Any] = {
        "patch_size": (rows, columns),
        "channels": channels,
        "width": width,
        "depth": depth,
        "heads": query.shape[1],
        "attention": "full" if query.shape[1] * query.shape[2] == width else "wide",
        "mlp_ratio": hidden.shape[1] / width,
        "activation": "gelu_tanh",
        "pool": "class" if "cls" in arrays else "mean",
    }
    if "pre_logits/kernel" in arrays:
        fields |= {"head": "mlp", "head_width": arrays["pre_logits/kernel"].shape[1]}
    family, step = "vit", (rows, columns)
    if "conv_root/kernel" in arrays:
        family, root = "hybrid", _first(arrays, "conv_root/kernel", 4)
        units = units_of(arrays)
        stages = tuple(
            sum(stage == index for stage, _, _ in units)
            for index in range(len({stage for stage, _, _ in units}))
        )
        if sorted((stage, unit) for stage, unit, _ in units) != [
            (s, u) for s, count in enumerate(stages) for u in range(count)
        ]:
            raise WeightsError(
                "the JAX checkpoint lacks whole units or stages of its ResNet",
                hint="the file is incomplete; download it again",
            )
        fields |= {"channels": root.shape[2], "stages": stages, "width_factor": root.shape[3] / 64}
        down = 4 * 2 ** max(0, len(stages) - 1)
        step = (rows * down, columns * down)
    table = arrays.get("Transformer/posembed_input/pos_embedding")
    if table is None:
        return family, fields | {"position": "none", "image_size": image_size or (14 * step[0], 14 * step[1])}
    return family, fields | {"image_size": native_size(table.shape[1] - ("cls" in arrays), step, image_size)}


def check_jax(family: str, fields: Mapping[str, Any]) -> None:
    """Refuse a model that the JAX code has no option for.

    Raises:
        WeightsError: naming the option.
    """
    if family not in ("vit", "hybrid"):
        raise WeightsError(
            f"the paper's JAX code has no place for a model of the family {family!r}",
            hint="ViTs and hybrids fit",
        )
    choices: dict[str, tuple[Any, ...]] = {
        "activation": ("gelu_tanh",),
        "input_norm": ("none",),
        "norm": ("pre",),
        "norm_kind": ("layer",),
        "embedded_norm": ("none",),
        "inner_norm": ("none",),
        "qk_norm": (False,),
        "dense_bias": (True,),
        "patch_bias": (True, None),
        "cut_edges": (False, None),
        "norm_eps": (1e-6,),
        "final_norm": (True,),
        "pooled_norm": (False,),
        "position": ("learned", "none"),
        "position_at": ("input",),
        "prefix_positions": (True,),
        "attention": ("full", "wide"),
        "qkv_bias": (True,),
        "pool": ("class", "mean"),
        "distillation": (False,),
        "class_tokens": (1,),
        "arithmetic": ("paper",),
        "registers": (0,),
        "layer_scale": (0.0,),
        "mlp": ("plain",),
    }
    for name, known in choices.items():
        if name in fields and fields[name] not in known:
            fit = " or ".join(f"{name}={value}" for value in known)
            raise WeightsError(
                f"the paper's JAX code has no {name}={fields[name]}", hint=f"only models with {fit} fit"
            )


def _first(arrays: Mapping[str, Tensor], pattern: str, axes: int) -> Tensor:
    found = next((tensor for name, tensor in arrays.items() if re.fullmatch(pattern, name)), None)
    if found is None or found.ndim != axes:
        what = "is missing" if found is None else f"has {found.ndim} axes, not {axes}"
        raise WeightsError(
            f"the JAX checkpoint is no ViT: {pattern} {what}", hint="give a file such as ViT-B_16.npz"
        )
    return found


def _rule(
    own: str,
    foreign: Sequence[str],
    join: Callable[[Sequence[Tensor]], Tensor],
    split: Callable[[Tensor, int], Sequence[Tensor]],
) -> Rule:
    return Rule(own=own, foreign=tuple(foreign), join=join, split=split)


def _norm(own: str, foreign: str) -> list[Rule]:
    return [
        Rule(own=f"{own}.weight", foreign=(f"{foreign}/scale",)),
        Rule(own=f"{own}.bias", foreign=(f"{foreign}/bias",)),
    ]


def _linear(own: str, foreign: str) -> list[Rule]:
    weight = _rule(
        f"{own}.weight",
        [f"{foreign}/kernel"],
        lambda parts: parts[0].T.contiguous(),
        lambda tensor, _: [tensor.T],
    )
    return [weight, Rule(own=f"{own}.bias", foreign=(f"{foreign}/bias",))]


def _convolution(own: str, foreign: str, *, bias: bool = False) -> list[Rule]:
    """A kernel (kh, kw, C, D) as (D, C, kh, kw)."""
    weight = _rule(
        f"{own}.weight",
        [f"{foreign}/kernel"],
        lambda parts: parts[0].permute(3, 2, 0, 1).contiguous(),
        lambda tensor, _: [tensor.permute(2, 3, 1, 0)],
    )
    return [weight, Rule(own=f"{own}.bias", foreign=(f"{foreign}/bias",))] if bias else [weight]


def _heads_out(parts: Sequence[Tensor]) -> Tensor:
    """(D, H, d) each to (3 H d, D)."""
    return torch.cat([part.flatten(1).T for part in parts])


def _split_heads_out(heads: int) -> Callable[[Tensor, int], Sequence[Tensor]]:
    return lambda tensor, count: [part.T.reshape(part.shape[1], heads, -1) for part in tensor.chunk(count)]


def _heads_bias(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


def _split_heads_bias(heads: int) -> Callable[[Tensor, int], Sequence[Tensor]]:
    return lambda tensor, count: [part.reshape(heads, -1) for part in tensor.chunk(count)]


def _heads_in(parts: Sequence[Tensor]) -> Tensor:
    """(H, d, D) to (D, H d)."""
    return parts[0].flatten(0, 1).T.contiguous()


def _split_heads_in(heads: int) -> Callable[[Tensor, int], Sequence[Tensor]]:
    return lambda tensor, _: [tensor.T.reshape(heads, -1, tensor.shape[0])]
