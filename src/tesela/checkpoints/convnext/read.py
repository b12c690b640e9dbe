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
from tesela.checkpoints.convnext.stated import check_timm_convnext, check_transformers_convnext
from tesela.checkpoints.files import license_of, read_mapping, read_weights
from tesela.checkpoints.foreign import Foreign, Place
from tesela.checkpoints.huggingface.config import head_kind, read_labels
from tesela.checkpoints.huggingface.preprocessor import PREPROCESSOR
from tesela.checkpoints.stated_view import stated_view
from tesela.checkpoints.timm.read import check_timm_head
from tesela.core.errors import WeightsError
from tesela.models.tensors import Tensors

_SIZES = "atto|femto|pico|nano|tiny|small|base|large|xlarge|xxlarge|huge"
#: timm's names of networks that are the same but for their sizes, some with a resolution or their data.
_KNOWN = re.compile(rf"convnext(v2)?_({_SIZES})(_384)?(_in22k|_in22ft1k)?")
#: timm's one size with another epsilon, 1e-5.
_LOOSE = "convnext_xxlarge"
_MODEL_TYPES = ("convnext", "convnextv2")
#: Of the names of transformers' classes, with and without a classifier.
_ENDS = ("ForImageClassification", "Model")


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
    names = [f"{inside}.{stage}.{block}.0.{first}.weight".replace("\\", "") for stage in range(len(depths))]
    fields = _fields(read.tensors, stem, names, depths, config, theirs=theirs, source=source)
    image, remarks = stated_view(place, theirs=theirs, channels=fields["channels"])
    if not config:
        remarks.append("no config.json: norms have an epsilon of 1e-6, as in all sizes but xxlarge")
    weight = "classifier.weight" if theirs else "head.fc.weight"
    head = weight in read.tensors
    provenance: dict[str, Any] = {"config": dict(config)}
    if theirs:
        check_transformers_convnext(fields, config, source)
        table = transformers_convnext_table(len(depths), prefix, head=head)
        names = [f"ConvNext{'V2' if fields['response_norm'] else ''}{end}" for end in _ENDS]
        file = place.folder / PREPROCESSOR
        provenance |= {
            "format": "huggingface",
            "architecture": names[0] if head else names[1],
            "preprocessor": read_mapping(file) if file.is_file() else None,
        }
    else:
        dense = read.tensors["stages.0.blocks.0.mlp.fc1.weight"]
        convolutions = dense.ndim == 4
        check_timm_convnext({**fields, "convolutions": convolutions}, config, source)
        check_timm_head(config, dict(config.get("pretrained_cfg") or {}), read.tensors, weight)
        table = timm_convnext_table(len(depths), convolutions=convolutions, head=head)
        architecture = config.get("architecture")
        provenance |= {"format": "timm", "architecture": architecture, "convolutions": convolutions}
    return Foreign(
        source=place.weights or place.folder,
        files=read.files,
        family="convnext",
        fields={**fields, "image_size": image.size},
        layout=table,
        tensors=read.tensors,
        image=image,
        labels=_labels(config, len(read.tensors[weight]), theirs=theirs) if head else None,
        remarks=[*read.notes, *remarks],
        license=str((config.get("pretrained_cfg") or {}).get("license") or license_of(place.folder)),
        head_kind=head_kind(config) if theirs and head else "",
        provenance=provenance,
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
    stated = config if theirs else dict(config.get("model_args") or {})
    factors = float(stated.get("layer_scale_init_value" if theirs else "ls_init_value") or 1e-6)
    eps = (
        1e-6
        if theirs
        else float(stated.get("norm_eps") or (1e-5 if config.get("architecture") == _LOOSE else 1e-6))
    )
    return {
        "channels": root[1],
        "stem": root[2],
        "widths": tuple(tensors[name].shape[0] for name in blocks),
        "depths": tuple(depths[stage] for stage in range(len(depths))),
        "response_norm": f"{body}.{response}" in tensors,
        "layer_scale": factors if f"{body}.{scale}" in tensors else 0.0,
        "norm_eps": eps,
        "pooled_norm_eps": float(config.get("layer_norm_eps", 1e-12)) if theirs else eps,
        "drop_path": float(config.get("drop_path_rate", 0.0)) if theirs else 0.0,
    }


def _labels(config: Mapping[str, Any], count: int, *, theirs: bool) -> list[str] | None:
    if theirs:
        return read_labels(config, count)
    names = config.get("label_names")
    return [str(name) for name in names] if isinstance(names, list) and names else None
