"""Adapter files in the layout of the peft library.

A layer's two matrices are named ``base_model.model.LAYER.lora_A.weight`` (r, I) and ``...lora_B.weight`` (O,
r); the head, which is always trained beside them, is there whole under ``base_model.model.head.``. So peft
puts such a folder onto a model of this package, and ``load_adapter`` does so without peft.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tesela.core.errors import ConfigError, WeightsError
from tesela.core.files import folder_atomic, write_json
from tesela.layers.lora import adapters, add_adapters
from tesela.layers.lora_config import TARGETS, LoraConfig
from tesela.models.tensors import read_tensors, save_tensors

if TYPE_CHECKING:
    from tesela.models.model import Model

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."
HEAD = "head."


def adapter_tensors(model: Model) -> dict[str, Tensor]:
    """What a file of adapters holds: both matrices of each adapted layer, and the head."""
    found = {f"{PEFT_PREFIX}{HEAD}{name}": tensor for name, tensor in model.head.state_dict().items()}
    for name, layer in adapters(model):
        found[f"{PEFT_PREFIX}{name}.lora_A.weight"], found[f"{PEFT_PREFIX}{name}.lora_B.weight"] = (
            layer.lora_a,
            layer.lora_b,
        )
    return {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(found.items())}


def write_adapter(folder: Path, model: Model, *, base: str | None) -> None:
    """Write the adapters and the head of ``model`` as a folder, whole or not at all.

    Args:
        folder: where to.
        model: with adapters.
        base: what the model started from, for the record.

    Raises:
        StorageError: the file system refused.
    """
    layers = dict(adapters(model))
    config = next(iter(layers.values())).config
    tensors = adapter_tensors(model)
    with folder_atomic(folder, needed=sum(tensor.nbytes for tensor in tensors.values())) as place:
        save_tensors(place / WEIGHTS, tensors)
        write_json(place / CONFIG, _described(config, list(layers), base))


def load_adapter(folder: Path, model: Model) -> None:
    """Put the adapters and the head in ``folder`` onto ``model``, in place.

    Raises:
        WeightsError: the folder is broken, or of another model.
    """
    config, wanted = _read_config(folder)
    tensors = read_tensors(folder / WEIGHTS)
    heads = [
        name for name in tensors if name.startswith(PEFT_PREFIX + HEAD) and name.endswith("linear.weight")
    ]
    if heads and tensors[heads[0]].shape[0] != model.num_classes:
        model.reset_head(tensors[heads[0]].shape[0])
    added = add_adapters(model, config)
    if sorted(added) != sorted(wanted):
        raise _foreign(folder, f"it adapts {len(wanted)} layers, the model has {len(added)} such")
    here = adapter_tensors(model)
    wrong = sorted(here.keys() ^ tensors.keys())
    wrong += [name for name in here.keys() & tensors.keys() if here[name].shape != tensors[name].shape]
    if wrong:
        raise _foreign(
            folder,
            f"what does not fit: {', '.join(wrong[:4])}"
            + (f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""),
        )
    with torch.no_grad():
        for name, layer in adapters(model):
            layer.lora_a.copy_(tensors[f"{PEFT_PREFIX}{name}.lora_A.weight"])
            layer.lora_b.copy_(tensors[f"{PEFT_PREFIX}{name}.lora_B.weight"])
    head = {
        name.removeprefix(PEFT_PREFIX + HEAD): tensor
        for name, tensor in tensors.items()
        if name.startswith(PEFT_PREFIX + HEAD)
    }
    model.head.load_state_dict(head)


def _described(config: LoraConfig, layers: list[str], base: str | None) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": layers,
        "modules_to_save": ["head"],
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }


def _read_config(folder: Path) -> tuple[LoraConfig, list[str]]:
    """The adapters' configuration, and the layers they are for."""
    file = folder / CONFIG
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        if (
            tree["peft_type"] != "LORA"
            or tree.get("bias", "none") != "none"
            or tree.get("use_rslora")
            or tree.get("use_dora")
        ):
            raise _foreign(folder, "it holds no plain LoRA without biases")
        layers = list(tree["target_modules"])
        kinds = {name.rpartition(".")[2] for name in layers}
        targets = tuple(target for target, names in TARGETS.items() if kinds & set(names))
        config = LoraConfig(
            rank=tree["r"],
            alpha=float(tree["lora_alpha"]),
            dropout=tree.get("lora_dropout", 0.0),
            targets=targets,
        )
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise WeightsError(
            f"{file} cannot be read: {error}", hint="give the adapter folder that training wrote"
        ) from error
    return config, layers


def _foreign(folder: Path, what: str) -> WeightsError:
    return WeightsError(
        f"the adapters in {folder} do not fit the model: {what}",
        hint="put them onto the model that they were trained on",
    )
