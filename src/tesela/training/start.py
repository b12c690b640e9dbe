"""From a configuration to the things a run needs: the image spec, the model, the device.

What is left open is read off the data: the size and the channels of the images, their mean and standard
deviation. Everything here is a function of the configuration and the data, so that a resumed run arrives at
the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from tesela.core.errors import ConfigError, ImageError
from tesela.data.scan import nothing_readable
from tesela.data.source import decode_limits
from tesela.imaging.decode import upright_size
from tesela.imaging.spec import ImageSpec
from tesela.models import catalog
from tesela.models.factory import build_model, empty_with_head
from tesela.tasks.catalog import task_names
from tesela.tasks.task import Task, head_text
from tesela.training.config import SCRATCH, TrainConfig

if TYPE_CHECKING:
    from tesela.data.source import Items, Source
    from tesela.models.bundle import BundleInfo
    from tesela.models.model import Model

SMALL = 96
WHOLE = 640
#: Fields of a network's configuration that touch no weight, so that they can be changed when it is loaded.
DROPOUTS = frozenset({"dropout", "attention_dropout", "drop_path", "patch_dropout"})
LOOKED_AT, MEASURED = 32, 1024
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: With --model auto: the first whose patches divide images of up to so many pixels.
AUTOMATIC = (
    (12, ("vit_nano",)),
    (36, ("cct_7_3x2_32", "vit_mnist", "vit_lite7_p4")),
    (SMALL, ("vit_mini_p8", "vit_lite7_p4")),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageStats:
    """Size and channels of a few images.

    Attributes:
        size: (height, width) where all that were looked at agree, else None.
        channels: as asked for, else 1 where the source is grey, else 3.
    """

    size: tuple[int, int] | None
    channels: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """The model at step 0.

    Attributes:
        model: with its initial weights, on the CPU.
        name: of ``tesela models``.
        spec: what it expects of an image.
        origin: the bundle it started from, or None.
        license: of the weights it started from.
        head: what became of the trained head, for the plan; empty for a model without one.
    """

    model: Model
    name: str
    spec: ImageSpec
    origin: str | None = None
    license: str = "unknown"
    head: str = ""


def inspect_images(items: Items, channels: int) -> ImageStats:
    """Sizes of a few images, evenly spread, from their headers.

    Raises:
        DataError: not one of them can be read.
    """
    sizes = set()
    for index in _spread(items, LOOKED_AT):
        with contextlib.suppress(ImageError):
            data = items.raw(index)
            plain = items.read(index, channels=channels).shape[:2] if data is None else None
            sizes.add(plain or upright_size(data or b"", limits=decode_limits(items)))
    if not sizes:
        raise nothing_readable(items)
    return ImageStats(size=sizes.pop() if len(sizes) == 1 else None, channels=channels)


def start(config: TrainConfig, source: Source, task: Task, labels: Sequence[str]) -> Start:
    """The model and its image spec for a run's data.

    Raises:
        ConfigError: the model, its overrides and the images do not fit together.
        WeightsError: the bundle to start from is broken.
    """
    if config.from_ not in (None, SCRATCH):
        return _from_source(config, source, task, labels)
    if config.tune != "all":
        raise ConfigError(
            f"--tune {config.tune} needs a trained model to start from",
            hint="give --from RUN, or train everything",
        )
    looks = inspect_images(source.splits["train"], source.channels)
    name, size = choose_model(config, looks, task)
    network = catalog.resolve(name, image_size=size, channels=looks.channels, overrides=config.net)
    decoder = _decoder(config, task, catalog.find_model(name).decoder)
    model = build_model(network, lambda backbone: task.build(backbone, labels, **decoder), seed=config.seed)
    height, width = network.image_size
    plain = ImageSpec(
        height=height,
        width=width,
        channels=looks.channels,
        mean=(0.0,) * looks.channels,
        std=(1.0,) * looks.channels,
        resize=_resize(config, looks, (height, width), task),
    )
    mean, std = normalisation(
        "data" if config.normalize == "auto" else config.normalize, source.splits["train"], plain
    )
    return Start(model=model, name=name, spec=dataclasses.replace(plain, mean=mean, std=std))


def _decoder(config: TrainConfig, task: Task, own: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of ``Task.build``: the decoder's settings, over those that the model's authors chose.

    Raises:
        ConfigError: the task has no decoder.
    """
    asked = dict(config.decoder)
    if not task.has_decoder:
        if asked:
            raise ConfigError(
                f"the task {task.name} has no decoder",
                hint="leave the decoder out, or name the task: --task " + "|".join(task_names()),
            )
        return {}
    same = asked.get("name", own.get("name")) == own.get("name")
    merged = {**own, **asked} if same else asked
    return {"decoder": merged} if merged else {}


def choose_model(
    config: TrainConfig, looks: ImageStats, task: Task | None = None
) -> tuple[str, tuple[int, int]]:
    """Name and image size: as asked for, else by the images' own size.

    Small images keep their size where the model is a compact one and its patches divide them; all others take
    the model's. Where a task sees whole images, they keep their common size up to ``WHOLE`` pixels a side.
    """
    whole = task is not None and task.whole_images
    limit = WHOLE if whole else SMALL
    native = looks.size if looks.size is not None and max(looks.size) <= limit else None
    names = [config.model] if config.model != "auto" else _automatic(config.size or native, looks.channels)
    if config.model == "auto" and task is not None and task.automatic_model is not None:
        names = [task.automatic_model]
    elif config.model == "auto" and task is not None and task.automatic_families is not None:
        allowed = task.automatic_families
        names = [one for one in names if catalog.family_of(catalog.find_model(one).config) in allowed]
    for name in names:
        own = catalog.find_model(name).config.image_size
        size = config.size or (native if native is not None and (whole or max(own) <= SMALL) else None)
        if size is None or _fits(name, size, config, looks):
            return name, size or own
    if config.size is None:
        return names[-1], catalog.find_model(names[-1]).config.image_size
    return names[-1], config.size  # creating the model says what does not fit


def _automatic(size: tuple[int, int] | None, channels: int) -> list[str]:
    if size is None or max(size) > SMALL:
        return ["vit_s16"]
    names = next(names for limit, names in AUTOMATIC if max(size) <= limit)
    # those meant for such images first
    return sorted(names, key=lambda name: catalog.find_model(name).config.channels != channels)


def _fits(name: str, size: tuple[int, int], config: TrainConfig, looks: ImageStats) -> bool:
    try:
        catalog.resolve(name, image_size=size, channels=looks.channels, overrides=config.net)
    except ConfigError:
        return False
    return True


def _resize(
    config: TrainConfig, looks: ImageStats, size: tuple[int, int], task: Task
) -> Literal["squash", "crop", "pad"]:
    if config.resize == "crop" and task.whole_images:
        raise ConfigError(
            f"the task {task.name} needs whole images, and --resize crop cuts their borders off",
            hint="use --resize squash or pad; --augment.random_resized_crop crops while training",
        )
    if config.resize != "auto":
        return config.resize
    if task.whole_images:
        return "squash"
    return (
        "squash"
        if looks.size is not None and max(looks.size) <= SMALL
        else "crop"
        if max(size) > SMALL
        else "squash"
    )


def normalisation(kind: str, items: Items, plain: ImageSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel in units of 0..1.

    Args:
        kind: data, half, imagenet or none.
        items: the training split.
        plain: the spec without normalisation.
    """
    channels = plain.channels
    if kind == "imagenet":
        if channels not in (1, 3):
            raise ConfigError(
                f"ImageNet's statistics are of 1 or 3 channels, not {channels}", hint="use --normalize data"
            )
        return (IMAGENET_STATISTICS[0], IMAGENET_STATISTICS[1]) if channels == 3 else ((0.449,), (0.226,))
    if kind == "half":
        return (0.5,) * channels, (0.5,) * channels
    if kind == "none":
        return (0.0,) * channels, (1.0,) * channels
    from tesela.imaging.preprocess import fit_image

    count, total, squares = 0, np.zeros(channels), np.zeros(channels)
    for image in _some(items, MEASURED, channels):
        pixels = fit_image(image, plain).reshape(-1, channels).astype(np.float64) / 255
        count, total, squares = count + len(pixels), total + pixels.sum(0), squares + (pixels**2).sum(0)
    mean = total / max(count, 1)
    std = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
    return tuple(round(float(value), 4) for value in mean), tuple(
        max(0.01, round(float(value), 4)) for value in std
    )


def _some(items: Items, most: int, channels: int) -> Iterator[Any]:
    """Up to ``most`` images that can be read, evenly spread over the split."""
    for index in _spread(items, most):
        with contextlib.suppress(ImageError):
            yield items.read(index, channels=channels)


def _spread(items: Items, most: int) -> list[int]:
    """Up to ``most`` places, evenly over the split."""
    found = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).astype(int))
    return [int(index) for index in found]


def _from_source(config: TrainConfig, source: Source, task: Task, labels: Sequence[str]) -> Start:
    """A trained model, fitted to the data: its view, its head, its dropouts."""
    model, info = _opened(str(config.from_))
    if config.data.channels not in ("auto", info.image.channels):
        raise ConfigError(
            f"{config.from_} sees {info.image.channels} channels, not the {config.data.channels} of "
            "data.channels",
            hint="leave --data.channels out, or train from scratch",
        )
    size = config.size or info.image.size
    if size != info.image.size:
        resize_view(model, size, interpolate=config.interpolate_positions, seed=config.seed)
    model = _with_dropouts(model, config.net)
    before = model
    model = task.adapt(model, labels, info.labels, seed=config.seed, **_decoder(config, task, {}))
    head = head_text(labels, info.labels, kept=model is before) if labels else ""
    spec = info.image.at(size)
    if config.resize != "auto" or (task.whole_images and (spec.resize == "crop" or spec.resized)):
        looks = ImageStats(size=None, channels=spec.channels)
        spec = spec.exact(_resize(config, looks, size, task))
    if config.normalize != "auto":
        mean, std = normalisation(config.normalize, source.splits["train"], spec)
        spec = dataclasses.replace(spec, mean=mean, std=std)
    return Start(
        model=model, name=info.name, spec=spec, origin=str(config.from_), license=info.license, head=head
    )


def _opened(source: str) -> tuple[Model, BundleInfo]:
    """The model that training starts from, and what is known of it."""
    from tesela.checkpoints.open import open_model

    return open_model(source, new_head=True)


def resize_view(model: Model, size: tuple[int, int], *, interpolate: bool, seed: int) -> None:
    """Make ``size`` (height, width) the model's own.

    Args:
        model: changed in place.
        size: of the images to come.
        interpolate: whether learned positions are interpolated to the new grid (paper, section 3.2); else
            they are initialised again, those of prefix tokens too.
        seed: of that draw.

    Raises:
        ConfigError: the model cannot see images of that size.
    """
    before = {id(parameter) for parameter in model.parameters()}
    model.set_image_size(size)
    if interpolate:
        return
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        reset: Any = getattr(module, "reset", None)
        if reset is not None and any(
            id(parameter) not in before for parameter in module.parameters(recurse=False)
        ):
            reset(generator)


def _with_dropouts(model: Model, overrides: Mapping[str, Any]) -> Model:
    """The same weights in a network with other dropouts."""
    if not overrides:
        return model
    fixed = [name for name in overrides if name not in DROPOUTS]
    if fixed:
        raise ConfigError(
            f"net.{fixed[0]} cannot be changed in a model that is loaded",
            hint=f"of its configuration only {', '.join(sorted(DROPOUTS))} can; or train without --from",
        )
    network = catalog.changed(model.config, overrides=overrides)
    changed: Model = empty_with_head(
        network, lambda backbone: type(model)(backbone, num_classes=model.num_classes, **model.options)
    )
    changed.load_state_dict(model.state_dict(), assign=True)
    return changed
