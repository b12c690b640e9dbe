"""Reader of ConvNeXt and its second version as transformers and timm keep them.

Depths and widths are read off the tensors. Odd: variants of timm that compute something else with tensors of
the same names (norms of another kind or epsilon, another stem or head) are known by their architecture's name
alone; without a config.json that name is not known, and the usual epsilon is assumed and said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tesela.checkpoints.convnext.names import timm_convnext_table, transformers_convnext_table
from tesela.checkpoints.files import license_of, read_weights
from tesela.checkpoints.foreign import Foreign, Place
from tesela.checkpoints.stated_view import stated_view
from tesela.core.errors import WeightsError
from tesela.models.tensors import Tensors

_SIZES = "atto|femto|pico|nano|tiny|small|base|large|xlarge|xxlarge|huge"
#: timm's names of networks that are the same but for their sizes, some with a resolution or their data.
_KNOWN = re.compile(rf"convnext(v2)?_({_SIZES})(_384)?(_in22k|_in22ft1k)?")
#: timm's one size with another epsilon, 1e-5.
_LOOSE = "convnext_xxlarge"
_MODEL_TYPES = ("convnext", "convnextv2")


def find_convnext(place: Place) -> Foreign | None:
    """The ConvNeXt that a config.json names; None if it names something else.

    Raises:
        WeightsError: a variant that is not known, or a damaged file.
    """
    name = str(place.config.get("architecture", ""))
    theirs = place.config.get("model_type") in _MODEL_TYPES
    if not theirs and not name.startswith("convnext"):
        return None
    if not theirs and not _KNOWN.fullmatch(name):
        raise WeightsError(
            f"{place.folder}: timm's {name} computes in another way than ConvNeXt's own sizes, and is not "
            "known",
            hint="convnext_SIZE and convnextv2_SIZE are, without _ols, _rms, _hnf and _mlp",
        )
    found = _found(place, theirs=theirs)
    if found is None:
        raise WeightsError(
            f"{place.folder} holds no ConvNeXt: its stem or its blocks are missing",
            hint="use files that belong together",
        )
    return found


def find_convnext_file(place: Place) -> Foreign | None:
    """The ConvNeXt in a file of timm's without config.json; None if it holds something else."""
    return None if place.config or place.weights is None else _found(place, theirs=False)


def _found(place: Place, *, theirs: bool) -> Foreign | None:
    config = place.config
    read = read_weights(place.folder, place.weights)
    source = str(place.weights or place.folder)
    prefix = f"{config['model_type']}." if theirs else ""
    if theirs and not any(name.startswith(prefix) for name in read.tensors):
        prefix = ""  # the body alone
    stem = f"{prefix}embeddings.patch_embeddings.weight" if theirs else "stem.0.weight"
    inside = f"{re.escape(prefix)}encoder.stages" if theirs else "stages"
    block = r"layers" if theirs else "blocks"
    first = "dwconv" if theirs else "conv_dw"
    depths: dict[int, int] = {}
    for name in read.tensors:
        if match := re.fullmatch(rf"{inside}\.(\d+)\.{block}\.\d+\.{first}\.weight", name):
            depths[int(match[1])] = depths.get(int(match[1]), 0) + 1
    if stem not in read.tensors or not depths or sorted(depths) != list(range(len(depths))):
        return None
    if theirs:
        _check(config, source)
    elif config.get("model_args"):
        raise WeightsError(
            f"{source}: a ConvNeXt with model_args is not known", hint="one of the published sizes is"
        )
    names = [f"{inside}.{stage}.{block}.0.{first}.weight".replace("\\", "") for stage in range(len(depths))]
    fields = _fields(read.tensors, stem, names, depths, config, theirs=theirs, source=source)
    image, remarks = stated_view(place, theirs=theirs, channels=fields["channels"])
    if not config:
        remarks.append("no config.json: norms have an epsilon of 1e-6, as in all sizes but xxlarge")
    head = ("classifier.weight" if theirs else "head.fc.weight") in read.tensors
    if theirs:
        table = transformers_convnext_table(len(depths), prefix, head=head)
    else:
        dense = read.tensors["stages.0.blocks.0.mlp.fc1.weight"]
        table = timm_convnext_table(len(depths), convolutions=dense.ndim == 4, head=head)
    return Foreign(
        source=place.weights or place.folder,
        files=read.files,
        family="convnext",
        fields={**fields, "image_size": image.size},
        layout=table,
        tensors=read.tensors,
        image=image,
        labels=_labels(config, theirs=theirs) if head else None,
        remarks=[*read.notes, *remarks],
        license=str((config.get("pretrained_cfg") or {}).get("license") or license_of(place.folder)),
        provenance={"format": "convnext", "config": dict(config)},
    )


def _check(config: Mapping[str, Any], source: str) -> None:
    """Refuse settings of transformers that change the network without changing its tensors."""
    if config.get("hidden_act", "gelu") != "gelu":
        raise WeightsError(
            f"{source}: a ConvNeXt with hidden_act={config['hidden_act']!r} is not known", hint="gelu is"
        )


def _fields(
    tensors: Tensors,
    stem: str,
    blocks: list[str],
    depths: Mapping[int, int],
    config: Mapping[str, Any],
    *,
    theirs: bool,
    source: str,
) -> dict[str, Any]:
    """Fields of our configuration."""
    root = tuple(tensors[stem].shape)
    if len(root) != 4 or root[2] != root[3]:
        raise WeightsError(
            f"{source}: a ConvNeXt whose stem is {'x'.join(map(str, root))} is not known",
            hint="one with a convolution of square patches is",
        )
    scale = "layer_scale_parameter" if theirs else "gamma"
    response = "grn.weight" if theirs else "mlp.grn.weight"
    body = blocks[0].rsplit(".", 2)[0]
    eps = 1e-5 if config.get("architecture") == _LOOSE else 1e-6
    return {
        "channels": root[1],
        "stem": root[2],
        "widths": tuple(tensors[name].shape[0] for name in blocks),
        "depths": tuple(depths[stage] for stage in range(len(depths))),
        "response_norm": f"{body}.{response}" in tensors,
        "layer_scale": 1e-6 if f"{body}.{scale}" in tensors else 0.0,
        "norm_eps": eps,
        "pooled_norm_eps": float(config.get("layer_norm_eps", 1e-12)) if theirs else eps,
    }


def _labels(config: Mapping[str, Any], *, theirs: bool) -> list[str] | None:
    names = config.get("id2label") if theirs else config.get("label_names")
    if isinstance(names, Mapping):
        return [str(names.get(str(index), f"class {index}")) for index in range(len(names))]
    return [str(name) for name in names] if isinstance(names, list) and names else None
