"""Options that were set and cannot act, each with what it would need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tesela.training.config import SCRATCH, TrainConfig, setting_changes


@dataclass(frozen=True, slots=True)
class Need:
    """What options need in order to act.

    Attributes:
        names: dotted names, or beginnings of them that end in a dot.
        met: whether they act.
        text: what they need, for a person.
    """

    names: tuple[str, ...]
    met: Callable[[TrainConfig], bool]
    text: str


NEEDS = (
    Need(("lora.",), lambda c: c.tune == "lora", "--tune lora"),
    Need(("tune_cache",), lambda c: c.tune == "head", "--tune head"),
    Need(("interpolate_positions",), lambda c: c.from_ not in (None, SCRATCH), "--from SOURCE"),
    Need(("ema.every",), lambda c: c.ema.decay > 0, "--ema.decay"),
    Need(
        ("schedule.step_factor", "schedule.step_epochs"),
        lambda c: c.schedule.name == "step",
        "--schedule.name step",
    ),
    Need(
        ("schedule.timescale", "schedule.cooldown"),
        lambda c: c.schedule.name == "rsqrt",
        "--schedule.name rsqrt",
    ),
    Need(
        ("schedule.floor",),
        lambda c: c.schedule.name in ("cosine", "linear"),
        "--schedule.name cosine or linear",
    ),
    Need(("optim.momentum",), lambda c: c.optim.name in ("sgd", "muon"), "--optim.name sgd or muon"),
    Need(
        ("optim.beta1", "optim.beta2", "optim.eps"), lambda c: c.optim.name != "sgd", "an optimizer but sgd"
    ),
    Need(("augment.crop_fill",), lambda c: c.augment.crop_padding > 0, "--augment.crop-padding"),
    Need(
        ("augment.crop_scale", "augment.crop_aspect"),
        lambda c: c.augment.random_resized_crop,
        "--augment.random-resized-crop",
    ),
    Need(("augment.magnitude",), lambda c: c.augment.randaugment > 0, "--augment.randaugment"),
    Need(("augment.erasing_area",), lambda c: c.augment.erasing > 0, "--augment.erasing"),
    Need(
        ("augment.mix_probability",),
        lambda c: c.augment.mixup > 0 or c.augment.cutmix > 0,
        "--augment.mixup or --augment.cutmix",
    ),
    Need(
        ("distillation", "teacher_share", "distill_temperature", "teacher_cache"),
        lambda c: c.objective.get("teacher") is not None,
        "--teacher",
    ),
    Need(
        ("distill_temperature",),
        lambda c: c.objective.get("teacher") is None or c.objective.get("distillation") != "hard",
        "--distillation soft",
    ),
    Need(("focal_gamma",), lambda c: c.objective.get("focal", 0) > 0, "--focal"),
    Need(("data.split_seed",), lambda c: cuts(c) or chooses(c), "a split that is cut, or a subset"),
)


def cuts(config: TrainConfig) -> bool:
    """Whether splits may be cut out of the training images."""
    return config.data.val_fraction > 0 or config.data.test_fraction > 0


def chooses(config: TrainConfig) -> bool:
    """Whether a part of the training images is drawn."""
    return config.data.subset is not None or config.data.per_class is not None


def inert_options(config: TrainConfig) -> list[str]:
    """A line for each option that differs from its default and cannot act."""
    changed = setting_changes(config)
    return [
        f"--{name.replace('_', '-')} has no effect without {need.text}"
        for need in NEEDS
        if not need.met(config)
        for name in changed
        if any(name == known or (known.endswith(".") and name.startswith(known)) for known in need.names)
    ]


def idle_options(config: TrainConfig, *, batches: int, validated: bool) -> list[str]:
    """A line for each option that cannot act on this data.

    Args:
        config: of the run.
        batches: of an epoch.
        validated: whether there are validation images.
    """
    lines = []
    if config.accumulate > batches:
        lines.append(f"--accumulate {config.accumulate}: an epoch has {batches} batches, which make one step")
    if config.patience and not validated:
        lines.append("--patience: there are no validation images")
    return lines
