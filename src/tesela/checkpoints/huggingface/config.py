"""Two-way mapping of config.json of Hugging Face's ViT, DeiT and DINOv2 to our fields.

Odd: LayerNorm epsilons are taken over as they are (1e-12 for ViT and DeiT). DINOv2's gated MLP has two
thirds of the width that its ``mlp_ratio`` says, rounded up to a multiple of 8. DINOv2 with registers
interpolates its positions with antialiasing, the others without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tesela.checkpoints.huggingface.hybrid import bit_fields
from tesela.checkpoints.huggingface.names import ARCHITECTURES
from tesela.checkpoints.huggingface.segformer import segformer_fields
from tesela.core.errors import WeightsError

#: Classes that ``backbones.py`` reads.
BACKBONE_CLASSES = (
    *("DINOv3ViTModel", "SiglipVisionModel", "CLIPVisionModel", "ViTMAEModel", "ViTMSNModel", "IJepaModel"),
    *("BeitModel", "Data2VecVisionModel", "Aimv2VisionModel", "and their classifiers"),
)
#: Pixels of a patch's side where config.json does not say.
_PATCHES = {"dinov2": 14, "vit-hybrid": 1}
# Our activation -> theirs, the first being the one that is written.
_ACTIVATIONS = {
    "gelu": ("gelu",),
    "gelu_tanh": ("gelu_pytorch_tanh", "gelu_new", "gelu_fast"),
    "quick_gelu": ("quick_gelu",),
    "relu": ("relu",),
    "silu": ("silu", "swish"),
}


def architecture_of(config: Mapping[str, Any], names: Mapping[str, Any]) -> str:
    """The entry of ``ARCHITECTURES`` that a checkpoint is.

    Args:
        config: its config.json.
        names: its tensors by name, for a config that names no architecture.

    Raises:
        WeightsError: it is of no architecture that is known; it is named.
    """
    known = ", ".join((*ARCHITECTURES, *BACKBONE_CLASSES))
    stated = config.get("architectures")
    if isinstance(stated, list) and stated:
        if stated[0] not in ARCHITECTURES:
            text = " (a text encoder, which sees no images)" if "Text" in str(stated[0]) else ""
            raise WeightsError(
                f"the architecture {stated[0]!r} in config.json is not known{text}", hint=f"known are {known}"
            )
        kind, model_type = ARCHITECTURES[stated[0]], config.get("model_type")
        if model_type not in (None, kind.model_type):
            raise WeightsError(
                f"config.json states model_type={model_type!r} and the architecture {stated[0]}",
                hint="use the config.json that came with the weights",
            )
        return str(stated[0])
    kinds = [name for name, kind in ARCHITECTURES.items() if kind.model_type == config.get("model_type")]
    if not kinds:
        raise WeightsError(
            f"the model type {config.get('model_type')!r} in config.json is not known",
            hint=f"known are {known}",
        )
    heads = {
        "teacher": "cls_classifier.weight",
        "decoder": "decode_head.classifier.weight",
        "classifier": "classifier.weight",
    }
    for head, tensor in heads.items():
        found = [name for name in kinds if ARCHITECTURES[name].head == head and tensor in names]
        if found:
            return found[0]
    return next(name for name in kinds if ARCHITECTURES[name].head == "none")


def refuse_changed(config: Mapping[str, Any]) -> None:
    """Refuse what computes otherwise than the named architecture.

    Raises:
        WeightsError: quantised weights, or code of the model's own.
    """
    vision = config.get("vision_config")
    for name in ("quantization_config", "auto_map"):
        if config.get(name) or (isinstance(vision, Mapping) and vision.get(name)):
            raise WeightsError(
                f"config.json has {name}, which is not known here, and would change the result",
                hint="load it with transformers and save it as a plain model",
            )


def huggingface_fields(config: Mapping[str, Any], architecture: str) -> tuple[str, dict[str, Any]]:
    """Our family and the fields of its configuration.

    Raises:
        WeightsError: the config uses what we have not, or is damaged.
    """
    kind = ARCHITECTURES[architecture]
    refuse_changed(config)
    if kind.model_type == "segformer":
        return "segformer", segformer_fields(config)
    try:
        width = int(config.get("hidden_size", 768))
        fields: dict[str, Any] = {
            "image_size": pair(config.get("image_size", 224)),
            "patch_size": pair(config.get("patch_size", _PATCHES.get(kind.model_type, 16))),
            "channels": config.get("num_channels", 3),
            "width": width,
            "depth": config.get("num_hidden_layers", 12),
            "heads": config.get("num_attention_heads", 12),
            "activation": activation_name(config.get("hidden_act", "gelu")),
            "qkv_bias": config.get("qkv_bias", True),
            "dropout": config.get("hidden_dropout_prob", 0.0),
            "attention_dropout": config.get("attention_probs_dropout_prob", 0.0),
        }
        if kind.model_type.startswith("dinov2"):
            return "vit", fields | _dino_fields(config, width)
        fields["mlp_ratio"] = config.get("intermediate_size", 3072) / width
        fields["norm_eps"] = config.get("layer_norm_eps", 1e-12)
        if kind.model_type == "vit-hybrid":
            return "hybrid", fields | bit_fields(config, fields["image_size"])
    except (TypeError, ValueError, ZeroDivisionError, IndexError) as error:
        raise WeightsError(
            f"config.json does not make sense: {error}", hint="use the config.json that came with the weights"
        ) from error
    if kind.head == "teacher":
        return "deit", fields | {"distillation": True}
    return "vit", fields | ({"registers": 1} if kind.model_type == "deit" else {})


def _dino_fields(config: Mapping[str, Any], width: int) -> dict[str, Any]:
    swiglu = bool(config.get("use_swiglu_ffn", False))
    ratio = config.get("mlp_ratio", 4)
    registers = (
        config.get("num_register_tokens", 4) if config.get("model_type") == "dinov2_with_registers" else 0
    )
    return {
        "mlp": "swiglu" if swiglu else "plain",
        "mlp_ratio": (gated_width(width, ratio) if swiglu else int(width * ratio)) / width,
        "norm_eps": config.get("layer_norm_eps", 1e-6),
        "layer_scale": config.get("layerscale_value", 1.0) or 1.0,
        "drop_path": config.get("drop_path_rate", 0.0),
        "pool": "class_mean",
        "registers": registers,
        "position_mode": "bicubic_antialias" if registers else "bicubic",
    }


def gated_width(width: int, ratio: float) -> int:
    """Hidden width of DINOv2's SwiGLU."""
    return (int(int(width * ratio) * 2 / 3) + 7) // 8 * 8


def huggingface_config(architecture: str, fields: Mapping[str, Any], *, labels: list[str]) -> dict[str, Any]:
    """A config.json for a model of ours.

    Args:
        architecture: as ``choose_architecture`` says.
        fields: all fields of our configuration.
        labels: of the classes, in the order of the logits; none for a bare model.

    Raises:
        WeightsError: the model uses an option that has no place there.
    """
    kind = ARCHITECTURES[architecture]
    config: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": kind.model_type,
        "image_size": _side(fields["image_size"]),
        "patch_size": _side(fields["patch_size"]),
        "num_channels": fields["channels"],
        "hidden_size": fields["width"],
        "num_hidden_layers": fields["depth"],
        "num_attention_heads": fields["heads"],
        "hidden_act": _ACTIVATIONS[fields["activation"]][0],
        "qkv_bias": fields["qkv_bias"],
        "layer_norm_eps": fields["norm_eps"],
        "hidden_dropout_prob": fields["dropout"],
        "attention_probs_dropout_prob": fields["attention_dropout"],
    }
    if kind.head != "none":
        config["id2label"] = {str(index): label for index, label in enumerate(labels)}
        config["label2id"] = {label: index for index, label in enumerate(labels)}
    if kind.model_type.startswith("dinov2"):
        swiglu = fields["mlp"] == "swiglu"
        config |= {
            "mlp_ratio": _whole_ratio(fields, architecture),
            "use_swiglu_ffn": swiglu,
            "layerscale_value": fields["layer_scale"],
            "drop_path_rate": fields["drop_path"],
        }
        if fields["registers"]:
            config["num_register_tokens"] = fields["registers"]
    else:
        config["intermediate_size"] = round(fields["width"] * fields["mlp_ratio"])
    return config


def choose_architecture(family: str, fields: Mapping[str, Any]) -> str:
    """The class of transformers that computes what a model of ours computes.

    Raises:
        WeightsError: there is none; the option that has no place is named.
    """
    if family == "deit":
        name = "DeiTForImageClassificationWithTeacher"
    elif family != "vit":
        raise WeightsError(
            f"transformers has no place for a model of the family {family!r}",
            hint="ViT, DeiT, SegFormer, Swin, ConvNeXt and ResNet models fit; timm has others, such as "
            "hybrids and TinyViTs: tesela export --to timm",
        )
    elif fields["layer_scale"] > 0:
        name = (
            "Dinov2WithRegistersForImageClassification"
            if fields["registers"]
            else "Dinov2ForImageClassification"
        )
    elif fields["registers"] == 1 and not fields["distillation"]:
        name = "DeiTForImageClassification"
    else:
        name = "ViTForImageClassification"
    check_huggingface(name, fields)
    return name


def check_huggingface(architecture: str, fields: Mapping[str, Any]) -> None:
    """Refuse a model whose options an architecture has not.

    Raises:
        WeightsError: naming the first of them.
    """
    kind = ARCHITECTURES[architecture]
    dino = kind.model_type.startswith("dinov2")
    fixed: dict[str, Any] = {
        "norm": "pre",
        "norm_kind": "layer",
        "embedded_norm": "none",
        "inner_norm": "none",
        "qk_norm": False,
        "dense_bias": True,
        "patch_bias": True,
        "cut_edges": False,
        "final_norm": True,
        "pooled_norm": False,
        "position": "learned",
        "position_at": "input",
        "position_mode": "bicubic_antialias" if kind.model_type == "dinov2_with_registers" else "bicubic",
        "input_norm": "none",
        "prefix_positions": True,
        "class_tokens": 1,
        "attention": "full",
        "head": "linear",
        "pool": "class_mean" if dino else "class",
        "distillation": kind.head == "teacher",
    }
    if not dino:
        fixed |= {
            "layer_scale": 0.0,
            "mlp": "plain",
            "registers": int(kind.model_type == "deit" and kind.head != "teacher"),
        }
    for name, value in fixed.items():
        if name == "position_mode" and kind.model_type == "dinov2" and fields[name] == "bicubic_offset":
            continue  # the same at its own size; the export says so
        if name in fields and fields[name] != value:
            raise WeightsError(
                f"{architecture} has no {name}={fields[name]}", hint=f"only models with {name}={value} fit"
            )
    grid = [image // patch for image, patch in zip(fields["image_size"], fields["patch_size"], strict=True)]
    if dino and grid[0] != grid[1]:
        raise WeightsError(
            f"{architecture} needs a square grid of positions", hint="train at a square image size"
        )
    if not dino and len(set(fields["patch_size"])) > 1 and grid[0] != grid[1]:
        raise WeightsError(
            f"{architecture} cannot interpolate oblong patches of an oblong image", hint="use square patches"
        )


def _whole_ratio(fields: Mapping[str, Any], architecture: str) -> int:
    """The ``mlp_ratio`` that gives our hidden width there."""
    width, hidden = fields["width"], round(fields["width"] * fields["mlp_ratio"])
    for ratio in range(1, 65):
        if hidden == (gated_width(width, ratio) if fields["mlp"] == "swiglu" else width * ratio):
            return ratio
    raise WeightsError(
        f"{architecture} has no MLP of {hidden} units at width {width}",
        hint="only whole multiples of the width fit",
    )


def read_labels(config: Mapping[str, Any], count: int) -> list[str]:
    """The names of ``count`` classes; ``LABEL_0`` and so on where the config has none, as transformers does.

    Raises:
        WeightsError: the config names another number of classes.
    """
    given = config.get("id2label")
    if not isinstance(given, Mapping) or not given:
        stated = config.get("num_labels", count)
        if stated != count:
            raise WeightsError(
                f"config.json speaks of {stated} classes, the weights of {count}",
                hint="use files that belong together",
            )
        return [f"LABEL_{index}" for index in range(count)]
    if len(given) != count or {str(key) for key in given} != {str(index) for index in range(count)}:
        raise WeightsError(
            f"config.json names {len(given)} classes, the weights have {count}",
            hint="use files that belong together",
        )
    named = {int(key): str(label) for key, label in given.items()}
    return [named[index] for index in range(count)]


def pair(value: Any) -> tuple[int, int]:
    """A side, or height and width, as a pair.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, int):
        return (value, value)
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return (int(value[0]), int(value[1]))
    raise ValueError(f"{value!r} is no size")


def head_kind(config: Mapping[str, Any]) -> str:
    """Why a softmax over the logits would say nonsense; empty where one class is chosen."""
    problem, function = config.get("problem_type"), config.get("function_to_apply")
    if problem not in (None, "single_label_classification"):
        return f"config.json states problem_type={problem!r}"
    if function not in (None, "softmax"):
        return f"config.json states function_to_apply={function!r}"
    return ""


def _side(sizes: Any) -> int | list[int]:
    return int(sizes[0]) if sizes[0] == sizes[1] else [int(side) for side in sizes]


def gated_activation(theirs: Any) -> str:
    """Our activation beside a gated MLP, whose gate is SiLU.

    Raises:
        WeightsError: the gate is another.
    """
    if theirs not in _ACTIVATIONS["silu"]:
        raise WeightsError(
            f"a gated MLP with the activation {theirs!r} is not known", hint="known is SwiGLU, with silu"
        )
    return "gelu"


def activation_name(theirs: Any) -> str:
    """Our name of ``hidden_act``.

    Raises:
        WeightsError: it is not known.
    """
    for own, names in _ACTIVATIONS.items():
        if theirs in names:
            return own
    known = ", ".join(name for names in _ACTIVATIONS.values() for name in names)
    raise WeightsError(f"the activation {theirs!r} is not known", hint=f"known are {known}")
