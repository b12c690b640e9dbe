"""Write a foreign checkpoint as a bundle.

Odd: tensors that have no part in the network (a pooler, a mask token) go into ``carried.safetensors``
beside the weights, under their own names, so that an export back to their format is whole. Training on
from the bundle leaves them behind.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tesela.checkpoints.open import bundle_at, open_foreign
from tesela.core.errors import UsageError
from tesela.core.files import folder_atomic, sha256_file, write_text
from tesela.models.bundle import CARD, WEIGHTS, BundleInfo, read_info, write_info
from tesela.models.card import named, plain_card

if TYPE_CHECKING:
    from tesela.checkpoints.foreign import Opened

CARRIED = "carried.safetensors"


def convert_checkpoint(
    source: str | Path,
    out: Path,
    *,
    image_size: tuple[int, int] | None = None,
    num_classes: int | None = None,
    heads: int | None = None,
) -> Opened:
    """Write ``source`` as a bundle folder, whole or not at all.

    Args:
        source: a Hugging Face folder, a timm or JAX file, ``hub:NAME[@REVISION]``.
        out: the folder; an older bundle there is replaced.
        image_size: another (height, width), or the one that positions leave open.
        num_classes: of a new head, where another number is wanted or the source has none.
        heads: of an attention, for a timm checkpoint without a config.

    Returns:
        the model as it was written, with remarks.

    Raises:
        UsageError: ``source`` is a bundle already, or ``out`` holds something else.
        WeightsError: the checkpoint is damaged or does not fit; tensors are named.
        ConfigError: ``image_size`` does not fit the model.
    """
    from tesela.checkpoints.certificate import make_certificate
    from tesela.checkpoints.foreign import Opened

    bundle = bundle_at(source)
    if bundle is not None:
        read_info(bundle)  # a damaged config.json is refused as such
        raise UsageError(
            f"{source} is a tesela bundle already",
            hint="copy it, or export it to another format with tesela export",
        )
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and bundle_at(out) != out)):
        raise UsageError(f"{out} exists and is no bundle", hint="choose a new folder")
    opened = open_foreign(source, image_size=image_size, num_classes=num_classes, heads=heads)
    changed = image_size is not None or num_classes is not None
    info = write(out, opened, certificate=make_certificate(opened, changed=changed))
    opened.model.info = info
    return Opened(model=opened.model, info=info, carried=opened.carried, remarks=opened.remarks)


def write(out: Path, opened: Opened, *, certificate: dict[str, Any] | None = None) -> BundleInfo:
    """Write an opened checkpoint as a bundle; the info with digests."""
    from tesela.checkpoints.certificate import write_certificate
    from tesela.models.tensors import digests, save_tensors, tensors_of

    tensors = tensors_of(opened.model)
    needed = sum(tensor.nbytes for tensor in (*tensors.values(), *opened.carried.values()))
    with folder_atomic(out, needed=needed) as folder:
        sums = digests(tensors)
        save_tensors(folder / WEIGHTS, tensors)
        if opened.carried:
            save_tensors(folder / CARRIED, opened.carried)
            sums |= {CARRIED: sha256_file(folder / CARRIED)}
        info = replace(opened.info, digests=sums)
        write_info(folder, info)
        if certificate is not None:
            write_certificate(folder, certificate)
        write_text(folder / CARD, converted_card(info, opened.remarks))
    return info


def read_carried(bundle: Path, info: BundleInfo) -> dict[str, Any]:
    """The tensors that a bundle keeps for an export back.

    None if there are none or they are not as they were written.
    """
    from tesela.models.tensors import read_tensors

    file = bundle / CARRIED
    if not file.is_file() or info.digests.get(CARRIED) != sha256_file(file):
        return {}
    return dict(read_tensors(file))


def converted_card(info: BundleInfo, remarks: list[str]) -> str:
    """The model card."""
    source = info.provenance.get("source", {})
    origin = (
        f"{source['hub']} at {source['revision']}" if "hub" in source else ", ".join(source.get("files", {}))
    )
    notes = "".join(f"- {remark}\n" for remark in remarks)
    return plain_card(
        info,
        f"A {info.architecture} classifier, converted by tesela from "
        f"{source.get('format', 'another format')} ({origin}).",
        f"Classes: {named(info.labels)}",
        *([f"What to know:\n\n{notes}"] if notes else []),
    )
