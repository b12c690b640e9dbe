"""Export to a folder that timm loads, laid out as for the hub.

``timm.create_model("local-dir:FOLDER", pretrained=True)``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tesela.checkpoints.write import (
    CheckpointReport,
    as_json,
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

    from tesela.checkpoints.swin.write import edge_remarks, timm_swin
    from tesela.checkpoints.timm.config import check_timm, style_for, timm_config, timm_kind
    from tesela.checkpoints.timm.names import timm_table
    from tesela.checkpoints.timm.through import through_timm

    exported = open_export(source)
    info, origin = exported.info, exported.origin
    if info.architecture == "swin":
        config, tensors = timm_swin(exported)
        remarks = edge_remarks(exported, "timm")
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
