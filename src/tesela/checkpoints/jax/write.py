"""Export to an .npz that the paper's JAX code reads: plain ViTs and hybrids.

Its function is ``load_pretrained``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tesela.checkpoints.write import (
    CheckpointReport,
    check_classifier,
    export_card,
    open_export,
    write_checkpoint,
)
from tesela.core.errors import WeightsError

JAX_WEIGHTS = "model.npz"


def export_jax(source: Path | str, out: Path | str | None = None) -> CheckpointReport:
    """Write the bundle of ``source`` as an .npz of the paper's code.

    Args:
        source: a run, a bundle, or any checkpoint that can be converted.
        out: the folder to write; ``jax`` inside a run, or ``<bundle>-jax`` beside a bundle, if None.

    Raises:
        UsageError: ``out`` holds something else.
        WeightsError: the JAX code has no place for the model; the option is named.
    """
    from tesela.checkpoints.jax.names import JaxStyle, check_jax, jax_table, units_of

    exported = open_export(source)
    check_classifier(exported, "the paper's JAX code")
    info, origin = exported.info, exported.origin
    fields: dict[str, Any] = dict(info.model)
    check_jax(info.architecture, fields)
    for name, value in (("root", "large"), ("norm_groups", 32)):
        if fields.get(name, value) != value:
            raise WeightsError(
                f"the paper's JAX code has no {name}={fields[name]}",
                hint=f"only hybrids with {name}={value} fit",
            )
    style = JaxStyle(**origin["style"]) if origin.get("format") == "jax" else None
    own = exported.tensors()
    head = not exported.headless()
    if not head:
        own = {name: tensor for name, tensor in own.items() if not name.startswith("head.linear.")}
    names = jax_table(info.architecture, fields, style=style, units=units_of(own, own=True), head=head)
    return write_checkpoint(
        exported,
        format="jax",
        architecture="VisionTransformer",
        out=out,
        source=source,
        weights=JAX_WEIGHTS,
        tensors=names.write(own),
        texts={
            "README.md": export_card(
                info, library="jax", loading="import numpy\nparameters = dict(numpy.load('model.npz'))"
            )
        },
        remarks=[
            "an .npz holds neither labels nor preprocessing; README.md says what images the model takes"
        ],
    )
