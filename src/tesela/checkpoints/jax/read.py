"""A checkpoint of the paper's JAX code, an .npz."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tesela.checkpoints.files import read_npz
from tesela.checkpoints.found import Found, image_spec
from tesela.checkpoints.jax.names import layout, read_fields, style_of, units_of
from tesela.core.errors import WeightsError


def find_jax(path: Path, *, image_size: tuple[int, int] | None = None) -> Found:
    """The checkpoint in a file.

    Args:
        path: the .npz.
        image_size: (height, width) of the positions where their number is no square; another size otherwise.

    Raises:
        WeightsError: it is damaged, or no ViT or hybrid.
    """
    arrays = read_npz(path)
    style = style_of(arrays)
    own = {name.removeprefix(style.prefix): array for name, array in arrays.items()}
    try:
        family, fields = read_fields(own, image_size=image_size)
    except (IndexError, ZeroDivisionError, ValueError) as error:
        raise WeightsError(
            f"{path} has arrays of shapes that no ViT has ({error})", hint="give a file such as ViT-B_16.npz"
        ) from error
    names = layout(
        family, fields, style=style, units=units_of(own), head="head/bias" in own or "head/kernel" in own
    )
    return Found(
        source=path,
        files=[path],
        family=family,
        fields=fields,
        layout=names,
        tensors=arrays,
        image=image_spec(fields["image_size"], fields["channels"]),
        provenance={"format": "jax", "style": dataclasses.asdict(style)},
    )
