"""Certificate of a conversion: what was read and assumed, and outputs of a fixed input.

The reference is the library that the source is of, where it is installed and can open the source; a model
that computes otherwise there is not written. Odd: a body without a classifier is compared by its tokens,
of which the first values are kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tesela.core.errors import WeightsError
from tesela.core.files import write_text

if TYPE_CHECKING:
    from torch import Tensor

    from tesela.checkpoints.foreign import Opened
    from tesela.models.model import Model

CERTIFICATE = "certificate.json"
#: Largest difference of an output, as a share of the largest output.
FARTHEST = 1e-4
#: Values of an output that are kept.
_KEPT = 1000


def make_certificate(opened: Opened, *, changed: bool) -> dict[str, Any]:
    """The certificate of an opened checkpoint.

    Args:
        opened: the checkpoint.
        changed: whether the user asked for another image size or head than the source has.

    Raises:
        WeightsError: the library that the source is of computes otherwise.
    """
    import torch

    model, source = opened.model, dict(opened.info.provenance.get("source", {}))
    shape = (1, model.config.channels, *model.config.image_size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    headless = not source.get("head", True)
    with torch.inference_mode():
        own = outputs_of(model, images, headless)
        asked: tuple[dict[str, Tensor], str] = ({}, "another image size or head was asked for")
        reference, reason = asked if changed else _reference(opened, images)
    found = {}
    for program, theirs in reference.items():
        error = float((theirs - own).abs().max()) / max(float(theirs.abs().max()), 1e-6)
        if not error <= FARTHEST:
            raise WeightsError(
                f"the model computes other outputs than {program}: {error:.1e} of the largest",
                hint="please report this, with the source; nothing was written",
            )
        found[program] = {"difference": error, "outputs": _values(theirs)}
    return {
        "format": source.get("format"),
        "architecture": source.get("architecture"),
        "files": source.get("files", {}),
        "assumed": opened.remarks,
        "input": {"shape": list(shape), "values": "normal, torch.Generator, seed 0"},
        "of": "tokens after the last norm" if headless else "logits",
        "outputs": _values(own),
        "reference": found or reason,
    }


def write_certificate(folder: Path, certificate: dict[str, Any]) -> None:
    """Write it beside the weights."""
    write_text(folder / CERTIFICATE, json.dumps(certificate, indent=1) + "\n")


def outputs_of(model: Model, images: Tensor, headless: bool) -> Tensor:
    """Logits, or the tokens of a model without a classifier."""
    return model.features(images).tokens if headless else model(images)


def _values(outputs: Tensor) -> list[float]:
    return [float(value) for value in outputs.flatten()[:_KEPT]]


def _reference(opened: Opened, images: Tensor) -> tuple[dict[str, Tensor], str]:
    """Outputs by the name and version of the library; without any, the reason."""
    source = dict(opened.info.provenance.get("source", {}))
    folder, form = opened.source, source.get("format")
    if folder is None or not folder.is_dir() or form not in ("huggingface", "timm"):
        return {}, "the source is no folder that its library opens"
    if form == "huggingface":
        from tesela.checkpoints.huggingface.through import through_transformers as through
    else:
        from tesela.checkpoints.timm.through import through_timm as through
    try:
        found = through(folder, images, not source.get("head", True))
    except Exception as error:
        return {}, f"{form} did not open the source: {type(error).__name__}"
    named = {program.removeprefix("in "): outputs.float() for program, outputs in found.items()}
    return named, "its library is not installed, or gives no such outputs"
