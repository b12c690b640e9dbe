"""Hugging Face's ViTForImageClassification: names of its tensors and of its config's fields, in both directions.

The names are those of the files on the hub, which transformers reads and writes in every version (in memory, version 5 uses
others). Its LayerNorm epsilon is 1e-12 and is taken over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tesela.core.errors import WeightsError
from tesela.weights.names import Rule, Tensors, layer, to_foreign, to_own

_BLOCK = "vit.encoder.layer.{i}."

VIT: tuple[Rule, ...] = (
    *layer("patches", "vit.embeddings.patch_embeddings.projection"),
    Rule(own="prefix.class_token", foreign=("vit.embeddings.cls_token",)),
    Rule(own="positions.table", foreign=("vit.embeddings.position_embeddings",)),
    *layer("blocks.{i}.norm1", _BLOCK + "layernorm_before"),
    *layer("blocks.{i}.attention.qkv", *(f"{_BLOCK}attention.attention.{part}" for part in ("query", "key", "value"))),
    *layer("blocks.{i}.attention.out", _BLOCK + "attention.output.dense"),
    *layer("blocks.{i}.norm2", _BLOCK + "layernorm_after"),
    *layer("blocks.{i}.mlp.expand", _BLOCK + "intermediate.dense"),
    *layer("blocks.{i}.mlp.contract", _BLOCK + "output.dense"),
    *layer("norm", "vit.layernorm"),
    *layer("head.linear", "classifier"),
)

# Our activation -> theirs.
_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu"}

# What a config of ours must say to have a place there.
_FIXED = {
    "norm": "pre",
    "final_norm": True,
    "position": "learned",
    "position_mode": "bicubic",
    "prefix_positions": True,
    "pool": "class",
    "attention": "full",
    "distillation": False,
    "registers": 0,
    "head": "linear",
}


def vit_tensors(foreign: Mapping[str, Tensor]) -> Tensors:
    """Tensors of a ViTForImageClassification under our names.

    Raises:
        WeightsError: naming what is unknown or missing.
    """
    return to_own(foreign, VIT, source="the Hugging Face checkpoint")


def vit_to_huggingface(own: Mapping[str, Tensor]) -> Tensors:
    """Tensors of our ViT under the names of ViTForImageClassification.

    Raises:
        WeightsError: naming what has no place there.
    """
    return to_foreign(own, VIT, target="ViTForImageClassification")


def vit_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of our ViT config, read from a Hugging Face config.json.

    Raises:
        WeightsError: it is of another model, or uses what we have not.
    """
    if config.get("model_type") != "vit":
        raise WeightsError(f"the config is of a {config.get('model_type')!r} model, not of a 'vit'", hint="give a ViT checkpoint")
    theirs = config.get("hidden_act", "gelu")
    activation = next((own for own, name in _ACTIVATIONS.items() if name == theirs), None)
    if activation is None:
        raise WeightsError(f"the activation {theirs!r} is not known", hint="known are " + ", ".join(_ACTIVATIONS.values()))
    return {
        "image_size": _pair(config.get("image_size", 224)),
        "patch_size": _pair(config.get("patch_size", 16)),
        "channels": config.get("num_channels", 3),
        "width": config.get("hidden_size", 768),
        "depth": config.get("num_hidden_layers", 12),
        "heads": config.get("num_attention_heads", 12),
        "mlp_ratio": config.get("intermediate_size", 3072) / config.get("hidden_size", 768),
        "activation": activation,
        "qkv_bias": config.get("qkv_bias", True),
        "norm_eps": config.get("layer_norm_eps", 1e-12),
        "dropout": config.get("hidden_dropout_prob", 0.0),
        "attention_dropout": config.get("attention_probs_dropout_prob", 0.0),
    }


def vit_config(fields: Mapping[str, Any], *, labels: list[str]) -> dict[str, Any]:
    """A Hugging Face config.json for our ViT config, given as a mapping of all its fields.

    Raises:
        WeightsError: the config uses an option that ViTForImageClassification has not.
    """
    for name, value in _FIXED.items():
        if fields[name] != value:
            raise WeightsError(f"ViTForImageClassification has no {name}={fields[name]}", hint=f"only models with {name}={value} fit")
    if len(set(fields["image_size"])) > 1:
        raise WeightsError("ViTForImageClassification needs square images", hint="train at a square image size")
    return {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "image_size": fields["image_size"][0],
        "patch_size": fields["patch_size"][0] if len(set(fields["patch_size"])) == 1 else list(fields["patch_size"]),
        "num_channels": fields["channels"],
        "hidden_size": fields["width"],
        "num_hidden_layers": fields["depth"],
        "num_attention_heads": fields["heads"],
        "intermediate_size": round(fields["width"] * fields["mlp_ratio"]),
        "hidden_act": _ACTIVATIONS[fields["activation"]],
        "qkv_bias": fields["qkv_bias"],
        "layer_norm_eps": fields["norm_eps"],
        "hidden_dropout_prob": fields["dropout"],
        "attention_probs_dropout_prob": fields["attention_dropout"],
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
