"""The Python face of tesela: the command line's verbs as functions, over the same rooms.

    import tesela as ts
    run = ts.train("digits", model="vit_nano", epochs=5, out="runs/digits")
    model = ts.load(run.path)
    heat = ts.explain(model, images, target="7")

Odd: this module stands above every room and is imported only when one of its names is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tesela.answers import bench, compare, evaluate, explain, inspect, models, predict
from tesela.attribution.explain import Explanation
from tesela.evaluation.few_shot import few_shot
from tesela.exporters.catalog import ExportReport, export_model
from tesela.exporters.options import ExportOptions
from tesela.hardware.allocator import keep_freed_memory
from tesela.models.factory import create_model, create_segmenter
from tesela.runs.result import RunResult
from tesela.training.planning.requirements import Requirements
from tesela.training.planning.requirements import training_requirements as plan

if TYPE_CHECKING:
    from rich.console import Console

    from tesela.data.source import Source
    from tesela.models.model import Model
    from tesela.studies.study import StudyResult
    from tesela.training.config import TrainConfig

__all__ = [
    "Explanation",
    "ExportReport",
    "Requirements",
    "RunResult",
    "bench",
    "compare",
    "create_model",
    "create_segmenter",
    "evaluate",
    "explain",
    "export",
    "few_shot",
    "inspect",
    "load",
    "models",
    "plan",
    "predict",
    "study",
    "train",
]


def load(
    source: str | Path, *, device: str = "cpu", image_size: int | tuple[int, int] | None = None
) -> Model:
    """The classifier of a run, a bundle or another program's checkpoint, in evaluation mode.

    Args:
        source: a run or bundle, a Hugging Face folder, a timm .safetensors or .pth, a JAX .npz, or
            ``hub:NAME[@REVISION]``.
        device: where the weights go.
        image_size: another side or (height, width); learned positions are interpolated. Where a checkpoint
            leaves open which images its positions are of, those.

    Returns:
        an ``nn.Module``: normalised images (B, C, H, W), float32, to logits (B, K). Its ``info`` holds labels
        and preprocessing.

    Raises:
        UsageError: there is nothing at ``source``.
        WeightsError: the weights are damaged or do not fit; tensors are named.
    """
    from tesela.checkpoints.open import open_model

    return open_model(source, device=device, image_size=image_size)[0]


def train(
    data: str | Path | None = None,
    *,
    resume: bool = False,
    quiet: bool = False,
    console: Console | None = None,
    config: Mapping[str, Any] | str | Path | None = None,
    **options: Any,
) -> RunResult:
    """Train a model; the same options as ``tesela train``.

    Args:
        data: DATA of the command line; not needed to resume.
        resume: go on with the run in ``out``.
        quiet: show neither plan nor progress.
        console: where plan and progress go; standard error, or the notebook, by default.
        config: a mapping or a YAML file, below the options and over the recipe.
        **options: fields of TrainConfig; ``optim={"lr": 1e-3}`` or ``**{"optim.lr": 1e-3}``.

    Raises:
        TeselaError: as the command line says it, with a hint.
    """
    from tesela.core.config import read_yaml
    from tesela.core.errors import UsageError
    from tesela.core.progress import stderr_console
    from tesela.recipes import find_recipe
    from tesela.training.config import layered
    from tesela.training.run import resumed_config

    console = None if quiet else console or stderr_console()
    written = read_yaml(Path(config)) if isinstance(config, (str, Path)) else dict(config or {})
    given = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    if data is not None:
        given["data.source"] = str(data)
    if resume:
        out = given.pop("out", None)
        if out is None:
            raise UsageError("resume needs the run's folder", hint="give out=RUN")
        return train_config(resumed_config(out, {**written, **given}), resume=True, console=console)
    recipe = given.get("recipe", written.get("recipe"))
    settings = layered(find_recipe(recipe) if recipe else {}, written, given)
    return train_config(settings, console=console)


def train_config(
    config: TrainConfig,
    *,
    resume: bool = False,
    console: Console | None = None,
    begin: float | None = None,
    source: Source | None = None,
) -> RunResult:
    """Train as a whole configuration says, with explanations in the report.

    Args:
        config: the run.
        resume: go on with the run in ``config.out``.
        console: where plan and progress go; nowhere where it is None.
        begin: monotonic time from which ``minutes`` count; now if None.
        source: the data, where it is open already.
    """
    keep_freed_memory()
    from tesela.training.run import train as train_run

    return train_run(config, resume=resume, console=console, begin=begin, source=source)


def export(
    source: str | Path, *, to: str = "onnx", out: str | Path | None = None, **options: Any
) -> ExportReport:
    """Write a model for another runtime (onnx, openvino, compiled) or library (hf, timm, jax).

    Args:
        source: a run, a bundle, or any checkpoint that ``load`` takes.
        to: the format.
        out: the folder to write.
        **options: of programs, fields of ``tesela.exporters.options.ExportOptions``: precision, data,
            with_map, with_features, force.

    Raises:
        UnknownNameError: no such format or precision.
        WeightsError: the exported model differs from the original, or the library has no place for it.
    """
    return export_model(source, to=to, out=out, options=ExportOptions(**options))


def study(
    kind: str,
    data: str | Path,
    *,
    out: str | Path | None = None,
    models: str | Sequence[str] = (),
    labels: int | Sequence[int] = (),
    seeds: int = 3,
    first_seed: int = 0,
    epochs: int | Sequence[int] = (),
    minutes: float | Sequence[float] = (),
    pretrain_share: float = 0.5,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> StudyResult:
    """Run a grid of trainings that answers a question, and write one page, as ``tesela study`` does.

    A study that ended early goes on when it is asked for again; nothing runs twice.

    Args:
        kind: data-size, compute, positions, few-labels or claims.
        data: the data, as ``train`` takes it.
        out: folder of the study; studies/KIND if None.
        models: families (vit, hybrid, cct, cnn) or names of models, settings behind them: vit_nano:depth=2.
        labels: training images of each class.
        seeds: how often each is repeated.
        first_seed: the first of the seeds.
        epochs: length of a run in epochs; several for compute.
        minutes: length of a run in minutes instead, for all that a compared way needs.
        pretrain_share: share of the minutes that goes into pre-training.
        settings: further options of every run, as ``train`` takes them.
        quiet: show no progress.

    Returns:
        how many cells there are and have a result, those that failed, and the answer.

    Raises:
        UnknownNameError: no such kind or model.
        ConfigError: what was asked for does not fit the data, or a setting does not exist.
        DataError: the data cannot be trained on.
    """
    keep_freed_memory()
    from tesela.core.progress import stderr_console
    from tesela.studies.config import StudyConfig
    from tesela.studies.study import open_study, run_study

    config = StudyConfig(
        kind=kind,
        data=str(data),
        models=(models,) if isinstance(models, str) else tuple(models),
        labels=(labels,) if isinstance(labels, int) else tuple(labels),
        seeds=seeds,
        first_seed=first_seed,
        epochs=(epochs,) if isinstance(epochs, int) else tuple(epochs),
        minutes=(float(minutes),) if isinstance(minutes, (int, float)) else tuple(map(float, minutes)),
        pretrain_share=pretrain_share,
        settings=dict(settings or {}),
    )
    console = stderr_console()

    def say(line: str) -> None:
        if not quiet:
            console.print(line, markup=False, highlight=False)

    return run_study(open_study(config, out), say=say)
