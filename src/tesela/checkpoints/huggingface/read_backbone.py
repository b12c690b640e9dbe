"""Reader of transformers' backbones beside ViT, DeiT and DINOv2: folders with config.json."""

from __future__ import annotations

from dataclasses import replace

from tesela.checkpoints.files import license_of, read_mapping, read_weights
from tesela.checkpoints.foreign import Foreign, Place
from tesela.checkpoints.huggingface.backbone_names import BACKBONE_ANCHORS, backbone_table
from tesela.checkpoints.huggingface.backbones import BACKBONES, backbone_fields
from tesela.checkpoints.huggingface.config import head_kind, read_labels
from tesela.checkpoints.huggingface.preprocessor import PREPROCESSOR, read_spec
from tesela.checkpoints.state import Weights, own_names
from tesela.core.errors import WeightsError

#: Parts of whole models that are no image encoder.
_OTHER_TOWERS = ("text_model.", "text_projection.", "logit_scale", "logit_bias")


def read_backbone(place: Place, name: str) -> Foreign:
    """The checkpoint of a folder.

    Args:
        place: the folder.
        name: an entry of ``BACKBONES``.

    Raises:
        WeightsError: it uses what we have not, or a file is missing or damaged.
    """
    backbone_fields(place.config, name)  # an option that is not computed is refused before gigabytes are read
    return read_tensors_of(place, name, read_weights(place.folder, place.weights))


def read_tensors_of(place: Place, name: str, read: Weights) -> Foreign:
    """The same, of tensors that were read.

    Args:
        place: of the file; its config is transformers'.
        name: an entry of ``BACKBONES``.
        read: the tensors.

    Raises:
        WeightsError: as ``read_backbone``.
    """
    config, folder, kind = place.config, place.folder, BACKBONES[name]
    fields = backbone_fields(config, name)
    read, prefix = _named(read, name)
    tensors = read.tensors
    head = kind.head == "classifier" and "classifier.weight" in tensors
    if kind.head == "classifier" and not head:  # a classifier's config beside a body
        read = replace(
            read, notes=(*read.notes, f"config.json names {name}, and the file holds its body alone")
        )
    labels = read_labels(config, len(tensors["classifier.weight"])) if head else None
    spec = read_mapping(folder / PREPROCESSOR) if (folder / PREPROCESSOR).is_file() else None
    image, remarks = read_spec(
        spec, model_type=kind.family, image_size=fields["image_size"], channels=fields["channels"]
    )
    if kind.family == "aimv2":
        remarks.append("the patches are averaged: AIMv2's own pooling has no equal here")
    return Foreign(
        source=place.weights or folder,
        files=read.files,
        family="vit",
        fields=fields,
        layout=backbone_table(name, fields, prefix=prefix, head=head, keys=bool(config.get("key_bias"))),
        tensors=tensors,
        image=image,
        labels=labels,
        remarks=[*read.notes, *remarks],
        head_kind=head_kind(config) if head else "",
        license=license_of(folder),
        provenance={
            "format": "huggingface",
            "architecture": name,
            "prefix": prefix,
            "config": dict(config),
            "preprocessor": spec,
        },
    )


def _named(read: Weights, name: str) -> tuple[Weights, str]:
    """The tensors of the image encoder and its heads, and the prefix of its names.

    Raises:
        WeightsError: there is no image encoder.
    """
    kind = BACKBONES[name]
    anchor = BACKBONE_ANCHORS.get(kind.family, BACKBONE_ANCHORS[""])
    prefixes = {other.prefix for other in BACKBONES.values() if other.family == kind.family and other.prefix}
    if not any(key.endswith(anchor) for key in read.tensors):
        text = any(key.startswith(_OTHER_TOWERS[0]) for key in read.tensors)
        raise WeightsError(
            f"the file holds no image encoder of {name}: {anchor} is missing"
            + (", and there is a text encoder" if text else ""),
            hint="give the whole model or its vision part"
            if text
            else "use files that were written together",
        )
    aside = sorted(key for key in read.tensors if key.startswith(_OTHER_TOWERS))
    kept = {key: tensor for key, tensor in read.tensors.items() if key not in aside}
    notes = [*read.notes]
    if aside:
        notes.append(
            f"left aside, since it is no part of the image encoder: {len(aside)} tensors of the text encoder"
        )
    read = replace(read, tensors=kept, notes=tuple(notes))
    prefix = next((one for one in prefixes if any(key.endswith(one + anchor) for key in kept)), "")
    read = own_names(read, anchor, prefix=prefix)
    if prefix and any(key.startswith("encoder.layer.") for key in read.tensors):
        renamed = {
            prefix + key if key.startswith("encoder.layer.") else key: one
            for key, one in read.tensors.items()
        }
        read = replace(read, tensors=renamed)
    return read, prefix
