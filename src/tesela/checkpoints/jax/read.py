"""A checkpoint of the paper's JAX code, an .npz."""

from __future__ import annotations

import dataclasses

from tesela.checkpoints.files import read_npz
from tesela.checkpoints.foreign import Foreign, Place, image_spec
from tesela.checkpoints.jax.names import (
    jax_fields,
    jax_table,
    style_of,
    units_of,
    without_training_state,
)
from tesela.core.errors import WeightsError


def find_jax(place: Place) -> Foreign | None:
    """The checkpoint in an .npz; None if it is another's.

    Raises:
        WeightsError: it is damaged, or no ViT or hybrid.
    """
    path, image_size = place.weights, place.image_size
    if path is None or path.suffix != ".npz":
        return None
    arrays = read_npz(path)
    style = style_of(arrays)
    arrays, aside = without_training_state(arrays, style)
    own = {name.removeprefix(style.prefix): array for name, array in arrays.items()}
    try:
        family, fields = jax_fields(own, image_size=image_size)
    except (IndexError, ZeroDivisionError, ValueError) as error:
        raise WeightsError(
            f"{path} has arrays of shapes that no ViT has ({error})", hint="give a file such as ViT-B_16.npz"
        ) from error
    names = jax_table(
        family, fields, style=style, units=units_of(own), head="head/bias" in own or "head/kernel" in own
    )
    return Foreign(
        source=path,
        files=[path],
        family=family,
        fields=fields,
        layout=names,
        tensors=arrays,
        image=image_spec(fields["image_size"], fields["channels"]),
        remarks=aside,
        provenance={"format": "jax", "style": dataclasses.asdict(style)},
    )
