"""A Hugging Face folder: config.json, weights in one file or several, preprocessor_config.json."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tesela.checkpoints.files import read_file, read_sharded
from tesela.checkpoints.found import Found
from tesela.checkpoints.huggingface.config import architecture_of, read_fields, read_labels
from tesela.checkpoints.huggingface.names import ARCHITECTURES, layout
from tesela.checkpoints.huggingface.preprocessor import read_spec
from tesela.core.errors import WeightsError
from tesela.models.tensors import Tensors

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def find_huggingface(folder: Path, config: Mapping[str, Any], *, weights: Path | None = None) -> Found:
    """The checkpoint of a folder.

    Args:
        folder: with the files.
        config: its config.json.
        weights: a file to read instead of those with the usual names.

    Raises:
        WeightsError: the architecture is not known, or a file is missing or damaged.
    """
    architecture_of(config, {})  # an unknown one is told before gigabytes are read
    tensors, files = read_weights(folder, weights)
    architecture = architecture_of(config, tensors)
    family, fields = read_fields(config, architecture)
    kind = ARCHITECTURES[architecture]
    head = {"classifier": "classifier.bias", "teacher": "cls_classifier.bias"}.get(kind.head)
    if head is not None and config.get("id2label") == {} and head not in tensors:
        architecture = next(
            name
            for name, other in ARCHITECTURES.items()
            if other.model_type == kind.model_type and other.head == "none"
        )
        tensors = {name.removeprefix(kind.prefix): tensor for name, tensor in tensors.items()}
        head = None
    names = layout(architecture, swiglu=fields.get("mlp") == "swiglu")
    labels = (
        read_labels(config, tensors[head].shape[0]) if head in tensors and tensors[head].ndim == 1 else None
    )
    spec = read_json(folder / PREPROCESSOR) if (folder / PREPROCESSOR).is_file() else None
    image, remarks = read_spec(
        spec, model_type=kind.model_type, image_size=fields["image_size"], channels=fields["channels"]
    )
    return Found(
        source=folder,
        files=files,
        family=family,
        fields=fields,
        layout=names,
        tensors=tensors,
        image=image,
        labels=labels,
        remarks=remarks,
        license=license_of(folder),
        provenance={
            "format": "huggingface",
            "architecture": architecture,
            "config": dict(config),
            "preprocessor": spec,
        },
    )


def read_weights(folder: Path, weights: Path | None = None) -> tuple[Tensors, list[Path]]:
    """The tensors of a folder, of the safest form that is there, and the files they were in.

    Raises:
        WeightsError: there are none, or they are damaged.
    """
    if weights is not None:
        return read_file(weights), [weights]
    for name in WEIGHTS:
        path = folder / name
        if path.is_file() and name.endswith(".json"):
            tensors = read_sharded(path)
            return tensors, [
                path,
                *sorted(folder / file for file in set(read_json(path)["weight_map"].values())),
            ]
        if path.is_file():
            return read_file(path), [path]
    raise WeightsError(f"{folder} holds no weights", hint="it needs one of " + ", ".join(WEIGHTS))


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        WeightsError: it is damaged, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"{path} cannot be read: it is damaged or no JSON", hint="copy or download it again"
        ) from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path} holds no mapping", hint="copy or download it again")
    return value


def license_of(folder: Path) -> str:
    """The licence that the front matter of README.md names."""
    card = folder / "README.md"
    if card.is_file():
        front = re.match(
            r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), flags=re.DOTALL
        )
        named = re.search(r"^license:\s*['\"]?([\w.\-]+)", front[1], flags=re.MULTILINE) if front else None
        return named[1] if named else "unknown"
    return "unknown"
