"""Export to a folder that timm loads, laid out as for the hub.

``timm.create_model("local-dir:FOLDER", pretrained=True)``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tesela.checkpoints.write import (
    CheckpointReport,
    as_json,
    check_classifier,
    crop_remarks,
    export_card,
    open_export,
    write_checkpoint,
)
from tesela.models.bundle import WEIGHTS


def export_timm(source: Path | str, out: Path | str | None = None) -> CheckpointReport:
    """Write the bundle of ``source`` under timm's names, with the config.json that timm writes for the hub.

    Args:
        source: a run, a bundle, or any checkpoint that can be converted.
        out: the folder to write; ``timm`` inside a run, or ``<bundle>-timm`` beside a bundle, if None.

    Raises:
        UsageError: ``out`` holds something else.
        WeightsError: timm's VisionTransformer has no place for the model; the option is named.
    """
    from dataclasses import replace

    from tesela.checkpoints.convnext.write import timm_convnext
    from tesela.checkpoints.resnet.write import timm_resnet
    from tesela.checkpoints.swin.write import edge_remarks, timm_swin
    from tesela.checkpoints.timm.config import check_timm, style_for, timm_config, timm_kind
    from tesela.checkpoints.timm.names import timm_table
    from tesela.checkpoints.timm.through import through_timm
    from tesela.checkpoints.tiny_vit.write import timm_tiny_vit

    exported = open_export(source)
    check_classifier(exported, "timm")
    info, origin = exported.info, exported.origin
    if info.architecture == "swin":
        config, tensors = timm_swin(exported)
        remarks = edge_remarks(exported, "timm")
    elif info.architecture == "convnext":
        config, tensors, remarks = timm_convnext(exported)
    elif info.architecture in ("tiny_vit", "resnet"):
        make = timm_tiny_vit if info.architecture == "tiny_vit" else timm_resnet
        (config, tensors), remarks = make(exported), []
    else:
        fields: dict[str, Any] = dict(info.model)
        known = origin if origin.get("format") == "timm" else {}
        remarks = check_timm(info.architecture, fields, kind=timm_kind(fields, known.get("style")))
        style = replace(style_for(fields, known.get("style")), head=not exported.headless())
        own = exported.tensors()
        if not style.head:
            own = {name: tensor for name, tensor in own.items() if not name.startswith("head.")}
        config = timm_config(
            info.architecture,
            fields,
            style,
            image=info.image,
            labels=exported.labels(),
            license=info.license,
            base=known.get("config"),
        )
        tensors = timm_table(info.architecture, fields, style).write(own, exported.carried if known else {})
    return write_checkpoint(
        exported,
        format="timm",
        architecture=str(config["architecture"]),
        out=out,
        source=source,
        weights=WEIGHTS,
        tensors=tensors,
        texts={
            "config.json": as_json(config),
            "README.md": export_card(
                info,
                library="timm",
                loading='import timm\nmodel = timm.create_model("local-dir:FOLDER", pretrained=True)',
            ),
        },
        remarks=[*remarks, *crop_remarks(info.image, "timm")],
        through=through_timm,
    )
