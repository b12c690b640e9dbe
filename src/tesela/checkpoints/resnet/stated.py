"""Settings of residual networks that a config.json states, held against the tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tesela.checkpoints.rules import check_stated
from tesela.core.errors import WeightsError
from tesela.models.resnet.config import ResNetConfig

#: Fields of transformers' config.json that change the network, and their values here.
_PLAIN = {"hidden_act": "relu", "downsample_in_first_stage": False, "downsample_in_bottleneck": False}
#: Arguments of timm that are known with these values, and those that are compared or change nothing here.
_FIXED: dict[str, tuple[Any, ...]] = {
    "global_pool": ("avg", "", None),
    "output_stride": (32,),
    "cardinality": (1,),
    "base_width": (64,),
    "stem_width": (64,),
    "stem_type": ("",),
    "replace_stem_pool": (False,),
    "block_reduce_first": (1,),
    "down_kernel_size": (1,),
    "avg_down": (False,),
    "channels": ([64, 128, 256, 512],),
    "act_layer": ("relu",),
    "aa_layer": (None,),
    "block_args": (None, {}),
}
_HARMLESS = ("num_classes", "drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last")
_TIMM = {"channels": "in_chans", "stages": "layers"}


def transformers_settings(config: ResNetConfig) -> dict[str, Any]:
    """What transformers' config.json says of a network.

    Args:
        config: of a plain one.
    """
    plan = config.plan()
    return {
        "num_channels": config.channels,
        "embedding_size": plan.base,
        "hidden_sizes": [(plan.base << stage) * plan.expansion for stage in range(len(config.stages))],
        "depths": list(config.stages),
        "layer_type": config.unit,
    }


def check_transformers_resnet(fields: Mapping[str, Any], config: Mapping[str, Any], source: str) -> None:
    """Refuse variants whose tensors look like those of the plain network, or a config of other tensors.

    Raises:
        WeightsError: naming the setting.
    """
    for name, value in _PLAIN.items():
        if config.get(name, value) != value:
            raise WeightsError(
                f"{source}: a residual network with {name}={config[name]!r} is not known",
                hint=f"one with {name}={value!r} is",
            )
    shown = transformers_settings(ResNetConfig(**fields))
    wanted = {key: tuple(value) if isinstance(value, list) else value for key, value in shown.items()}
    check_stated(wanted, config, {key: key for key in wanted}, source)


def check_timm_resnet(fields: Mapping[str, Any], config: Mapping[str, Any], source: str) -> None:
    """Refuse arguments of timm that change the network without changing its tensors, or contradict them.

    Raises:
        WeightsError: naming the argument.
    """
    stated = {"global_pool": config.get("global_pool"), **(config.get("model_args") or {})}
    for name, value in stated.items():
        if name not in (*_HARMLESS, *_TIMM.values()) and value not in _FIXED.get(name, ()):
            raise WeightsError(
                f"{source}: a residual network of timm with {name}={value!r} in model_args is not computed "
                "here",
                hint=f"one with {name}={_FIXED[name][0]!r} is" if name in _FIXED else "one without is",
            )
    check_stated(fields, stated, _TIMM, source)
