"""Functions that ask models: predict, explain, evaluate, inspect, compare, bench, models.

Runs, bundles, names and loaded models are taken alike, and images in any form that people hold them in. Rooms
are imported when a function is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor, nn

    from tesela.attribution.explain import Explanation
    from tesela.attribution.methods.rollout import Fusion
    from tesela.attribution.question import Class, Target
    from tesela.inspection.inspect import Inspection
    from tesela.models.model import Model
    from tesela.reports.comparison import Group
    from tesela.runtime.backends.base import Precision
    from tesela.runtime.inputs import ImageInput


def predict(
    source: str | Path | Model,
    images: ImageInput | Iterable[ImageInput],
    *,
    backend: str = "auto",
    precision: Precision | Literal["auto"] = "auto",
    formats: Sequence[str] = (),
    max_pixels: int | None = None,
    **options: Any,
) -> list[Any]:
    """Results for images.

    Args:
        source: a run, a bundle, ``hub:NAME[@REVISION]``, another program's checkpoint, or a loaded model.
        images: a path, encoded bytes, an image of Pillow, an array (H, W), (H, W, 3) or (N, H, W, 3) of
            uint8, or any number of these; a folder or pattern stands for all its images.
        backend: what computes; auto measures what can be used here, once, and takes the fastest.
        precision: fp32, bf16, int8; auto takes bf16 where it is faster and the answers agree; a loaded model
            computes in its own.
        formats: the only image formats to open; all where none is named.
        max_pixels: most pixels of an image; 250 million if None.
        **options: of the task's results, such as ``top=5`` for a classifier's labels; ``batch=32`` images are
            computed at once.

    Returns:
        one ``tesela.tasks.result.Result`` of the task's own kind for each image, in a list also for a single
        one (a classifier's has ``best`` and ``scores``); one that cannot be read has a ``failure`` and is
        otherwise empty.

    Raises:
        UsageError: there is no such model or file, or an array is no image.
        WeightsError: the model is damaged.
    """
    from tesela.imaging.limits import local_limits
    from tesela.runs.folder import Run
    from tesela.runtime.inputs import image_sources
    from tesela.runtime.predictor import Predictor

    limits = local_limits(formats, max_pixels)
    predictor = Predictor(source, backend=backend, precision=precision, limits=limits)
    root = Run(source).data_root if isinstance(source, (str, Path)) else None
    sources = image_sources(images, channels=predictor.info.image.channels, root=root)
    return predictor.predict(sources, **options)


def explain(
    model: str | Path | nn.Module,
    images: Tensor | ImageInput | Iterable[ImageInput],
    target: Target = None,
    method: str = "auto",
    head_fusion: Fusion = "mean",
    discard: float = 0.0,
    residual: float = 0.5,
    *,
    contrast: Class | None = None,
    region: Tensor | None = None,
    patch: tuple[int, int] | None = None,
    layer: int | None = None,
    head: int | None = None,
    samples: int | None = None,
    seed: int = 0,
) -> Explanation:
    """Which parts of images spoke for a class: heat maps, as tensors.

    A program of ``tesela export --with-map`` explains the class that it predicts, without torch, by the
    methods auto and rollout.

    Args:
        model: a run, a bundle, a checkpoint, a loaded model, or anybody's classifier (timm, transformers,
            torchvision).
        images: a tensor (B, C, H, W) or (C, H, W), float32, normalised as the model expects; or what
            ``predict`` takes, which is prepared as a loaded model says.
        target: a class's index or label, or a list of them; None explains each image's predicted class.
        method: one of ``tesela.attribution.methods.table.methods()``; auto takes the best for the model.
        head_fusion: mean, max or min; rollouts only, as the next two.
        discard: share of each row's patch columns to clear, the smallest first.
        residual: share of attention in a layer's mixing; the rest is the skip connection.
        contrast: a class to tell the targets from: the difference of the two logits is explained.
        region: of a segmenter, the pixels to explain, (H, W) or (B, H, W) of the model's view; those that the
            class wins if None.
        patch: start at this (row, column) of the last layer's grid instead of where the head reads.
        layer: of attention and gradcam, counted from 0, or from the end if negative; the last if None.
        head: of attention; all fused if None.
        samples: points of integrated_gradients, copies of smoothgrad, masks of rise; each has its own.
        seed: of noise and masks.

    Returns:
        maps (B, K, H, W) of B images and K classes at the model's size, with the numbers behind them; of a
        program ``tesela.attribution.exported.ProgramMaps``, in arrays.

    Raises:
        ConfigError: an option is out of its range.
        UsageError: the images, class, method or an option cannot be used with this model.
        ImageError: an image cannot be read; the message names it.
    """
    from tesela.attribution.exported import exported_program, maps_of_images
    from tesela.runs.folder import Run
    from tesela.runtime.inputs import prepared_images
    from tesela.runtime.predictor import described

    program = exported_program(str(model)) if isinstance(model, (str, Path)) else None
    root = Run(model).data_root if isinstance(model, (str, Path)) else None
    if program is not None:
        asked = {
            "target": target, "contrast": contrast, "region": region, "patch": patch, "layer": layer,
            "head": head, "samples": samples, "seed": seed, "residual": residual,
            "head_fusion": head_fusion, "discard": discard,
        }  # fmt: skip
        found: Any = maps_of_images(program, images, method=method, asked=asked, root=root)
        return found  # type: ignore[no-any-return]  # the same fields, in arrays
    import torch
    from torch import Tensor

    from tesela.attribution.explain import explain as explain_tensors
    from tesela.checkpoints.open import open_model

    network: Any = open_model(model)[0] if isinstance(model, (str, Path)) else model
    return explain_tensors(
        network,
        images
        if isinstance(images, Tensor)
        else torch.from_numpy(prepared_images(described(network).image, images, root)),
        target=target,
        method=method,
        head_fusion=head_fusion,
        discard=discard,
        residual=residual,
        contrast=contrast,
        region=region,
        patch=patch,
        layer=layer,
        head=head,
        samples=samples,
        seed=seed,
    )


def evaluate(
    source: str | Path | Model,
    data: str | Path | tuple[Any, Any] | None = None,
    *,
    split: str = "test",
    batch_size: int = 256,
    device: str = "auto",
    precision: str = "auto",
    kernel: str | None = None,
    console: Console | None = None,
    formats: Sequence[str] | None = None,
    max_pixels: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Scores on a split of a data set; those of a run on its own data are kept in its folder.

    Args:
        source: a run, a bundle, a checkpoint, or a loaded model.
        data: DATA of the command line, or (images, targets): images as ``predict`` takes arrays, all of one
            size, and a label or class number for each; by default the run's own.
        split: train, val or test; (images, targets) are all of it.
        batch_size: images at a time; changes the speed only.
        device: cpu, cuda, mps or auto; a loaded model stays where it is.
        precision: fp32, bf16, fp16; auto is what the run was trained with.
        kernel: attention kernel; the model's own if None.
        console: where a progress bar goes; nowhere if None.
        formats: the only image formats to open; those of training if None.
        max_pixels: most pixels of an image; that of training if None.
        **options: of the task's scores, such as ``top=3`` for a classifier.

    Returns:
        what evaluation.json holds, such as ``accuracy``; ``unreadable`` lists images that were left out, and
        ``folder`` says where the scores lie (None for a bundle, which is left as it is).

    Raises:
        UsageError: no such model or split, no data named for a bundle, an option that the task does not have.
        DataError: the data has labels that the model does not know.
    """
    from tesela.core.errors import MissingExtraError
    from tesela.core.packages import installed
    from tesela.runtime.inputs import array_source
    from tesela.runtime.predictor import channels_of_model, labels_of_model

    if isinstance(data, tuple):
        labels, channels = labels_of_model(source), channels_of_model(source)
        chosen: Any = array_source(*data, labels=labels, split=split, channels=channels)
    else:
        chosen = None if data is None else str(data)
    if isinstance(source, (str, Path)) and not installed("torch"):
        if precision not in ("auto", "fp32") or device not in ("auto", "cpu") or kernel is not None:
            raise MissingExtraError("evaluating in another precision, kernel or on a device", "train")
        from tesela.evaluation.program import evaluate_program

        limits: dict[str, Any] = {"formats": formats, "max_pixels": max_pixels}
        size = min(batch_size, 32)
        return evaluate_program(
            source, chosen, split=split, batch_size=size, console=console, **limits, **options
        )
    from tesela.evaluation.evaluate import evaluate_run

    return evaluate_run(
        source,
        data=chosen,
        split=split,
        batch_size=batch_size,
        device=device,
        precision=precision,
        kernel=kernel,
        console=console,
        formats=formats,
        max_pixels=max_pixels,
        **options,
    )


def inspect(
    source: str | Path | Model,
    images: ImageInput | Iterable[ImageInput] | None = None,
    *,
    count: int = 16,
) -> Inspection:
    """A model from inside: filters, positions, attention distance, heads and token norms, as arrays.

    Args:
        source: a run, a bundle, a checkpoint, or a loaded model.
        images: a data set (its test split), or what ``predict`` takes; those that a run was trained with if
            None.
        count: most images to look at, spread evenly over what is there.

    Returns:
        the arrays; what needs images is None where there are none.

    Raises:
        UsageError: there is no such model or image.
        ImageError: an image cannot be read; the message names it.
    """
    from tesela.core.errors import ImageError
    from tesela.imaging.limits import LOCAL_LIMITS
    from tesela.inspection.look import look

    seen = look(source, images, count, LOCAL_LIMITS)
    for bad in seen.unreadable if images is not None else ():
        raise ImageError(f"{bad['name']}: {bad['message']}", code=bad["code"], hint="leave it out")
    return seen.found


def compare(*runs: str | Path) -> list[Group]:
    """Runs side by side, those that differ in their seed alone as one group, the best first.

    Args:
        *runs: folders of finished runs.

    Returns:
        groups; ``group.mapping()`` has score, parameters, FLOPs and times as plain values.

    Raises:
        UsageError: a folder holds no finished run, or is named twice.
    """
    from tesela.reports.comparison import group_runs

    return group_runs(runs)


def bench(
    source: str | Path | Model,
    *,
    batch: int | Sequence[int] = (1, 8),
    threads: int | None = None,
    seconds: float = 2.0,
) -> dict[str, Any]:
    """Inference speed here, per batch size, backend and precision.

    Args:
        source: a run, a bundle, a name of ``models()`` (with random weights), or a loaded model.
        batch: batch sizes.
        threads: threads to use; each backend's own choice if None.
        seconds: how long each row is measured.

    Returns:
        ``results``, a row each with milliseconds, images_per_second, resident_bytes and the difference to
        fp32; ``flops`` of an image; ``matrix_product``, the machine's limit in operations per second.

    Raises:
        UsageError: there is no such model, or a batch size below 1.
    """
    from tesela.runtime.bench import measure_model

    sizes = [batch] if isinstance(batch, int) else list(batch)
    return measure_model(source, sizes=sizes, threads=threads, seconds=seconds)


def models(pattern: str | None = None) -> list[dict[str, Any]]:
    """The models that can be created by name, with their size.

    Args:
        pattern: a family such as resnet, part of a name, or a glob such as ``vit_s*``; all if None.

    Returns:
        a row each: name, family, num_classes, image_size, parameters, gflops of an image, summary.

    Raises:
        UnknownNameError: no model is called so.
    """
    from tesela.models.listing import list_models

    return list_models(pattern)
