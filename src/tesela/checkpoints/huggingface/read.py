"""Reader of Hugging Face folders: config.json, weights, preprocessor_config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tesela.checkpoints.files import license_of, read_mapping, read_weights
from tesela.checkpoints.foreign import Foreign, Place
from tesela.checkpoints.huggingface.backbones import backbone_name
from tesela.checkpoints.huggingface.config import (
    architecture_of,
    head_kind,
    huggingface_fields,
    read_labels,
)
from tesela.checkpoints.huggingface.names import ARCHITECTURES, bare, huggingface_table
from tesela.checkpoints.huggingface.preprocessor import PREPROCESSOR, read_spec
from tesela.checkpoints.huggingface.read_backbone import read_backbone
from tesela.checkpoints.huggingface.segformer import segformer_decoder
from tesela.checkpoints.state import Weights, own_names

#: A tensor that every network of a model type has, without the prefix of its body.
ANCHORS = {
    "segformer": "encoder.patch_embeddings.0.proj.weight",
    "": "embeddings.patch_embeddings.projection.weight",
}
HEADS = ("classifier.", "cls_classifier.", "distillation_classifier.", "decode_head.")
#: Image size of a model whose files do not say one: SegFormer's, on ADE20K.
UNSAID = (512, 512)


def find_huggingface(place: Place) -> Foreign | None:
    """The checkpoint of a folder with transformers' config.json; None if it is another's.

    Raises:
        WeightsError: the architecture is not known, or a file is missing or damaged.
    """
    config, folder = place.config, place.folder
    if "model_type" not in config and "architectures" not in config:
        return None
    if (other := backbone_name(config)) is not None:
        return read_backbone(place, other)
    architecture_of(config, {})  # an unknown one is refused before gigabytes are read
    architecture, read = _named(config, read_weights(folder, place.weights))
    tensors = read.tensors
    family, fields = huggingface_fields(config, architecture)
    kind = ARCHITECTURES[architecture]
    heads = {
        "classifier": "classifier.bias",
        "teacher": "cls_classifier.bias",
        "decoder": "decode_head.classifier.bias",
    }
    head = heads.get(kind.head)
    if head is not None and config.get("id2label") == {} and head not in tensors:
        architecture = bare(architecture)
        tensors = {name.removeprefix(kind.prefix): tensor for name, tensor in tensors.items()}
        head = None
    stages = len(fields.get("stages", config.get("depths", (0,) * config.get("num_encoder_blocks", 4))))
    names = huggingface_table(architecture, swiglu=fields.get("mlp") == "swiglu", stages=stages)
    labels = (
        read_labels(config, tensors[head].shape[0]) if head in tensors and tensors[head].ndim == 1 else None
    )
    spec = read_mapping(folder / PREPROCESSOR) if (folder / PREPROCESSOR).is_file() else None
    image, remarks = read_spec(
        spec,
        model_type=kind.model_type,
        image_size=fields.get("image_size", UNSAID),
        channels=fields.get("channels", 3),
    )
    if kind.head == "decoder" and image.resized:
        image = image.exact("squash")
        remarks.append("images are squashed, not cut: a segmenter has to see all of them")
    fields.setdefault("image_size", image.size)
    return Foreign(
        source=folder,
        files=read.files,
        family=family,
        fields=fields,
        layout=names,
        decoder=segformer_decoder(config) if kind.head == "decoder" else {},
        tensors=tensors,
        image=image,
        labels=labels,
        remarks=[*read.notes, *remarks],
        head_kind=head_kind(config) if head is not None else "",
        license=license_of(folder),
        provenance={
            "format": "huggingface",
            "architecture": architecture,
            "config": dict(config),
            "preprocessor": spec,
        },
    )


def _named(config: Mapping[str, Any], read: Weights) -> tuple[str, Weights]:
    """The architecture, and its tensors under its own names, as ``from_pretrained`` finds them.

    A body without the prefix of its classifier's file, and a bare model's file with that prefix, are taken as
    what the other is.
    """
    model_type = ARCHITECTURES[architecture_of(config, {})].model_type
    body = next(
        kind.prefix for kind in ARCHITECTURES.values() if kind.model_type == model_type and kind.prefix
    )
    anchor = ANCHORS.get(model_type, ANCHORS[""])
    whole = any(name.endswith(body + anchor) for name in read.tensors)
    read = own_names(read, anchor, prefix=body if whole else "")
    architecture, tensors = architecture_of(config, read.tensors), read.tensors
    wanted = ARCHITECTURES[architecture].prefix
    if wanted and not whole and anchor in tensors:
        heads = {name for name in tensors if name.startswith(HEADS)}
        if heads:
            named = {name if name in heads else body + name: tensor for name, tensor in tensors.items()}
            return architecture, replace(read, tensors=named)
        note = f"config.json names {architecture}, and the file holds its body alone"
        return bare(architecture), replace(read, notes=(*read.notes, note))
    if whole and not wanted:
        inside = {name.removeprefix(body): one for name, one in tensors.items() if name.startswith(body)}
        rest = sorted(name for name in tensors if not name.startswith(body))
        note = f"left aside, since {architecture} has none: {', '.join(rest[:6])}"
        return architecture, replace(read, tensors=inside, notes=(*read.notes, *([note] if rest else [])))
    return architecture, read
