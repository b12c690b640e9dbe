"""Reader of timm checkpoints: safetensors or pickled tensors, with or without config.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from tesela.checkpoints.files import license_of, read_weights
from tesela.checkpoints.foreign import Foreign, Place, image_spec
from tesela.checkpoints.huggingface.read_backbone import read_tensors_of
from tesela.checkpoints.official.dinov3 import CLASS, dinov3_weights, is_dinov3
from tesela.checkpoints.official.mae import is_mae, mae_weights
from tesela.checkpoints.state import Weights, own_names
from tesela.checkpoints.timm.architectures import TimmArchitecture, find_architecture
from tesela.checkpoints.timm.eva import eva_fields
from tesela.checkpoints.timm.fields import timm_fields
from tesela.checkpoints.timm.names import TimmStyle, timm_table
from tesela.core.errors import ConfigError, WeightsError
from tesela.imaging.spec import ImageSpec, Interpolation, Resize, timm_sides

_MODES: dict[str, Resize] = {"center": "crop", "squash": "squash", "border": "pad"}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_OLDER = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode", "license", "label_offset")
_SIZES = ("depth", "embed_dim", "mlp_ratio", "patch_size")
#: A tensor that every VisionTransformer has.
ANCHOR = "patch_embed.proj.weight"
#: One that a network in stages has, such as Swin.
_STAGED = "layers.0.blocks.0.norm1.weight"


def find_timm(place: Place) -> Foreign | None:
    """The checkpoint of a folder with timm's config.json, or of a file with a VisionTransformer's names.

    None if it is another's.

    Raises:
        WeightsError: it is no VisionTransformer, or a file is damaged.
    """
    folder, weights = place.folder, place.weights
    stated_by_timm = "pretrained_cfg" in place.config or (
        "architecture" in place.config and "format" not in place.config
    )
    if weights is None and not stated_by_timm:
        return None
    if stated_by_timm and place.config.get("architecture"):
        find_architecture(str(place.config["architecture"]))  # refused before gigabytes are read
    read = own_names(read_weights(folder, weights), ANCHOR)
    tensors = read.tensors
    if weights is not None and (ANCHOR not in tensors or _STAGED in tensors):
        return None
    if not stated_by_timm and is_dinov3(tensors):
        stated_there, read = dinov3_weights(read)
        return read_tensors_of(dataclasses.replace(place, config=stated_there), CLASS, read)
    if not stated_by_timm and is_mae(tensors):
        read = mae_weights(read)
        tensors = read.tensors
    config = place.config if stated_by_timm else read.facts
    # timm's older files have the entries of pretrained_cfg beside the architecture
    stated = dict(config.get("pretrained_cfg") or {name: config[name] for name in _OLDER if name in config})
    kind, arguments = _arguments(config, stated, shaped=stated_by_timm)
    if kind in ("Eva", "Beit"):
        fields, style = eva_fields(kind, tensors, arguments=arguments, image_size=place.image_size)
        family = "vit"
    else:
        family, fields, style = timm_fields(
            tensors, arguments=arguments, heads=place.heads, image_size=place.image_size
        )
    said = set(arguments) | ({"num_heads"} if place.heads else set())
    if style.official or config.get("architecture"):
        said |= {"act_layer", "num_heads"}
    check_timm_head(config, stated, tensors)
    image, remarks = _image(stated, fields, style)
    return Foreign(
        source=weights or folder,
        files=read.files,
        family=family,
        fields=fields,
        layout=timm_table(family, fields, style),
        tensors=tensors,
        image=image,
        remarks=[*read.notes, *_assumed(read, said, fields), *_other_sizes(config, fields), *remarks],
        labels=_labels(config, stated),
        license=str(stated.get("license") or license_of(folder)),
        provenance={
            "format": "timm",
            "architecture": config.get("architecture"),
            "config": dict(config),
            "style": dataclasses.asdict(style),
        },
    )


def _arguments(config: Mapping[str, Any], stated: Mapping[str, Any], *, shaped: bool) -> TimmArchitecture:
    """The class and its arguments: those of the architecture's name, changed by what is stated.

    A training state (not ``shaped``) may be of a model of that name in other sizes, which its tensors show.
    """
    name = config.get("architecture")
    known = find_architecture(str(name)) if name else TimmArchitecture("VisionTransformer", {})
    sizes = {name: value for name, value in known.arguments.items() if shaped or name not in _SIZES}
    arguments = sizes | dict(config.get("model_args") or {})
    arguments.setdefault("global_pool", config.get("global_pool") or stated.get("global_pool"))
    size = stated.get("input_size")
    if "img_size" not in arguments and isinstance(size, list) and len(size) == 3:
        arguments["img_size"] = size[1:]
    return TimmArchitecture(known.kind, arguments)


def check_timm_head(
    config: Mapping[str, Any],
    stated: Mapping[str, Any],
    tensors: Mapping[str, Any],
    weight: str = "head.weight",
) -> None:
    """Refuse a classifier, whose ``weight`` is named, that timm would cut or replace when it loads it.

    Raises:
        WeightsError: the number of classes is another, or some are cut off.
    """
    count = config.get("num_classes", stated.get("num_classes"))
    if weight in tensors and count is not None and count != len(tensors[weight]):
        raise WeightsError(
            f"config.json speaks of {count} classes, the weights of {len(tensors[weight])}",
            hint="use files that belong together",
        )
    if stated.get("label_offset"):
        raise WeightsError(
            f"label_offset={stated['label_offset']} in config.json, which cuts classes off, is not known",
            hint="load it with timm and save it again",
        )


def _assumed(read: Weights, said: set[str], fields: Mapping[str, Any]) -> Iterator[str]:
    """What neither the tensors nor a config say, and what is taken for it."""
    open_ = {
        "act_layer": ("activation", "SwiGLU" if fields["mlp"] == "swiglu" else "GELU"),
        "num_heads": ("heads", f"{fields['heads']} head{'s' if fields['heads'] > 1 else ''}"),
    }
    missing = [value for name, value in open_.items() if name not in said]
    if missing:
        names, taken = " nor ".join(name for name, _ in missing), " and ".join(value for _, value in missing)
        other = "; another number: tesela convert SOURCE BUNDLE --heads N" if "num_heads" not in said else ""
        yield (
            f"{read.files[0].name} says {'neither ' if len(missing) > 1 else 'no '}{names}: {taken} "
            f"{'is' if missing[0][0] == 'activation' and len(missing) == 1 else 'are'} assumed{other}"
        )


def _other_sizes(config: Mapping[str, Any], fields: Mapping[str, Any]) -> Iterator[str]:
    """Sizes of a training state that are not those of the architecture it names."""
    name, stated = config.get("architecture"), dict(config.get("model_args") or {})
    known = find_architecture(str(name)).arguments if name else {}
    for argument, own in (("embed_dim", "width"), ("depth", "depth")):
        if argument in known and argument not in stated and known[argument] != fields[own]:
            yield (
                f"the file names {name}, whose {argument} is {known[argument]}; its weights are of "
                f"{fields[own]}"
            )


def _image(
    stated: Mapping[str, Any], fields: Mapping[str, Any], style: TimmStyle
) -> tuple[ImageSpec, list[str]]:
    """The preprocessing that the config states, else the usual one; and what is not quite the same."""
    channels, remarks = fields["channels"], []
    mean, std = (_MEAN, _STD) if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
    try:
        size = stated.get("input_size")
        view = (
            (int(size[1]), int(size[2]))
            if isinstance(size, list) and len(size) == 3
            else fields["image_size"]
        )
        if not stated and not style.official:
            remarks.append("no config.json: images are squashed and normalised to -1..1, as for the paper's")
            return image_spec(view, channels), remarks
        resize = _MODES.get(str(stated.get("crop_mode") or "center"), "crop")
        ratio = float(stated.get("crop_pct") or 0.875)
        spec = image_spec(
            view,
            channels,
            mean=tuple(float(value) for value in stated.get("mean", mean)),
            std=tuple(float(value) for value in stated.get("std", std)),
            crop_ratio=ratio,
            interpolation=_filter(str(stated.get("interpolation") or "bicubic")),
            **timm_fit(view, ratio, resize=resize),
        )
    except (TypeError, ValueError, KeyError, ConfigError) as error:
        raise WeightsError(
            f"config.json does not make sense: {error}", hint="use the config.json that came with the weights"
        ) from error
    return spec, remarks


def timm_fit(view: tuple[int, int], ratio: float, *, resize: Resize) -> dict[str, Any]:
    """Fields of an ImageSpec that fit images to a view (height, width) as timm does."""
    if resize == "squash" and ratio == 1:
        return {"resize": resize}
    return {"resize": resize, "arithmetic": "timm", "resized": timm_sides(view, ratio, resize=resize)}


def _filter(name: str) -> Interpolation:
    if name not in get_args(Interpolation):
        raise ValueError(f"there is no filter {name!r}")
    return name  # type: ignore[return-value]


def _labels(config: Mapping[str, Any], stated: Mapping[str, Any]) -> list[str] | None:
    names = config.get("label_names") or stated.get("label_names") or config.get("labels")
    return [str(name) for name in names] if isinstance(names, list) and names else None
