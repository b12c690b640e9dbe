"""Foreign checkpoints as read, and the classifiers made of them.

Odd: weights in half precision are computed with in float32, which holds them exactly; what they were is
kept in the provenance, so that an export gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tesela.checkpoints.layout import TensorTable
from tesela.checkpoints.rules import check_finite, check_quantised
from tesela.core.config import build
from tesela.core.errors import ConfigError, WeightsError
from tesela.core.files import sha256_file
from tesela.core.progress import stderr_console
from tesela.imaging.spec import ImageSpec
from tesela.models import catalog
from tesela.models.bundle import BundleInfo, describe
from tesela.models.factory import empty_model, empty_with_head
from tesela.models.model import file_names
from tesela.models.segmenter.segmenter import Segmenter
from tesela.models.tensors import Tensors, load_weights

if TYPE_CHECKING:
    from tesela.models.model import Model


@dataclass(frozen=True, kw_only=True)
class Place:
    """Place of a foreign checkpoint, with what the user says of it.

    Attributes:
        folder: with its files.
        config: its config.json; empty without one.
        weights: the file of weights that was named or is the only one; None: that with the usual name.
        image_size: (height, width) of the positions, where they leave it open.
        heads: of an attention, where nothing says it.
    """

    folder: Path
    config: Mapping[str, Any]
    weights: Path | None = None
    image_size: tuple[int, int] | None = None
    heads: int | None = None


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A foreign checkpoint.

    Attributes:
        source: for messages: the file or folder.
        files: that were read, for their digests.
        family: of ours.
        fields: of the family's configuration.
        layout: names and shapes of its tensors.
        decoder: settings of a segmenter's decoder; empty for a classifier.
        tensors: as they were read, under their own names.
        image: how it wants to see an image.
        labels: of its classes; None where the files name none.
        provenance: format, and what an export back needs.
        remarks: what is not quite the same here.
        license: of the weights.
        head_kind: why a softmax over the head's outputs would say nonsense; empty where it chooses one class.
    """

    source: Path
    files: list[Path]
    family: str
    fields: dict[str, Any]
    layout: TensorTable
    tensors: Tensors
    image: ImageSpec
    provenance: dict[str, Any]
    decoder: dict[str, Any] = field(default_factory=dict)
    labels: list[str] | None = None
    remarks: list[str] = field(default_factory=list)
    license: str = "unknown"
    head_kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A classifier made of a foreign checkpoint.

    Attributes:
        model: in evaluation mode; its ``info`` is set.
        info: labels, preprocessing, provenance.
        carried: tensors that have no part in the network, under their own names.
        remarks: what the user should know.
        source: the folder or file; None where it is not known.
    """

    model: Model
    info: BundleInfo
    carried: Tensors
    remarks: list[str]
    source: Path | None = None


def assemble(
    found: Foreign,
    *,
    name: str,
    image_size: tuple[int, int] | None = None,
    num_classes: int | None = None,
    origin: Mapping[str, Any] | None = None,
    new_head: bool = False,
) -> Opened:
    """The classifier of a checkpoint, every tensor accounted for.

    Args:
        found: the checkpoint.
        name: of the model, for people.
        image_size: another (height, width); learned positions are interpolated.
        num_classes: another number of classes; the head is then new and zero, as it is where the checkpoint
            has none.
        origin: where the files are from, for the provenance.
        new_head: put a head of zeros in the place of one that does not choose one class, as ``num_classes``
            does.

    Raises:
        WeightsError: naming tensors that are missing, unknown, of another shape, or not finite; or the head
            does not choose one of several classes.
        ConfigError: ``image_size`` does not fit the model.
    """
    source = str(found.source)
    try:
        config = build(catalog.family(found.family).config or dict, found.fields)
    except ConfigError as error:
        raise WeightsError(f"{source} describes a model that cannot be: {error}", hint=error.hint) from error
    check_quantised(found.tensors, source=source)
    tensors, types = _as_float32(found.tensors)
    check_finite(tensors, source=source)
    classes = _classes(found.layout, tensors)
    other_head = found.head_kind or ("it has one output and no choice" if classes == 1 else "")
    if other_head and num_classes is None and not new_head:
        raise WeightsError(
            f"{source} is no classifier of one class among several: {other_head}; a softmax over its outputs "
            "would say something else than it was trained for",
            hint="take its body: tesela train DATA --from it, or tesela convert with --num-classes",
        )
    if found.labels and classes and len(found.labels) != classes:
        raise WeightsError(
            f"{source} names {len(found.labels)} classes, and the weights have {classes}",
            hint="use files that belong together",
        )
    headless = not any(rule.own == "head.linear.weight" for rule in found.layout.rules)
    count = classes or num_classes or 1
    model: Model = empty_model(config, num_classes=count)
    if found.decoder:
        model = empty_with_head(
            config, lambda backbone: Segmenter(backbone, num_classes=count, decoder=found.decoder)
        )
    wanted = file_names(model, model.state_dict())
    fresh = {
        key: tensor
        for key, tensor in wanted.items()
        if headless and key in ("head.linear.weight", "head.linear.bias")
    }
    found.layout.check(
        tensors, {key: tensor for key, tensor in wanted.items() if key not in fresh}, source=source
    )
    own, carried = found.layout.read(tensors, source=source)
    own |= {key: torch.zeros(tensor.shape) for key, tensor in fresh.items()}
    load_weights(model, own, source=source)
    labels = _distinct(found.labels or [], model.num_classes)
    remarks = [*found.remarks, *_accounts(carried, headless=headless, classes=model.num_classes)]
    provenance = {
        **found.provenance,
        **(origin or {}),
        "files": {file.name: sha256_file(file) for file in found.files},
        "carried": sorted(carried),
        "types": types,
        "head": not headless,
    }
    if found.labels and labels != found.labels:
        provenance["labels"] = found.labels
    if other_head or (num_classes is not None and num_classes != model.num_classes):
        model.reset_head(num_classes or model.num_classes)
        labels = _distinct([], model.num_classes)
        provenance["head"] = False
    if other_head:
        remarks.append(f"a new head of zeros stands in for the source's own: {other_head}")
    provenance["remarks"] = remarks
    image = found.image
    if image_size is not None:
        if image_size != model.config.image_size:
            model.set_image_size(image_size)
        image = image.at(image_size)
    info = describe(
        model,
        name=name,
        task="segment" if found.decoder else "classify",
        labels=labels,
        image=image,
        license=found.license,
        provenance={"source": provenance},
    )
    model = model.eval()
    model.info = info
    return Opened(model=model, info=info, carried=carried, remarks=remarks, source=found.source)


def _classes(layout: TensorTable, tensors: Tensors) -> int | None:
    """The number of classes of the checkpoint's head; None where it has none (or lacks it)."""
    bias = next((rule.foreign[0] for rule in layout.rules if rule.own == "head.linear.bias"), None)
    return tensors[bias].shape[0] if bias in tensors and tensors[bias].ndim == 1 else None


def _as_float32(tensors: Tensors) -> tuple[Tensors, dict[str, str]]:
    """Floating-point tensors as float32, and the types of those that were of another."""
    types = {
        name: str(tensor.dtype).removeprefix("torch.")
        for name, tensor in tensors.items()
        if tensor.dtype != torch.float32
    }
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }, types


def _distinct(labels: list[str], count: int) -> list[str]:
    """Labels with the class's number behind those that occur twice, as in ImageNet's two cranes.

    ``class 0`` ... if there are none.
    """
    if not labels:
        return [f"class {index}" for index in range(count)]
    double = (
        {label for label in labels if labels.count(label) > 1} if len(set(labels)) < len(labels) else set()
    )
    return [f"{label} ({index})" if label in double else label for index, label in enumerate(labels)]


def _accounts(carried: Tensors, *, headless: bool, classes: int) -> list[str]:
    remarks = []
    if carried:
        listed = ", ".join(
            f"{name} ({'x'.join(map(str, tensor.shape))})" for name, tensor in sorted(carried.items())
        )
        remarks.append(f"kept aside, since the network does not compute with them: {listed}")
    if headless:
        remarks.append(
            f"the source has no classifier: a zero one of {classes} class{'es' if classes > 1 else ''} "
            "stands in; fine-tune it"
        )
    return remarks


def image_spec(image_size: tuple[int, int], channels: int, **more: Any) -> ImageSpec:
    """The preprocessing of the paper's code for a model whose files tell none: squashed, bilinear, -1 to 1.

    Raises:
        WeightsError: no image has so many channels.
    """
    values: dict[str, Any] = {
        "mean": (0.5,) * channels,
        "std": (0.5,) * channels,
        "interpolation": "bilinear",
    }
    try:
        return ImageSpec(height=image_size[0], width=image_size[1], channels=channels, **(values | more))
    except ConfigError as error:
        raise WeightsError(f"the model does not take images: {error}", hint=error.hint) from error


def announce(remarks: Sequence[str]) -> None:
    """Say on standard error what is not quite the same in a model that was read for a verb."""
    console = stderr_console()
    for remark in remarks:
        console.print(f"note: {remark}", markup=False, soft_wrap=True)


def origin_settings(info: BundleInfo) -> dict[str, Any]:
    """What the provenance says of a foreign source; empty for a model of our own."""
    source = info.provenance.get("source", {})
    return dict(source) if isinstance(source, Mapping) else {}
