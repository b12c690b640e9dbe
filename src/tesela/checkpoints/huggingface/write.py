"""Export for transformers' ``from_pretrained``.

ViT, DeiT with its teacher's head, DINOv2, SegFormer, Swin, ConvNeXt, ResNet, and other classes' models.

Odd: a bundle that was converted from such a folder goes back to the same class, with what its config.json
and preprocessor said beside what we use. DINOv2 wants a mask token, which no classifier reads: zeros,
where the bundle carries none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tesela.checkpoints.huggingface.preprocessor import read_spec, write_spec
from tesela.checkpoints.write import (
    CheckpointReport,
    Exported,
    as_json,
    check_classifier,
    crop_remarks,
    export_card,
    open_export,
    write_checkpoint,
)
from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import WEIGHTS

#: Families with a writer of their own.
_STAGED = ("swin", "convnext", "resnet")


def export_huggingface(source: Path | str, out: Path | str | None = None) -> CheckpointReport:
    """Write the bundle of ``source`` as a Hugging Face folder.

    Args:
        source: a run, a bundle, or any checkpoint that can be converted.
        out: the folder to write; ``hf`` inside a run, or ``<bundle>-hf`` beside a bundle, if None.

    Raises:
        UsageError: ``out`` holds something else.
        WeightsError: transformers has no place for the model; the option is named.
    """
    import torch

    from tesela.checkpoints.huggingface.backbones import BACKBONES
    from tesela.checkpoints.huggingface.config import (
        check_huggingface,
        choose_architecture,
        huggingface_config,
    )
    from tesela.checkpoints.huggingface.names import ARCHITECTURES, bare, huggingface_table
    from tesela.checkpoints.huggingface.segformer import segformer_config
    from tesela.checkpoints.huggingface.through import through_transformers

    exported = open_export(source)
    if exported.info.architecture != "segformer":
        check_classifier(exported, "transformers")
    info, origin = exported.info, exported.origin
    fields: dict[str, Any] = dict(info.model)
    known = origin.get("architecture") if origin.get("format") == "huggingface" else None
    if known in BACKBONES or info.architecture in _STAGED:
        return _export_files(exported, source, out)
    hierarchical = info.architecture == "segformer"
    decoder = info.options.get("decoder", {})
    if hierarchical:
        architecture = f"SegformerFor{'SemanticSegmentation' if decoder else 'ImageClassification'}"
    else:
        architecture = choose_architecture(info.architecture, fields)
    if exported.headless():
        architecture = bare(architecture)
    if known in ARCHITECTURES and ARCHITECTURES[known].model_type == ARCHITECTURES[architecture].model_type:
        if exported.headless():
            architecture = bare(known)
        elif ARCHITECTURES[known].head != "none":
            architecture = known
    kind = ARCHITECTURES[architecture]
    if not hierarchical:
        check_huggingface(architecture, fields)
    stages = len(fields.get("depths", ()))
    names = huggingface_table(architecture, swiglu=fields.get("mlp") == "swiglu", stages=stages)
    base = dict(origin.get("config") or {}) if known is not None else {}
    config = {key: value for key, value in base.items() if key not in ("id2label", "label2id", "num_labels")}
    if hierarchical:
        config |= segformer_config(architecture, fields, decoder, exported.labels())
    else:
        config |= huggingface_config(architecture, fields, labels=exported.labels())
    if kind.head == "none" and "id2label" in base:
        config |= {key: base[key] for key in ("id2label", "label2id") if key in base}
    carried = dict(exported.carried)
    mask = f"{kind.prefix}embeddings.mask_token"
    if kind.model_type.startswith("dinov2") and mask not in carried and base.get("use_mask_token", True):
        carried[mask] = torch.zeros(1, fields["width"])
    own = exported.tensors()
    if kind.head == "none":
        own = {name: tensor for name, tensor in own.items() if not name.startswith("head.")}
    return write_checkpoint(
        exported,
        format="hf",
        architecture=architecture,
        out=out,
        source=source,
        weights=WEIGHTS,
        tensors=names.write(own, carried),
        texts={
            "config.json": as_json(config),
            "preprocessor_config.json": as_json(_preprocessor(info.image, fields, kind.model_type, origin)),
            "README.md": export_card(
                info,
                library="transformers",
                loading=(
                    f"from transformers import {architecture}\nmodel = {architecture}.from_pretrained(FOLDER)"
                ),
            ),
        },
        remarks=[
            *crop_remarks(info.image, "transformers"),
            *(
                ["at other image sizes transformers interpolates positions without the model's offset"]
                if fields.get("position_mode") == "bicubic_offset"
                else []
            ),
        ],
        through=through_transformers,
    )


def _export_files(exported: Exported, source: Path | str, out: Path | str | None) -> CheckpointReport:
    """Write a model in stages, or one that was read from another class of transformers than ViT's."""
    from tesela.checkpoints.convnext.write import transformers_convnext
    from tesela.checkpoints.huggingface.backbones import BACKBONES
    from tesela.checkpoints.huggingface.through import through_transformers
    from tesela.checkpoints.huggingface.write_backbone import backbone_files
    from tesela.checkpoints.resnet.write import transformers_resnet
    from tesela.checkpoints.swin.write import edge_remarks, transformers_swin

    info, remarks = exported.info, []
    if info.architecture == "swin":
        name, config, tensors = transformers_swin(exported)
        kind, remarks = "swin", edge_remarks(exported, "transformers")
    elif info.architecture == "convnext":
        name, config, tensors = transformers_convnext(exported)
        kind = "convnext"
    elif info.architecture == "resnet":
        name, config, tensors = transformers_resnet(exported)
        kind = "resnet"
    else:
        name, config, tensors = backbone_files(exported)
        kind = BACKBONES[name].family
    preprocessor = _preprocessor(info.image, dict(info.model), kind, exported.origin)
    loading = f"from transformers import {name}\nmodel = {name}.from_pretrained(FOLDER)"
    return write_checkpoint(
        exported,
        format="hf",
        architecture=name,
        out=out,
        source=source,
        weights=WEIGHTS,
        tensors=tensors,
        texts={
            "config.json": as_json(config),
            "preprocessor_config.json": as_json(preprocessor),
            "README.md": export_card(info, library="transformers", loading=loading),
        },
        remarks=[*crop_remarks(info.image, "transformers"), *remarks],
        through=through_transformers,
    )


def _preprocessor(
    image: ImageSpec, fields: dict[str, Any], model_type: str, origin: dict[str, Any]
) -> dict[str, Any]:
    """The source's own preprocessor_config.json where it still says what the bundle does, else a new one."""
    given = origin.get("preprocessor")
    if isinstance(given, dict):
        size = (int(fields["image_size"][0]), int(fields["image_size"][1]))
        if read_spec(given, model_type=model_type, image_size=size, channels=fields["channels"])[0] == image:
            return given
    spec = write_spec(image)
    if model_type == "segformer" and not spec.get("do_center_crop"):
        spec |= {"image_processor_type": "SegformerImageProcessor", "do_reduce_labels": False}
    return spec
