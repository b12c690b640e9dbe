"""Files of a plain residual network for transformers and for timm."""

from __future__ import annotations

from typing import Any

from tesela.checkpoints.huggingface.stages_config import transformers_stages_config
from tesela.checkpoints.resnet.names import timm_resnet_table, transformers_resnet_table
from tesela.checkpoints.resnet.stated import transformers_settings
from tesela.checkpoints.timm.stages_config import timm_stages_config
from tesela.checkpoints.write import Exported
from tesela.core.errors import WeightsError
from tesela.models.resnet.config import ResNetConfig
from tesela.models.tensors import Tensors

#: What both libraries have alone.
_PLAIN: dict[str, Any] = {
    "root": "large",
    "order": "post",
    "norm": "batch",
    "norm_eps": 1e-5,
    "standardise": False,
}
#: Stages and width of timm's.
_STAGES, _FACTOR = 4, 1.0
#: Architectures of timm that arguments change, by the unit.
_USUAL = {"bottleneck": "resnet50", "basic": "resnet18"}


def transformers_resnet(exported: Exported) -> tuple[str, dict[str, Any], Tensors]:
    """The class, config.json and tensors for transformers.

    Raises:
        WeightsError: transformers has no place for the model; the option is named.
    """
    config, head = _config(exported, "transformers'"), not exported.headless()
    name = "ResNetForImageClassification" if head else "ResNetModel"
    settings = {
        "model_type": "resnet",
        **transformers_settings(config),
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }
    table = transformers_resnet_table(
        len(config.stages), _convolutions(config), head=head, prefix="resnet." if head else ""
    )
    written = transformers_stages_config(exported, name, settings)
    return name, written, table.write(exported.written_tensors(), exported.carried)


def timm_resnet(exported: Exported) -> tuple[dict[str, Any], Tensors]:
    """The config.json and tensors for timm.

    Raises:
        WeightsError: timm has no place for the model; the option is named.
    """
    config = _config(exported, "timm's")
    if len(config.stages) != _STAGES or config.width_factor != _FACTOR:
        raise WeightsError(
            f"timm's ResNet has no {len(config.stages)} stages with width_factor={config.width_factor}",
            hint=f"only models of {_STAGES} stages with width_factor={_FACTOR} fit; transformers has any: "
            "tesela export --to hf",
        )
    arguments = {"in_chans": config.channels, "layers": list(config.stages)}
    written = timm_stages_config(
        exported, arguments, usual=_USUAL[config.unit], first_conv="conv1", classifier="fc"
    )
    table = timm_resnet_table(_STAGES, _convolutions(config), head=not exported.headless())
    return written, table.write(exported.written_tensors(), exported.carried)


def _convolutions(config: ResNetConfig) -> int:
    return 3 if config.unit == "bottleneck" else 2


def _config(exported: Exported, program: str) -> ResNetConfig:
    config = exported.model.config
    assert isinstance(config, ResNetConfig), "the caller asked for the family"
    for name, value in _PLAIN.items():
        if getattr(config, name) != value:
            raise WeightsError(
                f"{program} ResNet has no {name}={getattr(config, name)}",
                hint=f"only models with {name}={value} fit; tesela export --to onnx takes any",
            )
    return config
