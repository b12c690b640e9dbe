"""Reader of Swin as transformers and timm keep it, and of the official checkpoints.

Depths, widths, heads and windows are read off the tensors and held against what config.json states. Odd:
timm's tables of offsets belong to windows that are already cut to the map of its image size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tesela.checkpoints.files import license_of, read_mapping, read_weights
from tesela.checkpoints.foreign import Foreign, Place
from tesela.checkpoints.huggingface.config import head_kind
from tesela.checkpoints.huggingface.preprocessor import PREPROCESSOR, read_spec
from tesela.checkpoints.rules import check_stated
from tesela.checkpoints.state import own_names
from tesela.checkpoints.stated_view import stated_view
from tesela.checkpoints.swin.fields import swin_fields
from tesela.checkpoints.swin.names import Program, swin_names, swin_table
from tesela.checkpoints.timm.architectures import find_architecture
from tesela.checkpoints.timm.read import check_timm_head
from tesela.core.errors import WeightsError
from tesela.imaging.spec import ImageSpec

#: Tensors that every Swin has, and one that the second version has.
_ANCHOR, _SECOND_ANCHOR = "patch_embed.proj.weight", "layers.0.blocks.0.attn.logit_scale"
_SECOND = "scaled cosine attention and a small network for the positions, which is not computed here"
_FIRST = "Swin's first version is: swin_tiny, swin_small, swin_base, swin_large"
#: Classes of transformers that are read, whether with a classifier.
_CLASSES = {"SwinForImageClassification": True, "SwinModel": False}
#: Fields of ours and theirs that the tensors show.
_TRANSFORMERS = {
    "channels": "num_channels",
    "patch": "patch_size",
    "depths": "depths",
    "heads": "num_heads",
    "windows": "window_size",
    "mlp_ratio": "mlp_ratio",
    "qkv_bias": "qkv_bias",
}
_TIMM = {"patch": "patch_size", "depths": "depths", "heads": "num_heads", "qkv_bias": "qkv_bias"}
#: Arguments of timm that change nothing here, or are compared with the tensors.
_KNOWN_ARGUMENTS = {
    *_TIMM.values(),
    *("embed_dim", "window_size", "mlp_ratio", "img_size", "in_chans", "num_classes", "strict_img_size"),
    *("dynamic_img_size", "drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate", "weight_init"),
}
#: And those that are known with one value.
_FIXED_ARGUMENTS = {
    "global_pool": ("avg", "", None),
    "head_dim": (None,),
    "always_partition": (False,),
}


def find_swin(place: Place) -> Foreign | None:
    """The Swin that a config.json names; None if it names something else.

    Raises:
        WeightsError: a variant that is not computed here, or a damaged file.
    """
    config = place.config
    name, kind = str(config.get("architecture", "")), str(config.get("model_type", ""))
    if kind == "swinv2" or name.startswith("swinv2"):
        raise WeightsError(
            f"{place.folder}: {name or kind} is Swin's second version, with {_SECOND}", hint=_FIRST
        )
    if kind == "swin":
        return _transformers(place)
    return _timm(place, _arguments(config)) if name.startswith("swin_") else None


def _arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of timm's constructor: those of the architecture's name, changed by what is stated."""
    known = find_architecture(str(config["architecture"])).arguments
    return known | dict(config.get("model_args") or {})


def find_swin_file(place: Place) -> Foreign | None:
    """The Swin in a file of timm or the official code without config.json; None if there is none."""
    return None if place.config or place.weights is None else _timm(place, None)


def _transformers(place: Place) -> Foreign:
    config, source = place.config, str(place.weights or place.folder)
    classes = config.get("architectures") or ["SwinModel"]
    if classes[0] not in _CLASSES:
        raise WeightsError(
            f"{source}: transformers' {classes[0]} is not read",
            hint="known are " + " and ".join(_CLASSES) + "; save its body, model.swin, as a SwinModel",
        )
    _refuse(source, config, {"hidden_act": ("gelu",), "use_absolute_embeddings": (False,)})
    read = read_weights(place.folder, place.weights)
    prefix = "swin." if any(name.startswith("swin.") for name in read.tensors) else ""
    fields = swin_fields(read.tensors, "transformers", prefix=prefix, source=source)
    if fields is None:
        raise WeightsError(
            f"{source} holds no Swin: its patches or its blocks are missing",
            hint="use files that belong together",
        )
    check_stated(fields, config, _TRANSFORMERS, source)
    check_stated({"embed_dim": fields["widths"][0]}, config, {"embed_dim": "embed_dim"}, source)
    fields |= {
        "edges": "transformers",
        "norm_eps": float(config.get("layer_norm_eps", 1e-5)),
        "dropout": float(config.get("hidden_dropout_prob", 0.0)),
        "attention_dropout": float(config.get("attention_probs_dropout_prob", 0.0)),
        "drop_path": float(config.get("drop_path_rate", 0.1)),
    }
    image, remarks = _view(place, fields)
    head = "classifier.weight" in read.tensors
    names = config.get("id2label")
    labels = (
        [str(names.get(str(index), f"class {index}")) for index in range(len(names))]
        if isinstance(names, Mapping)
        else None
    )
    preprocessor = place.folder / PREPROCESSOR
    return Foreign(
        source=place.weights or place.folder,
        files=read.files,
        family="swin",
        fields=fields | {"image_size": image.size},
        layout=swin_table("transformers", len(fields["depths"]), prefix=prefix, head=head),
        tensors=read.tensors,
        image=image,
        labels=labels if head else None,
        remarks=[*read.notes, *remarks],
        license=license_of(place.folder),
        head_kind=head_kind(config) if head else "",
        provenance={
            "format": "huggingface",
            "architecture": classes[0],
            "prefix": prefix,
            "config": dict(config),
            "preprocessor": read_mapping(preprocessor) if preprocessor.is_file() else None,
        },
    )


def _view(place: Place, fields: Mapping[str, Any]) -> tuple[ImageSpec, list[str]]:
    """How transformers' model sees an image."""
    stated = place.config.get("image_size", 224)
    size = (stated, stated) if isinstance(stated, int) else tuple(stated)
    file = place.folder / PREPROCESSOR
    spec, remarks = read_spec(
        read_mapping(file) if file.is_file() else None,
        model_type="swin",
        image_size=(int(size[0]), int(size[1])),
        channels=fields["channels"],
    )
    return spec if place.image_size is None else spec.at(place.image_size), remarks


def _timm(place: Place, arguments: Mapping[str, Any] | None) -> Foreign | None:
    """A Swin of timm or the official code; without a config.json (``arguments`` is None) perhaps none."""
    source = str(place.weights or place.folder)
    read = own_names(read_weights(place.folder, place.weights), _ANCHOR)
    config = place.config or read.facts
    if arguments is None and str(config.get("architecture", "")).startswith("swin_"):
        arguments = _arguments(config)
    stated = dict(arguments or {})
    unknown = sorted(set(stated) - _KNOWN_ARGUMENTS - set(_FIXED_ARGUMENTS))
    if unknown:
        raise WeightsError(
            f"{source}: a Swin of timm with {unknown[0]}={stated[unknown[0]]!r} is not computed here",
            hint="one without is",
        )
    pool = config.get("global_pool") or (config.get("pretrained_cfg") or {}).get("global_pool")
    _refuse(source, {"global_pool": pool, **stated}, _FIXED_ARGUMENTS)
    if _SECOND_ANCHOR in read.tensors:
        raise WeightsError(f"{source} holds Swin's second version, with {_SECOND}", hint=_FIRST)
    program: Program = "official" if "layers.0.downsample.reduction.weight" in read.tensors else "timm"
    fields = swin_fields(read.tensors, program, prefix="", source=source)
    if fields is None:
        if arguments is None:
            return None
        raise WeightsError(
            f"{source} holds no Swin: its patches or its blocks are missing",
            hint="use files that belong together",
        )
    check_stated(fields, stated, _TIMM, source)
    check_stated({"embed_dim": fields["widths"][0]}, stated, {"embed_dim": "embed_dim"}, source)
    fields |= {"edges": "timm" if program == "timm" else "transformers", "norm_eps": 1e-5}
    image, remarks = stated_view(replace(place, config=config), theirs=False, channels=fields["channels"])
    size, usual = image.size, _usual_side(fields)
    if not config and place.image_size is None:
        image = image.at((usual, usual))
        size = image.size
        remarks.append(f"no config.json: images of {usual} pixels, of which the last windows see all")
    elif isinstance(stated.get("img_size"), (int, list)) and place.image_size is None:
        given = stated["img_size"]
        size = (given, given) if isinstance(given, int) else (int(given[0]), int(given[1]))
        image = image if image.size == size else image.at(size)
    classifier = f"{swin_names(program).head}.weight"
    check_timm_head(config, dict(config.get("pretrained_cfg") or {}), read.tensors, classifier)
    head = classifier in read.tensors
    found = Foreign(
        source=place.weights or place.folder,
        files=read.files,
        family="swin",
        fields=fields | {"image_size": size},
        layout=swin_table(program, len(fields["depths"]), head=head),
        tensors=read.tensors,
        image=image,
        labels=_labels(config) if head else None,
        remarks=[*read.notes, *remarks],
        license=str((config.get("pretrained_cfg") or {}).get("license") or license_of(place.folder)),
        provenance={
            "format": "timm" if program == "timm" else "swin",
            "architecture": config.get("architecture"),
            "config": dict(config),
        },
    )
    _check_windows(found, stated, source)
    return found


def _usual_side(fields: Mapping[str, Any]) -> int:
    """The side of an image whose last map is one window."""
    side: int = fields["windows"][-1] * fields["patch"] << (len(fields["depths"]) - 1)
    return side


def _check_windows(found: Foreign, stated: Mapping[str, Any], source: str) -> None:
    """Hold the windows that are stated against those of the tables, which are cut to the map."""
    from tesela.models.swin.config import SwinConfig

    given = stated.get("window_size")
    if given is None:
        return
    own = found.fields["windows"]
    pair = isinstance(given, Sequence) and len(given) == 2 and isinstance(given[0], int)
    sides = [given] * len(own) if isinstance(given, int) or pair else list(given)
    grids = SwinConfig(**found.fields).grids(found.fields["image_size"])
    cut = [
        tuple(min(side, most) for side, most in zip(_pair(stage), grid, strict=True))
        for stage, grid in zip(sides, grids, strict=False)
    ]
    if cut != [(side, side) for side in own]:
        raise WeightsError(
            f"{source}: windows of {given} on maps of {grids} are not those of the weights, {list(own)}",
            hint="use files that belong together",
        )


def _pair(stage: Any) -> tuple[int, int]:
    return (stage, stage) if isinstance(stage, int) else (int(stage[0]), int(stage[1]))


def _refuse(source: str, stated: Mapping[str, Any], allowed: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse settings that change the network without changing its tensors.

    Raises:
        WeightsError: naming the first one.
    """
    for name, values in allowed.items():
        if name in stated and stated[name] not in values:
            raise WeightsError(
                f"{source}: a Swin with {name}={stated[name]!r} is not computed here",
                hint=f"one with {name}={values[0]!r} is",
            )


def _labels(config: Mapping[str, Any]) -> list[str] | None:
    names = config.get("label_names")
    return [str(name) for name in names] if isinstance(names, list) and names else None
