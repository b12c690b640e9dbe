"""Configuration of a training run, without torch.

Each part is the configuration of the component that uses it. Odd: ``epochs`` and ``minutes`` exclude one
another; where they come from different layers (a recipe and the command line), the later layer wins, which
``layered`` sees to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from tesela.core.config import Leaf, Tree, build, leaves, merge, nest, to_mapping
from tesela.core.errors import ConfigError, suggestion
from tesela.data.config import AugmentConfig, DataConfig
from tesela.layers.lora_config import LoraConfig
from tesela.runs.settings import FREE_SETTINGS
from tesela.tasks.catalog import AUTO, objective_config, task_names
from tesela.training.choices import RENAMED_KERNELS
from tesela.training.optim.ema import EmaConfig
from tesela.training.optim.optimizer import OptimConfig
from tesela.training.optim.schedule import ScheduleConfig

DEFAULT_EPOCHS = 20
#: Word of ``--from`` for random weights, where a pre-trained model would be taken otherwise.
SCRATCH = "scratch"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """A whole training run."""

    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    net: dict[str, Any] = field(default_factory=dict)
    """Overrides of the model's own configuration, such as --net.depth 6; see: tesela models show NAME. With
    --from its dropouts only."""
    model: str = "auto"
    """Name from `tesela models`; auto takes a compact one for small images and a ViT-S/16 for large ones."""
    from_: str | None = None
    """Weights to start from: a run, a bundle, a Hugging Face folder, a timm or JAX file, hub:NAME, or a name
    of `tesela models --pretrained`; another head where classes differ. By default photographs start from a
    pre-trained model where one is here or can be fetched; scratch takes random weights."""
    tune: Literal["all", "head", "lora", "bias"] = "all"
    """What is trained of a model that was loaded: everything, the head alone, low-rank adapters and the head,
    or biases and the head."""
    tune_unfreeze: float = 0.0
    """Begin with the last group of layers and add the one before it every so many epochs; 0 trains all groups
    from the start."""
    tune_cache: Literal["auto", "ram", "disk", "none"] = "auto"
    """Where the features of a frozen body are kept; auto keeps them wherever images are at most flipped, in
    memory up to 2 GiB."""
    interpolate_positions: bool = True
    """With --from at another image size: interpolate learned positions; else initialise them again."""
    task: str = "auto"
    """What is learned; auto reads it off the data."""
    objective: dict[str, Any] = field(default_factory=dict)
    """Settings of the task's objective, such as --objective.label_smoothing 0.1."""
    decoder: dict[str, Any] = field(default_factory=dict)
    """Decoder of a segmenter: --decoder.name light, linear, mlp, patch or unet, and its settings; by default
    what goes with the model."""
    recipe: str | None = None
    """Named full configuration that the other options override."""
    epochs: int | None = None
    """Passes over the training images (20 where neither epochs nor minutes is given)."""
    minutes: float | None = None
    """Time budget for everything, the final evaluation included; the schedule is fitted to it."""
    batch_size: int | Literal["auto"] = "auto"
    """Images per batch; auto goes by the number of images and the free memory."""
    accumulate: int = 1
    """Batches whose gradients are added up before each step."""
    seed: int = 0
    """Everything random is a function of it."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the matrix products; auto measures a few steps."""
    attention: Literal["auto", "fused", "matmul", "cpu_bf16"] = "auto"
    """Attention kernel; auto measures a few steps."""
    shard: Literal["none", "full"] = "none"
    """With several processes: none gives each of them all weights (DDP); full shares weights, gradients and
    moments out among them (FSDP2), a momentum teacher too, which takes less memory and more communication."""
    clip_norm: float = 1.0
    """Longest gradient; 0 turns clipping off."""
    patience: int = 0
    """Stop after this many epochs without a better validation score; 0 turns it off."""
    keep: Literal["best", "last"] = "best"
    """Weights that are kept: those of the epoch with the best validation score, or the last ones."""
    calibrate: bool = True
    """After training, scale a classifier's logits by one factor, fitted on the validation images, so that
    its probabilities are right as often as they say."""
    image_size: int | tuple[int, int] | None = None
    """Side, or height,width, of the model's view; by default the images' own size where small, else the
    model's, and with --from its."""
    resize: Literal["auto", "squash", "crop", "pad"] = "auto"
    """How an image is fitted to that size; auto crops the middle of photographs, squashes what nearly fits,
    and with --from does as it."""
    normalize: Literal["auto", "data", "half", "imagenet", "none"] = "auto"
    """Mean and standard deviation: of the training images, 0.5, ImageNet's, or none; auto is data, and with
    --from what its model learnt with."""
    few_shot: tuple[int, ...] = ()
    """Shots, such as 1,5: after each epoch, accuracy on the validation images of a ridge regression of the
    model's features of so many training images of each class."""
    out: str | None = None
    """Folder of the run; by default a new one below runs/."""
    checkpoint_seconds: float = 60.0
    """Save at least this often (and at the end of each epoch)."""
    checkpoint_steps: int = 0
    """Save every so many steps as well; 0 turns it off."""
    log_steps: int = 10
    """Steps between two rows of metrics.jsonl."""
    threads: int = 0
    """Threads for computing; 0 takes PyTorch's choice. A resumed run keeps the number, because sums depend on
    it."""
    tensorboard: bool = True
    """Write TensorBoard's files too, where it is installed."""
    report: bool = True
    """Write report.html at the end."""

    def __post_init__(self) -> None:
        if self.epochs is not None and self.minutes is not None:
            raise ConfigError("epochs and minutes exclude one another", hint="give one of them")
        for name in ("epochs", "minutes", "accumulate", "log_steps"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} must be above 0, not {value}", hint="give a larger number")
        if self.batch_size != "auto" and self.batch_size < 1:
            raise ConfigError(
                f"batch_size must be at least 1, not {self.batch_size}",
                hint="give a number of images, or auto",
            )
        for name in ("clip_norm", "patience", "checkpoint_seconds", "checkpoint_steps", "threads", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} cannot be {getattr(self, name)}", hint="give 0 or more")
        if self.tune_unfreeze < 0:
            raise ConfigError(
                f"tune_unfreeze cannot be {self.tune_unfreeze}", hint="give a number of epochs, or 0"
            )
        if self.tune_unfreeze and self.tune == "head":
            raise ConfigError(
                "tune_unfreeze has nothing to unfreeze where the head alone is trained", hint="use --tune all"
            )
        check_objective(self.task, self.objective)
        if self.precision == "fp16" and self.device == "cpu":
            raise ConfigError("fp16 needs a GPU", hint="use --precision bf16 or fp32 on a CPU")

    def tuning_text(self) -> str:
        """How the model is trained if not every weight is, or not from the start; else empty."""
        if self.tune == "all" and not self.tune_unfreeze:
            return ""
        lora = f" of rank {self.lora.rank} on {','.join(self.lora.targets)}" if self.tune == "lora" else ""
        groups = f", a group of layers more every {self.tune_unfreeze:g} epochs" if self.tune_unfreeze else ""
        return f"{self.tune}{lora}{groups}"

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) asked for."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size


def layered(*layers: Mapping[str, Any]) -> TrainConfig:
    """The configuration of several mappings, the later ones over the earlier.

    Raises:
        ConfigError: unknown keys, wrong types, values out of range.
    """
    return build(TrainConfig, *untangled(*layers))


def untangled(*layers: Mapping[str, Any]) -> list[Tree]:
    """The layers with ``epochs`` or ``minutes`` taken back wherever a later layer sets the other one."""
    trees = [_objective_below(_renamed(nest(layer))) for layer in layers]
    for place, tree in enumerate(trees):
        for mine, other in (("epochs", "minutes"), ("minutes", "epochs")):
            if tree.get(mine) is not None and tree.get(other) is None:
                for earlier in trees[:place]:
                    earlier.pop(other, None)
    return trees


def _renamed(tree: Tree) -> Tree:
    """``from`` is a word of Python; the field is called ``from_``.

    An earlier name of an attention kernel becomes today's.
    """
    tree = {("from_" if key == "from" else key): value for key, value in tree.items()}
    return (
        {**tree, "attention": RENAMED_KERNELS.get(tree["attention"], tree["attention"])}
        if "attention" in tree
        else tree
    )


def _objective_below(tree: Tree) -> Tree:
    """Settings of a task's objective may also stand at the top.

    ``label_smoothing`` as ``objective.label_smoothing``.
    """
    own = {part.name for part in fields(TrainConfig)}
    found = {key: tree.pop(key) for key in list(tree) if key not in own and key in objective_fields()}
    return merge(tree, {"objective": found}) if found else tree


def objective_fields() -> dict[str, Leaf]:
    """The settings of all tasks' objectives, by name."""
    return {leaf.name: leaf for name in task_names() for leaf in leaves(objective_config(name))}


def check_objective(task: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings that no task, or not the named one, has.

    Raises:
        UnknownNameError: no such task.
        ConfigError: no such setting, or a value that its task refuses.
    """
    configs = [objective_config(name) for name in (task_names() if task == AUTO else [task])]
    known = {leaf.name: config for config in configs for leaf in leaves(config)}
    for key, value in settings.items():
        if key not in known:
            raise ConfigError(f"no objective has the setting {key!r}", hint=suggestion(key, known))
        build(known[key], {key: value})


def changes(old: TrainConfig, new: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Fields that differ and matter for the result: dotted name to (old, new)."""
    before, after = _flat(with_absolute_paths(old)), _flat(with_absolute_paths(new))
    return {
        name: (before[name], after[name])
        for name in before
        if name not in FREE_SETTINGS and before[name] != after[name]
    }


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The same with absolute paths for data and weights, so that the run can be used from anywhere."""
    data = dataclasses.replace(config.data, source=absolute(config.data.source))
    from_ = config.from_ if config.from_ is None else absolute(config.from_)
    objective = dict(config.objective)
    if isinstance(objective.get("teacher"), str):
        objective["teacher"] = absolute(objective["teacher"])
    return dataclasses.replace(config, data=data, from_=from_, objective=objective)


def absolute(source: str) -> str:
    """A path that exists, as an absolute one; any other word as it is."""
    path = Path(source).expanduser()
    return str(path.absolute()) if source and path.exists() else source


def setting_changes(config: TrainConfig) -> list[str]:
    """Dotted names of the fields that are not at their default."""
    plain, mine = _flat(TrainConfig()), _flat(config)
    named = [name for name, value in mine.items() if value != plain[name] and name != "objective"]
    return [*named, *config.objective]


def _flat(config: TrainConfig) -> dict[str, Any]:
    tree = to_mapping(config)
    flat: dict[str, Any] = {}
    for leaf in leaves(TrainConfig):
        value: Any = tree
        for part in leaf.name.split("."):
            value = value[part]
        flat[leaf.name] = value
    return flat
