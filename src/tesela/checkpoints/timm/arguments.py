"""Arguments of timm's constructor, held against the tensors and what is computed here.

An argument that could change the result and is not known here is refused by name, never passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tesela.core.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

#: Arguments that touch training, initialisation or the machine alone, or that the tensors and images settle.
HARMLESS = frozenset(
    (
        *("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate"),
        *("drop_path_rate", "drop_block_rate", "weight_init", "fix_init", "device", "dtype", "img_size"),
        *("dynamic_img_size", "strict_img_size", "no_embed_class", "num_heads", "act_layer", "global_pool"),
        *(
            "norm_layer",
            "pool_include_prefix",
            "scriptable",
            "exportable",
            "no_jit",
            "pretrained",
            "checkpoint_path",
        ),
    )
)
#: Arguments of which our network has these values alone.
_FIXED: dict[str, tuple[Any, ...]] = {
    "dynamic_img_pad": (False, None),
    "features_only": (False, None),
    "embed_layer": (None, "HybridEmbed"),
    "block_fn": (None, "Block", "ResPostBlock", "ParallelScalingBlock"),
    "attn_layer": (None, "", "attn"),
}
#: Names of register tokens: timm's, and the official DINOv2's.
REGISTER_NAMES = ("reg_token", "register_tokens")
_SILU = ("silu", "swish", "SiLU")
_GATED = ("SwiGLUPacked", "SwiGLU", "GluMlp")
#: timm's names of norms, and ours; a norm of the table of architectures is a name with its epsilon.
_NORMS = {
    **dict.fromkeys(("", "layernorm", "layer_norm", "LayerNorm"), "layer"),
    **dict.fromkeys(("rmsnorm", "RmsNorm"), "rms"),
}
#: Epsilon of timm's norms where none is stated.
EPSILON = 1e-6
#: timm's names of activations, and ours.
_ACTIVATIONS: dict[Any, str] = {
    None: "gelu",
    "": "gelu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    **dict.fromkeys(_SILU, "silu"),
}


def check_fixed(stated: Mapping[str, Any]) -> None:
    """Refuse arguments that ask for other parts than ours, whatever the tensors are.

    Raises:
        WeightsError: naming the argument.
    """
    for name, value in stated.items():
        if name in _FIXED and value not in _FIXED[name]:
            raise _refused(name, value)


def check_arguments(
    stated: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    fields: Mapping[str, Any],
    *,
    rows: bool,
    expanded: int,
) -> None:
    """Refuse arguments that contradict the tensors or ask for what our network does not compute.

    Args:
        stated: of the constructor, as config.json gives them.
        tensors: of the checkpoint.
        fields: of our configuration, read off them.
        rows: whether the table of positions has rows for prefix tokens.
        expanded: outputs of the MLP's first layer.

    Raises:
        WeightsError: naming the argument.
    """
    token = "cls_token" in tensors
    registers = next((tensors[name].shape[1] for name in REGISTER_NAMES if name in tensors), 0)
    pooled, final = "fc_norm.weight" in tensors, "norm.weight" in tensors
    implied: dict[str, Any] = {
        "patch_size": tuple(fields["patch_size"]),
        "in_chans": fields["channels"],
        "embed_dim": fields["width"],
        "depth": fields["depth"],
        "mlp_ratio": expanded,
        "qkv_bias": fields["qkv_bias"],
        "class_token": token,
        "reg_tokens": registers,
        "init_values": fields["layer_scale"] > 0,
        "pre_norm": fields["embedded_norm"] == "tokens",
        "qk_norm": fields["qk_norm"],
        "scale_attn_norm": fields["inner_norm"] == "both",
        "scale_mlp_norm": fields["inner_norm"] != "none",
        "proj_bias": fields["dense_bias"],
        "pos_embed": fields["position"] == "learned",
        "final_norm": pooled or final,
        "fc_norm": pooled,
        "num_classes": len(tensors["head.weight"]) if "head.weight" in tensors else 0,
    }
    if stated.get("block_fn") == "ResPostBlock":  # where it is the start value of the norms
        implied["init_values"] = stated.get("init_values") is not None
    if fields["position"] == "learned" and (token or registers):
        implied["no_embed_class"] = not rows
    for name, value in stated.items():
        if name in _FIXED:
            continue
        if name == "mlp_layer":
            if value not in ((None, *_GATED) if fields["mlp"] == "swiglu" else (None, "Mlp", "mlp")):
                raise _refused(name, value)
        elif name == "embed_norm_layer":
            if value and norm_of(value) != (fields["norm_kind"], fields["norm_eps"]):
                raise _refused(name, value, beside=" beside another norm_layer")
            if bool(value) != (fields["embedded_norm"] == "patches"):
                raise _contradicted(name, value)
        elif name in implied:
            found = _as_found(name, value, fields)
            if found is not None and found != implied[name]:
                raise WeightsError(
                    f"the config states {name}={value!r}, and the tensors are of {_shown(implied[name])}",
                    hint="use the config.json that came with the weights",
                )
        elif name not in HARMLESS:
            raise WeightsError(
                f"timm's argument {name}={value!r} is not known, and may change the result",
                hint=f"take {name} out of model_args in config.json if it does not",
            )
    pool = stated.get("global_pool")
    if (pool == "map") != ("attn_pool.latent" in tensors) and pool:
        raise _contradicted("global_pool", pool)
    if pool == "token" and not token:
        raise WeightsError(
            "the config states global_pool='token', and there is no class token",
            hint="use the config.json that came with the weights",
        )
    if stated.get("pool_include_prefix") and fields["pool"] == "mean" and (token or registers):
        raise _refused("pool_include_prefix", True, beside=" with global_pool='avg'")


def _as_found(name: str, value: Any, fields: Mapping[str, Any]) -> Any:
    """A stated value in the form of the implied one; None where it leaves the matter open."""
    if name == "mlp_ratio":
        return int(fields["width"] * float(value))
    if name == "patch_size":
        return (value, value) if isinstance(value, int) else tuple(value)
    if name == "pos_embed":
        return value == "learn"
    if name == "init_values":
        return value is not None and value is not False
    if isinstance(value, bool) or value is None:
        return value
    return value


def _contradicted(name: str, value: Any) -> WeightsError:
    return WeightsError(
        f"the config states {name}={value!r}, which the tensors do not fit",
        hint="use the config.json that came with the weights",
    )


def _shown(value: Any) -> str:
    return "other kind" if isinstance(value, bool) else repr(value)


def _refused(name: str, value: Any, *, beside: str = "") -> WeightsError:
    return WeightsError(
        f"timm's {name}={value!r}{beside} is not computed here",
        hint="another program has to run this one",
    )


def activation_of(stated: Any, *, gated: bool) -> str:
    """Our name of timm's ``act_layer``.

    Args:
        stated: as config.json has it; None is timm's own choice.
        gated: whether it is of a SwiGLU, whose gate is SiLU.

    Raises:
        WeightsError: it is not known, or a gate of another kind.
    """
    if gated:
        if stated not in (None, "", *_SILU):
            raise WeightsError(
                f"a gated MLP with the activation {stated!r} is not known", hint="known is SwiGLU, with silu"
            )
        return "gelu"
    if stated not in _ACTIVATIONS:
        raise WeightsError(
            f"the activation {stated!r} is not known",
            hint="known are " + ", ".join(str(name) for name in _ACTIVATIONS if name),
        )
    return _ACTIVATIONS[stated]


def norm_of(stated: Any) -> tuple[str, float]:
    """Our ``norm_kind`` and ``norm_eps`` of timm's ``norm_layer``.

    Args:
        stated: as config.json or the table of architectures has it; None is timm's own choice.

    Raises:
        WeightsError: it is not known.
    """
    name, eps = stated if isinstance(stated, (list, tuple)) else (stated or "", EPSILON)
    if name not in _NORMS:
        raise WeightsError(
            f"timm's norm_layer={name!r} is not computed here", hint="known are LayerNorm and RmsNorm"
        )
    return _NORMS[name], float(eps)
