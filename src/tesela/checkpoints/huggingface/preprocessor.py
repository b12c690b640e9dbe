"""Hugging Face's preprocessor_config.json and our ImageSpec, in both directions.

Odd: where they leave an image at a size of its own (a shortest edge without a crop), the middle is cut out
and a remark says so, since a batch here has one size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tesela.core.errors import ConfigError, WeightsError
from tesela.imaging.spec import ImageSpec, Interpolation, Resize

PREPROCESSOR = "preprocessor_config.json"
# Filters by Pillow's numbers.
_FILTERS: tuple[Interpolation, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
_HALF, _MEAN, _STD = [0.5, 0.5, 0.5], [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

#: What each kind of model was trained with, where a folder has no preprocessor_config.json.
DEFAULTS: dict[str, dict[str, Any]] = {
    "vit": {
        "image_processor_type": "ViTImageProcessor",
        "resample": 2,
        "image_mean": _HALF,
        "image_std": _HALF,
    },
    "vit-hybrid": {
        "image_processor_type": "ViTHybridImageProcessor",
        "size": {"shortest_edge": 384},
        "do_center_crop": True,
        "crop_size": {"height": 384, "width": 384},
        "resample": 3,
        "image_mean": _HALF,
        "image_std": _HALF,
    },
    "deit": {
        "image_processor_type": "DeiTImageProcessor",
        "size": {"height": 256, "width": 256},
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "resample": 3,
        "image_mean": _MEAN,
        "image_std": _STD,
    },
    "segformer": {
        "image_processor_type": "SegformerImageProcessor",
        "size": {"height": 512, "width": 512},
        "resample": 2,
        "image_mean": _MEAN,
        "image_std": _STD,
    },
    "dinov2": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 256},
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "resample": 3,
        "image_mean": _MEAN,
        "image_std": _STD,
    },
}

_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
}
_SQUASHED = {"size": {"height": 224, "width": 224}, "do_center_crop": False}
_SIGLIP = {**_SQUASHED, "resample": 3, "image_mean": _HALF, "image_std": _HALF}
_DINOV3 = {**_SQUASHED, "resample": 2, "image_mean": _MEAN, "image_std": _STD}
DEFAULTS |= {
    "siglip": {"image_processor_type": "SiglipImageProcessor", **_SIGLIP},
    "clip": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}, **_CLIP},
    "aimv2": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}, **_CLIP},
    "dinov3": {"image_processor_type": "DINOv3ViTImageProcessor", **_DINOV3},
    "mae": {"image_processor_type": "ViTImageProcessor", **_DINOV3},
    "msn": {"image_processor_type": "ViTImageProcessor", **_DINOV3},
    "swin": {"image_processor_type": "ViTImageProcessor", **_DINOV3, "resample": 3},
}
#: What each kind of image processor does where its file does not say, as in transformers 5.
_KINDS: dict[str, dict[str, Any]] = {
    "ViT": {"resample": 2},
    "DeiT": {
        "size": {"height": 256, "width": 256},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
    },
    "Bit": _CLIP,
    "ViTHybrid": _CLIP,
    "CLIP": _CLIP,
    "Segformer": {"resample": 2, "image_mean": _MEAN, "image_std": _STD},
    "Beit": {"resample": 3},
    "ConvNext": {"resample": 3, "image_mean": _HALF, "image_std": _HALF, "size": {"shortest_edge": 384}},
    "Siglip": _SIGLIP,
    "DINOv3ViT": _DINOV3,
}
#: Where transformers' ConvNextImageProcessor stops cutting the middle out, and how much it cuts below.
_WHOLE_FROM, _CROP = 384, 224 / 256
#: Steps of other image processors, which have no equal here.
_STEPS = (
    *("do_flip_channel_order", "do_pad", "do_thumbnail", "do_align_long_axis", "do_grayscale", "do_rotate"),
    *("do_affine_pad", "rescale_offset", "do_split_image"),
)


def read_spec(
    config: Mapping[str, Any] | None, *, model_type: str, image_size: tuple[int, int], channels: int
) -> tuple[ImageSpec, list[str]]:
    """Preprocessing of a model, and remarks on what is not quite the same here.

    Args:
        config: preprocessor_config.json; None if there is none.
        model_type: of config.json, for the values that are usual there.
        image_size: the model's own (height, width).
        channels: of its images.

    Raises:
        WeightsError: the file does not make sense.
    """
    remarks: list[str] = []
    if config is None:
        usual = DEFAULTS[
            "dinov2" if model_type.startswith("dinov2") else model_type if model_type in DEFAULTS else "vit"
        ]
        config = dict(usual)
        if usual.get("crop_size", {}).get("height") != image_size[0] or image_size[0] != image_size[1]:
            config |= {"size": {"height": image_size[0], "width": image_size[1]}, "do_center_crop": False}
        remarks.append(
            "no preprocessor_config.json: the preprocessing that is usual for such models is assumed"
        )
    try:
        return _spec(_complete(config), image_size, channels, remarks), remarks
    except (TypeError, ValueError, KeyError, ConfigError) as error:
        raise WeightsError(
            f"preprocessor_config.json does not make sense: {error}", hint="mend or remove the file"
        ) from error


def _complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with those that its kind of image processor has where it says nothing.

    Raises:
        WeightsError: it is of another kind, or has a step that is not known here.
    """
    stated = str(config.get("image_processor_type", config.get("feature_extractor_type", "")))
    kind = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", stated)
    if kind and kind not in _KINDS:
        raise WeightsError(
            f"the image processor {stated!r} in preprocessor_config.json is not known",
            hint="known are those of " + ", ".join(_KINDS) + "; write down its steps as one of them",
        )
    for step in _STEPS:
        if config.get(step):
            raise WeightsError(
                f"{step}={config[step]!r} in preprocessor_config.json has no equal here",
                hint="set it to false if the model was trained without",
            )
    ignored = {"do_center_crop": False} if kind == "Segformer" else {}
    complete = _KINDS.get(kind, {}) | dict(config) | ignored
    return complete | _steps_of_convnext(complete) if kind == "ConvNext" else complete


def _steps_of_convnext(config: Mapping[str, Any]) -> dict[str, Any]:
    """Size and crop that stand for its one size and ``crop_pct``."""
    size = config["size"]
    edge = int(size["shortest_edge"] if isinstance(size, Mapping) else size)
    if edge >= _WHOLE_FROM:
        return {"size": {"height": edge, "width": edge}, "do_center_crop": False}
    around = int(edge / float(config.get("crop_pct") or _CROP))
    cut = {"height": edge, "width": edge}
    return {"size": {"shortest_edge": around}, "do_center_crop": True, "crop_size": cut}


def _spec(
    config: Mapping[str, Any], image_size: tuple[int, int], channels: int, remarks: list[str]
) -> ImageSpec:
    size, shortest = _size(config)
    height, width = size or image_size
    resize: Resize = "squash"
    resized: tuple[int, ...] = ()
    crop = _pair(config.get("crop_size")) if config.get("do_center_crop") else None
    if not config.get("do_resize", True):
        resize, (height, width) = "none", crop or image_size
    elif crop is not None:
        (height, width) = crop
        resized = size or (shortest or min(crop),)
        resize = "squash" if size else "crop"
        if height > resized[0] or width > resized[-1]:
            raise ValueError(f"crop_size {crop} is more than images are resized to, and would be padded")
        resized = () if resized == crop else resized
    elif shortest is not None:
        resize, (height, width), resized = "crop", (shortest, shortest), (shortest,)
        remarks.append(f"images are cut to {shortest}x{shortest}; the source keeps what is beside the middle")
    chosen = int(config.get("resample", 2 if resize == "squash" and not resized else 3))
    if not 0 <= chosen < len(_FILTERS):
        raise ValueError(f"there is no filter {chosen}")
    mean, std = _normalisation(config, channels)
    return ImageSpec(
        height=height,
        width=width,
        channels=channels,
        mean=tuple(mean),
        std=tuple(std),
        resize=resize,
        crop_ratio=min(height, width) / min(resized) if resized else 1.0,
        interpolation=_FILTERS[chosen],
        arithmetic="transformers" if resized else "exact",
        resized=resized,
    )


def _size(config: Mapping[str, Any]) -> tuple[tuple[int, int] | None, int | None]:
    """The size images are brought to: (height, width), or the length of their short side."""
    size = config.get("size")
    if isinstance(size, Mapping):
        if "shortest_edge" in size and "longest_edge" not in size:
            return None, int(size["shortest_edge"])
        if "height" not in size:
            raise ValueError(f"size {dict(size)} is neither height and width nor a shortest edge alone")
        return (int(size["height"]), int(size["width"])), None
    if size is None:
        return None, None
    kind = str(config.get("image_processor_type", config.get("feature_extractor_type", "")))
    if isinstance(size, int) and kind.startswith(("Bit", "CLIP")):
        return None, size
    return _pair(size), None


def _pair(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if isinstance(value, Mapping):
        return int(value["height"]), int(value["width"])
    if isinstance(value, int):
        return value, value
    return int(value[0]), int(value[1])


def _normalisation(config: Mapping[str, Any], channels: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation on the scale 0..1, with the source's own scaling taken into them."""
    factor = float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
    mean, std = [0.0] * channels, [1.0] * channels
    if config.get("do_normalize", True):
        mean, std = (_values(config.get(name, _HALF), name, channels) for name in ("image_mean", "image_std"))
    scale = 255 * factor
    if abs(scale - 1) < 1e-6:
        return mean, std
    return [value / scale for value in mean], [value / scale for value in std]


def _values(values: Any, name: str, channels: int) -> list[float]:
    found = (
        [float(value) for value in values]
        if isinstance(values, (list, tuple))
        else [float(values)] * channels
    )
    if len(found) != channels and len(set(found)) == 1:
        found = found[:1] * channels
    if len(found) != channels:
        raise ValueError(f"{name} has {len(found)} values for {channels} channels")
    return found


def write_spec(spec: ImageSpec) -> dict[str, Any]:
    """A preprocessor_config.json.

    Raises:
        WeightsError: the preprocessing has no place there.
    """
    common = {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": spec.resize != "none",
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
        "resample": _FILTERS.index(spec.interpolation),
        "rescale_factor": 1 / 255,
    }
    size = {"height": spec.height, "width": spec.width}
    if spec.resize == "pad":
        raise WeightsError(
            "transformers has no place for resize=pad",
            hint="only models with resize squash, crop or none fit",
        )
    cut = {"do_center_crop": True, "crop_size": size}
    if spec.resize == "squash" and spec.resized:
        whole = {"height": spec.resized[0], "width": spec.resized[1]}
        return {"image_processor_type": "DeiTImageProcessor", "size": whole, **cut, **common}
    if spec.resize != "crop":
        return {"image_processor_type": "ViTImageProcessor", "size": size, **common}
    if spec.height != spec.width and len(spec.resized) != 1:
        raise WeightsError(
            "transformers has no place for resize=crop of an oblong image", hint="only square crops fit"
        )
    edge = {"shortest_edge": spec.resized[0] if spec.resized else round(spec.height / spec.crop_ratio)}
    return {"image_processor_type": "BitImageProcessor", "size": edge, **cut, **common}
