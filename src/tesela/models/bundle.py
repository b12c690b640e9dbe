"""Bundle: one folder that holds all of a model.

Training writes it, every other verb reads it.

    config.json         description: labels, preprocessing, digests of tensors and files, its own checksum
    model.safetensors   the weights (or model.onnx, or both)
    README.md           the model card

Everything about config.json works without torch. Odd: the checksum covers every value of config.json in a
canonical form, so spaces and the order of keys may change, but a flipped bit or an edited value is noticed.
Digests, metrics and provenance are free mappings whose keys may hold dots; they bypass the reading of dotted
keys.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tesela.core.config import build, to_mapping
from tesela.core.errors import ConfigError, TeselaError, UsageError, WeightsError
from tesela.core.files import folder_atomic, sha256_bytes, write_json, write_text
from tesela.imaging.spec import ImageSpec
from tesela.models.card import named, plain_card

if TYPE_CHECKING:
    from torch import nn

    from tesela.models.config import ModelConfig
    from tesela.models.model import Model

BUNDLE_FORMAT = "tesela-bundle/1"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleInfo:
    """What config.json says."""

    format: str = BUNDLE_FORMAT
    """Version of this layout."""
    architecture: str
    """Family of the network, as registered."""
    name: str
    """The model's name, for people."""
    model: dict[str, Any]
    """The network's configuration, all fields."""
    head: str = "classifier"
    """What sits on the network, as registered."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of what sits on the network."""
    task: str = "classify"
    """What it does."""
    num_classes: int
    """Number of classes."""
    labels: list[str]
    """Name of each class, in the order of the logits."""
    colors: list[str] = field(default_factory=list)
    """Colour of each class in pictures, such as #804080; empty for the usual ones."""
    image: ImageSpec
    """How it wants to see an image."""
    license: str = "unknown"
    """Licence of the weights."""
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each tensor's bytes in model.safetensors, or of each other file."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Scores as measured."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Where it comes from: data, seed, versions."""
    program: dict[str, Any] = field(default_factory=dict)
    """An exported program: ``format``, ``precision``, ``file``, ``outputs``; empty for weights."""

    def __post_init__(self) -> None:
        """Check the format, that each class has one name, and that a segmenter sees whole images."""
        if self.format != BUNDLE_FORMAT:
            raise ConfigError(
                f"format {self.format!r} is not {BUNDLE_FORMAT!r}",
                hint="use the tesela version that wrote it",
            )
        if len(self.labels) != self.num_classes:
            raise ConfigError(
                f"{len(self.labels)} labels for {self.num_classes} classes", hint="give one label per class"
            )
        if len(set(self.labels)) < len(self.labels):
            double = next(label for label in self.labels if self.labels.count(label) > 1)
            raise ConfigError(
                f"the label {double!r} stands for two classes", hint="give each class its own name"
            )
        if self.head == "segmenter" and self.image.resize == "crop":
            raise ConfigError(
                "a segmenter must see all of an image, and resize crop cuts its borders off",
                hint="set resize to squash or pad in the image's description",
            )


def locate_bundle(run_or_bundle: Path) -> Path:
    """The bundle folder of a run, or the folder itself where it is a bundle.

    Raises:
        UsageError: there is neither.
    """
    path = Path(run_or_bundle)
    for folder in (path, path / "bundle"):
        if (folder / CONFIG).is_file():
            return folder
    if not path.exists():
        raise UsageError(
            f"there is no run or bundle at {path}", hint="check the path; tesela train --out RUN writes one"
        )
    raise UsageError(
        f"{path} is neither a run nor a bundle: it has no {CONFIG}",
        hint="give the folder that tesela train --out wrote",
    )


def read_info(path: Path) -> BundleInfo:
    """Description of the bundle in the folder ``path``.

    Raises:
        UsageError: there is no config.json.
        WeightsError: it is damaged, or of another program.
    """
    file = Path(path) / CONFIG
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{path} is no bundle: it has no {CONFIG}", hint="give the folder that tesela train --out wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{file} cannot be read: it is damaged or no JSON", hint="copy the bundle again"
        ) from error
    if not isinstance(tree, dict) or not str(tree.get("format", "")).startswith("tesela-bundle/"):
        raise WeightsError(
            f"{file} is not of a tesela bundle", hint="give the folder that tesela train --out wrote"
        )
    if tree.pop("checksum", None) != _checksum(tree):
        raise WeightsError(
            f"{file} is damaged or was edited: its checksum does not fit", hint="copy the bundle again"
        )
    names = tree.pop("id2label", {})
    tree.pop("label2id", None)
    free = {name: tree.pop(name, {}) for name in ("digests", "metrics", "provenance", "program")}
    try:
        return replace(
            build(BundleInfo, tree | {"labels": [names[str(index)] for index in range(len(names))]}), **free
        )
    except (ConfigError, KeyError) as error:
        raise WeightsError(
            f"{file} does not fit: {error}", hint="use the tesela version that wrote it"
        ) from error


def write_info(path: Path, info: BundleInfo) -> None:
    """Write config.json into the folder ``path``, atomically.

    Raises:
        StorageError: the file system refused.
    """
    tree = to_mapping(info)
    labels = tree.pop("labels")
    tree["id2label"] = {str(index): label for index, label in enumerate(labels)}
    tree["label2id"] = {label: index for index, label in enumerate(labels)}
    write_json(Path(path) / CONFIG, tree | {"checksum": _checksum(tree)})


def _checksum(tree: dict[str, Any]) -> str:
    return sha256_bytes(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode())


def write_bundle(path: Path, model: nn.Module, info: BundleInfo, *, card: str | None = None) -> BundleInfo:
    """Write a model as a bundle folder, whole or not at all; an older one is replaced.

    Args:
        path: the folder.
        model: the classifier; ``describe`` makes the info that fits it.
        info: all but the digests, which are computed here.
        card: text of README.md; a short one if None.

    Returns:
        The info with digests.

    Raises:
        StorageError: the file system refused; what was there is intact.
    """
    from tesela.models.tensors import digests, save_tensors, tensors_of

    tensors = tensors_of(model)
    info = replace(info, digests=digests(tensors))
    with folder_atomic(Path(path), needed=sum(tensor.nbytes for tensor in tensors.values())) as folder:
        save_tensors(folder / WEIGHTS, tensors)
        write_info(folder, info)
        write_text(folder / CARD, (card or _short_card(info)))
    return info


def load_bundle(
    path: Path, *, device: str = "cpu", verify: bool = True, image_size: tuple[int, int] | None = None
) -> tuple[Model, BundleInfo]:
    """The classifier of a bundle folder, in evaluation mode; its ``info`` is set.

    Args:
        path: the folder.
        device: where the weights go.
        verify: compare every tensor with its digest.
        image_size: another (height, width) for the model and its info; learned positions are interpolated.

    Raises:
        UsageError: ``path`` is no bundle.
        WeightsError: something is missing, extra, of another shape, or damaged; the message names it.
    """
    from tesela.models.tensors import check_digests, load_weights, read_tensors

    info = read_info(path)
    file = Path(path) / WEIGHTS
    if not file.is_file():
        exported = info.program or (Path(path) / "model.onnx").is_file()
        kind = " (it holds an exported model only)" if exported else ""
        raise WeightsError(f"{file} is missing{kind}", hint="give the run or bundle that training wrote")
    tensors = read_tensors(file)
    model = empty_bundle_model(info)
    load_weights(model, tensors, source=str(file))
    if verify:
        check_digests(tensors, info.digests, source=str(file))
    if image_size is not None and image_size != info.image.size:
        model.set_image_size(image_size)
        info = replace(info, image=info.image.at(image_size), model=to_mapping(model.config))
    model = model.to(device).eval()
    model.info = info
    return model, info


def empty_bundle_model(info: BundleInfo) -> Model:
    """The model of a bundle on the meta device: shapes without values.

    Raises:
        WeightsError: this version cannot build it.
    """
    from tesela.models.factory import empty_with_head, model_class

    head = model_class(info.head)
    return empty_with_head(
        model_config(info), lambda backbone: head(backbone, num_classes=info.num_classes, **info.options)
    )


def describe(model: Model, *, name: str, labels: list[str], image: ImageSpec, **fields: Any) -> BundleInfo:
    """The info of a classifier; ``fields`` are more of BundleInfo, such as ``metrics``.

    Raises:
        ConfigError: the number of labels is not the number of classes.
    """
    from tesela.models.catalog import family_of

    return BundleInfo(
        architecture=family_of(model.config),
        head=model.kind,
        options=model.options,
        name=name,
        model=to_mapping(model.config),
        num_classes=model.num_classes,
        labels=list(labels),
        image=image,
        **fields,
    )


def model_config(info: BundleInfo) -> ModelConfig:
    """The configuration of a bundle's network, without torch.

    Raises:
        WeightsError: this version cannot build it.
    """
    from tesela.models.catalog import family

    try:
        config: ModelConfig = build(family(info.architecture).config or dict, info.model)
    except TeselaError as error:
        raise WeightsError(
            f"this tesela cannot build the bundle's model: {error}", hint=error.hint
        ) from error
    return config


def _short_card(info: BundleInfo) -> str:
    return plain_card(
        info, f"A {info.architecture} model written by tesela.", f"Classes: {named(info.labels)}"
    )
