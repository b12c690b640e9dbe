"""Reader of TinyViT as timm keeps it; its sizes are read off the tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from tesela.checkpoints.files import license_of, read_weights
from tesela.checkpoints.foreign import Foreign, Place
from tesela.checkpoints.stated_view import stated_view
from tesela.checkpoints.tiny_vit.names import tiny_vit_table
from tesela.core.errors import WeightsError
from tesela.models.tensors import Tensors

_STEM = "patch_embed.conv2.conv.weight"
_TABLE = re.compile(r"stages\.(\d+)\.blocks\.0\.attn\.attention_biases")
_BLOCK = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\..*")
_KNOWN = "tiny_vit_5m, tiny_vit_11m and tiny_vit_21m are"


def find_tiny_vit(place: Place) -> Foreign | None:
    """The TinyViT that a config.json of timm names; None if it names something else.

    Raises:
        WeightsError: other arguments than the published ones, or a damaged file.
    """
    name = str(place.config.get("architecture", ""))
    if not name.startswith("tiny_vit"):
        return None
    if place.config.get("model_args"):
        raise WeightsError(f"{place.folder}: a {name} with model_args is not known", hint=_KNOWN)
    found = _found(place)
    if found is None:
        raise WeightsError(
            f"{place.folder} holds no TinyViT: its stem or its windows are missing",
            hint="use files that belong together",
        )
    return found


def find_tiny_vit_file(place: Place) -> Foreign | None:
    """The TinyViT in a file of timm's without config.json; None if it holds something else."""
    return None if place.config or place.weights is None else _found(place)


def _found(place: Place) -> Foreign | None:
    read = read_weights(place.folder, place.weights)
    tables = {int(match[1]): name for name in read.tensors if (match := _TABLE.fullmatch(name))}
    if _STEM not in read.tensors or sorted(tables) != list(range(1, len(tables) + 1)) or not tables:
        return None
    source = str(place.weights or place.folder)
    fields = _fields(read.tensors, tables, source)
    image, remarks = stated_view(place, theirs=False, channels=fields["channels"])
    head = "head.fc.weight" in read.tensors
    names = place.config.get("label_names")
    return Foreign(
        source=place.weights or place.folder,
        files=read.files,
        family="tiny_vit",
        fields={**fields, "image_size": image.size},
        layout=tiny_vit_table(fields["heads"], head=head),
        tensors=read.tensors,
        image=image,
        labels=[str(one) for one in names] if head and isinstance(names, list) and names else None,
        remarks=[*read.notes, *remarks],
        license=str((place.config.get("pretrained_cfg") or {}).get("license") or license_of(place.folder)),
        provenance={"format": "tiny_vit", "config": dict(place.config)},
    )


def _fields(tensors: Tensors, tables: Mapping[int, str], source: str) -> dict[str, Any]:
    """Fields of our configuration.

    Raises:
        WeightsError: tensors of other shapes than TinyViT's.
    """
    biases = [tensors[tables[stage]] for stage in sorted(tables)]
    windows = [math.isqrt(table.shape[-1]) for table in biases]
    depths: dict[int, set[int]] = {}
    for name in tensors:
        if match := _BLOCK.fullmatch(name):
            depths.setdefault(int(match[1]), set()).add(int(match[2]))
    try:
        widths = [tensors[_STEM].shape[0]]
        widths += [tensors[f"stages.{stage}.blocks.0.attn.proj.weight"].shape[0] for stage in sorted(tables)]
        hidden = tensors["stages.1.blocks.0.mlp.fc1.weight"].shape[0]
        channels = tensors["patch_embed.conv1.conv.weight"].shape[1]
    except KeyError as error:
        raise WeightsError(
            f"{source} lacks {error.args[0]}", hint="the file is incomplete; download it again"
        ) from error
    odd = any(
        table.ndim != 2 or window**2 != table.shape[1] for table, window in zip(biases, windows, strict=True)
    )
    if odd or len(depths) != len(widths):
        raise WeightsError(f"{source}: windows or stages are not those of a TinyViT", hint=_KNOWN)
    return {
        "channels": channels,
        "widths": tuple(widths),
        "depths": tuple(len(depths[stage]) for stage in sorted(depths)),
        "heads": tuple(table.shape[0] for table in biases),
        "windows": tuple(windows),
        "mlp_ratio": hidden / widths[1],
    }
