"""View that the files of a convolutional network state, with their library's own arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from tesela.checkpoints.files import read_mapping
from tesela.checkpoints.foreign import Place, image_spec
from tesela.checkpoints.huggingface.preprocessor import read_spec
from tesela.checkpoints.timm.read import timm_fit
from tesela.core.errors import ConfigError, WeightsError
from tesela.imaging.spec import ImageSpec, Interpolation, Resize

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MODES: dict[str, Resize] = {"center": "crop", "squash": "squash", "border": "pad"}
_USUAL = "images are seen as is usual for ImageNet: no file says it"


def stated_view(place: Place, *, theirs: bool, channels: int) -> tuple[ImageSpec, list[str]]:
    """How a model sees an image, and what is not quite the same here or was assumed.

    Args:
        place: of the checkpoint.
        theirs: whether it is transformers'; else timm's or torchvision's.
        channels: of its images.

    Raises:
        WeightsError: what the files state cannot be.
    """
    file = place.folder / "preprocessor_config.json"
    if theirs and file.is_file():
        usual = _side(place.config.get("image_size"))
        spec, remarks = read_spec(
            read_mapping(file), model_type="convnext", image_size=usual, channels=channels
        )
    else:
        stated = {} if theirs else place.config.get("pretrained_cfg") or {}
        spec, remarks = _of_timm(stated, channels=channels), [] if stated else [_USUAL]
    return spec if place.image_size is None else spec.at(place.image_size), remarks


def _side(stated: Any) -> tuple[int, int]:
    return (stated, stated) if isinstance(stated, int) and stated > 0 else (224, 224)


def _of_timm(stated: Mapping[str, Any], *, channels: int) -> ImageSpec:
    plain = channels == 3
    try:
        size = stated.get("input_size") or [channels, 224, 224]
        view, mode = (int(size[1]), int(size[2])), str(stated.get("crop_mode") or "center")
        filtering = str(stated.get("interpolation") or "bicubic")
        if mode not in _MODES or filtering not in get_args(Interpolation):
            raise ValueError(f"crop_mode {mode!r} with interpolation {filtering!r} is not known")
        ratio = float(stated.get("crop_pct") or 0.875)
        return image_spec(
            view,
            channels,
            mean=tuple(map(float, stated.get("mean") or (_MEAN if plain else (0.5,) * channels))),
            std=tuple(map(float, stated.get("std") or (_STD if plain else (0.5,) * channels))),
            crop_ratio=ratio,
            interpolation=filtering,
            **timm_fit(view, ratio, resize=_MODES[mode]),
        )
    except (TypeError, ValueError, KeyError, IndexError, ConfigError) as error:
        raise WeightsError(
            f"config.json states a view that cannot be: {error}", hint="use files that belong together"
        ) from error
