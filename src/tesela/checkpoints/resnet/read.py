"""Reader of plain residual networks as transformers, timm and torchvision keep them.

The sizes are read off the tensors. Odd: what changes a network without changing its tensors (another
activation, another place of the stride) is refused where the files say it.
"""

from __future__ import annotations

import re
from typing import Any

from tesela.checkpoints.files import license_of, read_mapping, read_weights
from tesela.checkpoints.foreign import Foreign, Place
from tesela.checkpoints.huggingface.config import head_kind, read_labels
from tesela.checkpoints.huggingface.preprocessor import PREPROCESSOR
from tesela.checkpoints.resnet.names import timm_resnet_table, transformers_resnet_table
from tesela.checkpoints.resnet.stated import check_timm_resnet, check_transformers_resnet
from tesela.checkpoints.stated_view import stated_view
from tesela.checkpoints.timm.read import check_timm_head
from tesela.core.errors import WeightsError
from tesela.models.tensors import Tensors

#: The first convolution in transformers.
_ROOT = "embedder.embedder.convolution.weight"


def find_resnet(place: Place) -> Foreign | None:
    """The residual network that a config.json names; None if it names something else.

    Raises:
        WeightsError: a variant that is not known, or a damaged file.
    """
    named = re.fullmatch(r"resnet\d+\w*", str(place.config.get("architecture", "")))
    return _found(place) if named or place.config.get("model_type") == "resnet" else None


def find_resnet_file(place: Place) -> Foreign | None:
    """The residual network in a file without config.json; None if it holds something else.

    Raises:
        WeightsError: a variant that is not known.
    """
    return None if place.config or place.weights is None else _found(place)


def _found(place: Place) -> Foreign | None:
    config, folder = place.config, place.folder
    theirs = config.get("model_type") == "resnet"
    read = read_weights(folder, place.weights)
    prefix = "resnet." if any(name.startswith("resnet.") for name in read.tensors) else ""
    first = f"{prefix}{_ROOT}" if theirs else "conv1.weight"
    stem = rf"{prefix}encoder\.stages\.(\d+)\." if theirs else r"layer(\d+)\."
    stages = {int(match[1]) for name in read.tensors if (match := re.match(stem, name))}
    if first not in read.tensors or not stages:
        if config:
            raise WeightsError(
                f"{folder} holds no plain residual network: {first} or its stages are missing",
                hint="plain networks are known, without a deep root and without attention",
            )
        return None
    source = str(place.weights or folder)
    fields = _fields(read.tensors, stages, prefix=prefix, theirs=theirs, source=source)
    image, remarks = stated_view(place, theirs=theirs, channels=fields["channels"])
    convolutions = 3 if fields["unit"] == "bottleneck" else 2
    weight = "classifier.1.weight" if theirs else "fc.weight"
    head = weight in read.tensors
    provenance: dict[str, Any] = {"config": dict(config)}
    if theirs:
        check_transformers_resnet(fields, config, source)
        table = transformers_resnet_table(len(stages), convolutions, head=head, prefix=prefix)
        file = folder / PREPROCESSOR
        provenance |= {
            "format": "huggingface",
            "architecture": "ResNetForImageClassification" if head else "ResNetModel",
            "preprocessor": read_mapping(file) if file.is_file() else None,
        }
    else:
        check_timm_resnet(fields, config, source)
        check_timm_head(config, dict(config.get("pretrained_cfg") or {}), read.tensors, weight)
        table = timm_resnet_table(len(stages), convolutions, head=head)
        provenance |= {"format": "timm", "architecture": config.get("architecture")}
    labels = config.get("label_names")
    if theirs and head:
        labels = read_labels(config, len(read.tensors[weight]))
    return Foreign(
        source=place.weights or folder,
        files=read.files,
        family="resnet",
        fields={**fields, "image_size": image.size},
        layout=table,
        tensors=read.tensors,
        image=image,
        labels=[str(label) for label in labels] if labels and head else None,
        remarks=[*read.notes, *remarks],
        license=str((config.get("pretrained_cfg") or {}).get("license") or license_of(folder)),
        head_kind=head_kind(config) if theirs and head else "",
        provenance=provenance,
    )


def _fields(tensors: Tensors, stages: set[int], *, prefix: str, theirs: bool, source: str) -> dict[str, Any]:
    """Fields of our configuration, from names and shapes."""
    first = f"{prefix}{_ROOT}" if theirs else "conv1.weight"
    kernel = tuple(tensors[first].shape)
    low = min(stages)
    unit = (
        prefix + "encoder.stages.{}.layers.{}.layer.{}.convolution.weight"
        if theirs
        else "layer{}.{}.conv{}.weight"
    )
    pattern = unit.split("{}")
    inside = re.compile(
        re.escape(pattern[0]) + r"(\d+)" + re.escape(pattern[1]) + r"(\d+)" + re.escape(pattern[2])
    )
    units: dict[int, set[int]] = {stage: set() for stage in stages}
    for name in tensors:
        match = inside.match(name)
        if match:
            units[int(match[1])].add(int(match[2]))
    if len(kernel) != 4 or kernel[2:] != (7, 7) or sorted(stages) != list(range(low, low + len(stages))):
        raise WeightsError(
            f"{source}: a residual network whose root is {'x'.join(map(str, kernel))} is not known",
            hint="one with a 7x7 convolution is",
        )
    last = unit.format(low, 0, 2 if theirs else 3)
    return {
        "stages": tuple(len(units[stage]) for stage in sorted(stages)),
        "width_factor": kernel[0] / 64,
        "unit": "bottleneck" if last in tensors else "basic",
        "root": "large",
        "channels": kernel[1],
    }
