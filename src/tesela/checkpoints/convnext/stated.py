"""Settings of ConvNeXt that a config.json states, held against its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tesela.checkpoints.rules import check_stated
from tesela.core.errors import WeightsError

#: Sides of patches for which timm halves the map at the beginning of each stage but the first.
TIMM_STEMS = (1, 3, 4, 5, 6, 7)
#: Fields of ours, and their names in transformers and timm.
_TRANSFORMERS = {
    "channels": "num_channels",
    "stem": "patch_size",
    "widths": "hidden_sizes",
    "depths": "depths",
}
_TIMM = {
    "channels": "in_chans",
    "stem": "patch_size",
    "widths": "dims",
    "depths": "depths",
    "response_norm": "use_grn",
    "convolutions": "conv_mlp",
}
#: Arguments of timm that are known with these values, and those that change nothing here.
_FIXED: dict[str, tuple[Any, ...]] = {
    "global_pool": ("avg", "", None),
    "output_stride": (32,),
    "kernel_sizes": (7, [7, 7, 7, 7]),
    "stem_type": ("patch",),
    "head_norm_first": (False,),
    "head_hidden_size": (None,),
    "conv_bias": (True,),
    "act_layer": ("gelu",),
    "norm_layer": (None, "layernorm", "layernorm2d"),
}
_HARMLESS = ("num_classes", "drop_rate", "drop_path_rate", "head_init_scale")
_READ = ("ls_init_value", "norm_eps", *_TIMM.values())


def check_transformers_convnext(fields: Mapping[str, Any], config: Mapping[str, Any], source: str) -> None:
    """Refuse settings that change the network without changing its tensors, or contradict them.

    Raises:
        WeightsError: naming the setting.
    """
    if config.get("hidden_act", "gelu") != "gelu":
        raise WeightsError(
            f"{source}: a ConvNeXt with hidden_act={config['hidden_act']!r} is not known", hint="gelu is"
        )
    side = config.get("patch_size")
    if isinstance(side, (list, tuple)) and len(set(side)) == 1:
        side = side[0]
    check_stated(fields, {**config, "patch_size": side}, _TRANSFORMERS, source)
    check_stated({"stages": len(fields["depths"])}, config, {"stages": "num_stages"}, source)
    second = config["model_type"] == "convnextv2"
    factors = config.get("layer_scale_init_value", fields["layer_scale"])
    if fields["response_norm"] != second or (not second and (factors > 0) != (fields["layer_scale"] > 0)):
        raise WeightsError(
            f"{source}: the weights are not those of a {config['model_type']} with "
            f"layer_scale_init_value={factors}",
            hint="use files that belong together",
        )


def check_timm_convnext(fields: Mapping[str, Any], config: Mapping[str, Any], source: str) -> None:
    """Refuse arguments that change the network without changing its tensors, or contradict them.

    Args:
        fields: of our configuration, and ``convolutions``: whether dense layers are kept as such.
        config: config.json.
        source: for messages.

    Raises:
        WeightsError: naming the argument.
    """
    stated = {"global_pool": config.get("global_pool"), **(config.get("model_args") or {})}
    for argument, value in stated.items():
        known = argument in (*_READ, *_HARMLESS) or value in _FIXED.get(argument, ())
        if not known:
            raise WeightsError(
                f"{source}: a ConvNeXt of timm with {argument}={value!r} is not computed here",
                hint=f"one with {argument}={_FIXED[argument][0]!r} is"
                if argument in _FIXED
                else "one without is",
            )
    check_stated(fields, stated, _TIMM, source)
    scaled, name = fields["layer_scale"] > 0, str(config.get("architecture", ""))
    factors = stated.get("ls_init_value", None if name.startswith("convnextv2") else 1e-6)
    if name and (factors is not None) != scaled:
        raise WeightsError(
            f"{source}: config.json states {name} with ls_init_value={factors!r}, the weights have "
            f"{'' if scaled else 'no '}factors",
            hint="use files that belong together",
        )
    if fields["stem"] not in TIMM_STEMS:
        raise WeightsError(
            f"{source}: timm's strides beside patches of {fields['stem']} pixels are not computed here",
            hint="those beside patches of 4 are",
        )
