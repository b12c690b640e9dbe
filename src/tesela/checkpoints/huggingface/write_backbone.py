"""Export of backbones to the class of transformers they were read from."""

from __future__ import annotations

from typing import Any

from tesela.checkpoints.huggingface.backbone_names import backbone_table
from tesela.checkpoints.huggingface.backbones import BACKBONES, backbone_fields
from tesela.checkpoints.write import Exported
from tesela.core.errors import WeightsError
from tesela.models.tensors import Tensors

#: Fields that a model may change while it is trained here, with their names there.
_FREE = ("image_size", "dropout", "attention_dropout", "drop_path", "patch_dropout", "layer_scale")


def backbone_files(exported: Exported) -> tuple[str, dict[str, Any], Tensors]:
    """The class, the config.json and the tensors of a model that was read from a backbone.

    Args:
        exported: the bundle.

    Raises:
        WeightsError: the model has changed, or has a classifier that the class has no place for.
    """
    origin, fields = exported.origin, dict(exported.info.model)
    name, prefix = str(origin["architecture"]), str(origin.get("prefix", ""))
    kind, config = BACKBONES[name], dict(origin["config"])
    head = not exported.headless()
    if kind.nested and kind.head == "other":
        name, config = _vision_part(name, config, exported)
        kind = BACKBONES[name]
    if head and kind.head != "classifier":
        name, prefix = _with_head(name)
        kind = BACKBONES[name]
        config |= {"architectures": [name]}
    if list(fields["image_size"]) != list(exported.model.config.image_size):
        fields["image_size"] = exported.model.config.image_size
    config = _sized(config, name, fields)
    wanted = backbone_fields(config, name)
    for option, value in wanted.items():
        found = fields.get(option)
        found = tuple(found) if isinstance(found, list) else found
        if option not in _FREE and found != value:
            raise WeightsError(
                f"{name} has no {option}={found}", hint=f"only models with {option}={value} fit"
            )
    if head:
        labels = exported.labels()
        config |= {
            "id2label": {str(index): label for index, label in enumerate(labels)},
            "label2id": {label: index for index, label in enumerate(labels)},
        }
    own = exported.tensors()
    if not head:
        own = {key: tensor for key, tensor in own.items() if not key.startswith("head.")}
    table = backbone_table(name, wanted, prefix=prefix, head=head, keys=bool(config.get("key_bias")))
    return name, config, table.write(own, exported.carried)


def _with_head(name: str) -> tuple[str, str]:
    """The classifier of a body's family, and the prefix of its body.

    Raises:
        WeightsError: transformers has none.
    """
    kind = BACKBONES[name]
    for other, found in BACKBONES.items():
        if found.head == "classifier" and found.model_types == kind.model_types and not found.nested:
            return other, found.prefix
    raise WeightsError(
        f"transformers has no classifier that reads a {name} as this model does",
        hint="export it to another format, such as timm or onnx",
    )


def _vision_part(name: str, config: dict[str, Any], exported: Exported) -> tuple[str, dict[str, Any]]:
    """The class of the image encoder of a whole model, and its config.json."""
    projected = "visual_projection.weight" in exported.carried
    vision = name.replace("Model", "VisionModelWithProjection" if projected else "VisionModel")
    own = {
        **(config.get("vision_config") or {}),
        "architectures": [vision],
        "model_type": f"{BACKBONES[name].family}_vision_model",
    }
    if projected:
        own["projection_dim"] = len(exported.carried["visual_projection.weight"])
    return vision, own


def _sized(config: dict[str, Any], name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The config.json with another image size."""
    size = [int(side) for side in fields["image_size"]]
    value: Any = size[0] if size[0] == size[1] else size
    if "vision_config" in config:
        return config | {"vision_config": {**(config["vision_config"] or {}), "image_size": value}}
    del name
    return config | {"image_size": value}
