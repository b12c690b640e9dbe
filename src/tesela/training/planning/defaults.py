"""Defaults: a network that suits the objective; for photographs more, and trained weights.

Those for photographs apply only where nothing was chosen: a recipe, an augmentation, a model or a source of
weights turns them off. What was filled in is written into the run's configuration, so that a replay does not
depend on what is in a cache or on a network.
"""

from __future__ import annotations

import dataclasses
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tesela.core.config import build, to_mapping
from tesela.core.errors import ConfigError, TeselaError
from tesela.core.format import byte_size
from tesela.data.config import AugmentConfig
from tesela.models import catalog
from tesela.models.pretrained import PRETRAINED, Pretrained
from tesela.tasks.catalog import objective_config, task_for
from tesela.training.config import SCRATCH, TrainConfig
from tesela.training.optim.optimizer import OptimConfig
from tesela.training.start import SMALL, choose_model, inspect_images

if TYPE_CHECKING:
    from tesela.data.source import Source
    from tesela.tasks.task import Task

#: Photographs of whole objects: what a person would still recognise.
CROPS = AugmentConfig(hflip=0.5, random_resized_crop=True, crop_scale=(0.35, 1.0), color_jitter=0.3)
#: The same where the whole image counts.
SCALES = AugmentConfig(hflip=0.5, zoom=0.5, translation=0.2, color_jitter=0.4)
#: The head alone reads features that are kept, of an image and its mirror image.
MIRROR = AugmentConfig(hflip=0.5)
#: A learning rate for weights that were trained before, gentler in lower layers (recipe ``finetune``).
GENTLE: dict[str, Any] = {"lr": 3e-4, "weight_decay": 0.05, "layer_decay": 0.75}
CONNECT_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """A configuration with what was open filled in.

    Attributes:
        config: the whole configuration.
        notes: label and text of each default, for the plan.
    """

    config: TrainConfig
    notes: tuple[tuple[str, str], ...] = ()


def fill_defaults(config: TrainConfig, source: Source) -> Defaults:
    """Fill in what an expert would choose: a network that suits the objective, and more for photographs.

    Args:
        config: as given.
        source: its data.
    """
    task = task_for(config.task, source)
    config, notes = _with_network(config, source, task)
    if config.recipe is not None or not are_photographs(source):
        return Defaults(config=config, notes=tuple(notes))
    if config.augment == AugmentConfig():
        augment = MIRROR if config.tune == "head" else SCALES if task.whole_images else CROPS
        config = dataclasses.replace(config, augment=augment)
        kinds = "flips" if config.tune == "head" else "flips, crops and colours"
        notes.append(("augment", f"{kinds}, as usual for photographs; --augment.preset none for none"))
    undecided = task.needs_labels and config.model == "auto" and config.from_ is None and config.tune == "all"
    if undecided and not (config.net or config.decoder):
        config, note = _with_pretrained(config, len(source.splits["train"]))
        notes.append(("start", note))
    return Defaults(config=config, notes=tuple(notes))


def _with_network(
    config: TrainConfig, source: Source, task: Task
) -> tuple[TrainConfig, list[tuple[str, str]]]:
    """The fields that the task prefers for a new network, with what to tell."""
    wanted = task.preferred_network(build(objective_config(task.name), config.objective))
    if not wanted or config.from_ not in (None, SCRATCH):
        return config, []
    looks = inspect_images(source.splits["train"], source.channels)
    name, size = choose_model(config, looks, task)
    network = catalog.resolve(name, image_size=size, channels=looks.channels, overrides=config.net)
    notes = []
    for field, (usual, better) in wanted.items():
        if field in config.net or getattr(network, field, None) != usual:
            continue
        try:
            network = catalog.changed(network, overrides={field: better})
        except ConfigError:  # such as a distillation token, which only a class token goes with
            continue
        config = dataclasses.replace(config, net={**config.net, field: better})
        notes.append((field, f"{better}, which suits the objective; --net.{field} {usual} for the usual"))
    return config, notes


def are_photographs(source: Source) -> bool:
    """Whether images are coloured, and larger than thumbnails or of different sizes."""
    if source.channels != 3:
        return False
    size = inspect_images(source.splits["train"], source.channels).size
    return size is None or max(size) > SMALL


def _with_pretrained(config: TrainConfig, images: int) -> tuple[TrainConfig, str]:
    """Start from the first pre-trained model, if it is here or can be fetched; and what to tell."""
    model = PRETRAINED[0]
    wanted = f"{model.alias} ({byte_size(model.bytes)}, {model.license})"
    here = is_cached(model)
    if here or hub_answers():
        try:
            if not here:
                from tesela.checkpoints.hub import download

                download(model.source)
        except TeselaError as error:
            return config, f"from scratch, since {wanted} could not be fetched: {error.message}"
        gentle = to_mapping(config.optim) | GENTLE if config.optim == OptimConfig() else None
        optim = OptimConfig(**gentle) if gentle else config.optim
        config = dataclasses.replace(config, from_=model.source, optim=optim)
        return config, f"from the pre-trained {wanted}; --from {SCRATCH} for random weights"
    return config, (
        f"from scratch, so {images:,} images will teach it little: {wanted} is not here, and the hub cannot "
        f"be reached. Connected, run: hf download {model.repository} --local-dir {model.alias}; then --from "
        f"{model.alias}"
    )


def is_cached(model: Pretrained) -> bool:
    """Whether huggingface_hub's cache has its weights."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return False
    return isinstance(try_to_load_from_cache(model.repository, "model.safetensors"), str)


def hub_answers() -> bool:
    """Whether the model hub can be reached, within ``CONNECT_SECONDS``."""
    try:
        from huggingface_hub import constants
    except ImportError:
        return False
    if constants.HF_HUB_OFFLINE:
        return False
    host = urlsplit(constants.ENDPOINT)
    try:
        with socket.create_connection(
            (host.hostname, host.port or (443 if host.scheme == "https" else 80)), CONNECT_SECONDS
        ):
            return True
    except (OSError, ValueError):
        return False
