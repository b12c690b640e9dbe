"""Reader of TinyViT as timm keeps it; its sizes are read off the tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from tesela.checkpoints.files import license_of, read_weights
from tesela.checkpoints.foreign import Foreign, Place
from tesela.checkpoints.rules import check_stated
from tesela.checkpoints.stated_view import stated_view
from tesela.checkpoints.timm.read import check_timm_head
from tesela.checkpoints.tiny_vit.names import tiny_vit_table
from tesela.core.errors import WeightsError
from tesela.models.tensors import Tensors

_STEM = "patch_embed.conv2.conv.weight"
_TABLE = re.compile(r"stages\.(\d+)\.blocks\.0\.attn\.attention_biases")
_BLOCK = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\..*")
_KNOWN = "tiny_vit_5m, tiny_vit_11m and tiny_vit_21m are"
#: Windows that a name of timm stands for, by its image size: tables of others would be resized there.
_WINDOWS = {"224": (7, 14, 7), "384": (12, 24, 12), "512": (16, 32, 16)}
#: Fields of ours and timm's arguments that the tensors show, those known with these values, and others.
_SHOWN = {"channels": "in_chans", "widths": "embed_dims", "depths": "depths"}
_LATER = {"heads": "num_heads", "windows": "window_sizes"}  # the first stage, convolutional, has a value too
_FIXED: dict[str, tuple[Any, ...]] = {
    "global_pool": ("avg", "", None),
    "mbconv_expand_ratio": (4,),
    "local_conv_size": (3,),
    "act_layer": ("gelu",),
}
_HARMLESS = ("num_classes", "drop_rate", "proj_drop_rate", "drop_path_rate", "use_checkpoint", "mlp_ratio")


def find_tiny_vit(place: Place) -> Foreign | None:
    """The TinyViT that a config.json of timm names; None if it names something else.

    Raises:
        WeightsError: arguments that are not computed here or contradict the tensors, or a damaged file.
    """
    name = str(place.config.get("architecture", ""))
    if not name.startswith("tiny_vit"):
        return None
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
    _check_arguments(fields, place.config, source)
    check_timm_head(
        place.config, dict(place.config.get("pretrained_cfg") or {}), read.tensors, "head.fc.weight"
    )
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
        provenance={
            "format": "timm",
            "architecture": place.config.get("architecture"),
            "config": dict(place.config),
        },
    )


def _check_arguments(fields: dict[str, Any], config: Mapping[str, Any], source: str) -> None:
    """Refuse arguments of timm that are not computed here, or contradict the tensors.

    Raises:
        WeightsError: naming the argument.
    """
    stated = {"global_pool": config.get("global_pool"), **(config.get("model_args") or {})}
    for name, value in stated.items():
        known = name in (*_SHOWN.values(), *_LATER.values(), *_HARMLESS) or value in _FIXED.get(name, ())
        if not known:
            raise WeightsError(
                f"{source}: a TinyViT of timm with {name}={value!r} is not computed here",
                hint=f"one with {name}={_FIXED[name][0]!r} is" if name in _FIXED else "one without is",
            )
    check_stated(fields, stated, _SHOWN, source)
    later = {name: list(stated[name])[1:] for name in _LATER.values() if stated.get(name) is not None}
    side = str(config.get("architecture", "")).partition(".")[0].rpartition("_")[2]
    if side in _WINDOWS:
        later.setdefault("window_sizes", list(_WINDOWS[side]))
    check_stated(fields, later, _LATER, source)
    ratio, width = stated.get("mlp_ratio"), fields["widths"][1]
    if ratio is not None:
        if int(ratio * width) != round(fields["mlp_ratio"] * width):
            check_stated(fields, {"mlp_ratio": ratio}, {"mlp_ratio": "mlp_ratio"}, source)
        fields["mlp_ratio"] = float(ratio)


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
