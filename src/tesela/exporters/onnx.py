"""Export of a model to ONNX: fp32, any batch size, checked against torch.

The graph takes normalised images at the bundle's size and gives logits; labels, preprocessing and digests are
in config.json beside it, so the folder is a bundle that predicts without torch. Odd: the exporter talks on
the console and through warnings; both are held back, and shown only if it fails.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tesela.checkpoints.cache import bundle_of
from tesela.checkpoints.write import check_target, default_folder
from tesela.core.config import to_mapping
from tesela.core.errors import MissingExtraError, WeightsError
from tesela.core.files import folder_atomic, json_text, sha256_file, write_text
from tesela.imaging.preprocess import normalize
from tesela.metrics.probability import softmax
from tesela.models.bundle import BundleInfo, write_info
from tesela.models.card import plain_card
from tesela.runtime.backends.base import open_backend
from tesela.runtime.predictor import ImageSource, Predictor

if TYPE_CHECKING:
    import torch

#: Above this difference of logits or probabilities the graph is not kept; measured ones are near 1e-6.
TOLERANCE = 1e-3
#: Batches that the check runs, to prove that the batch size is free.
BATCHES = (1, 3)
#: A protobuf file ends at 2 GiB; larger weights go to model.onnx.data.
LARGEST_INSIDE = 1_800_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxReport:
    """Report of an export, with the largest differences from torch.

    Attributes:
        bundle: the folder.
        bytes: size of the graph and its weights.
        images: ``real`` or ``random``, what the difference was measured on.
        batches: the batch sizes that were run.
        max_abs_logits: largest absolute difference of a logit.
        max_abs_probability: largest absolute difference of a probability.
        same_label: share of the images whose best label agrees.
        seconds: of the whole export.
    """

    bundle: Path
    bytes: int
    images: str
    batches: tuple[int, ...]
    max_abs_logits: float
    max_abs_probability: float
    same_label: float
    seconds: float

    def lines(self) -> list[str]:
        """Lines for a person."""
        return [
            f"{self.bundle}: ONNX, {self.bytes / 1e6:.1f} MB, {self.seconds:.1f} s",
            f"difference to torch on {self.images} images, batches of "
            f"{' and '.join(map(str, self.batches))}: "
            f"{self.max_abs_logits:.2e} in a logit, {self.max_abs_probability:.2e} in a probability, "
            f"same label for {self.same_label:.1%}",
        ]

    def mapping(self) -> dict[str, Any]:
        """All values, for JSON."""
        return {"format": "onnx", **dataclasses.asdict(self)}


def export_onnx(
    source: Path | str, out: Path | str | None = None, *, images: Sequence[ImageSource] = ()
) -> OnnxReport:
    """Write the bundle of ``source`` as an ONNX bundle, if its results equal torch's.

    Args:
        source: a run folder or a bundle with model.safetensors.
        out: the folder to write; by default ``onnx`` inside the run, or ``<bundle>-onnx`` beside the bundle.
        images: real images for the comparison; random ones are made where none are given.

    Raises:
        MissingExtraError: torch or the exporter's packages are not installed.
        UsageError: ``out`` holds something that is no bundle.
        WeightsError: the graph's results differ by more than ``TOLERANCE``; nothing is written.
    """
    started = time.perf_counter()
    bundle = bundle_of(source)
    target = Path(out) if out is not None else default_folder(Path(source), bundle, "onnx")
    check_target(target, bundle, {"README.md", "config.json", "model.onnx", "model.onnx.data"})
    reference = Predictor(bundle, backend="torch")
    pixels = [reference.prepare(image) for image in images] or random_images(reference.info)
    with folder_atomic(target, needed=2 * (bundle / "model.safetensors").stat().st_size) as folder:
        write_graph(reference.network, reference.info, folder / "model.onnx")
        info = exported_info(reference.info, folder)
        differences = largest_difference(reference, folder, info, pixels)
        report = OnnxReport(
            bundle=target,
            bytes=sum(path.stat().st_size for path in folder.iterdir()),
            images="real" if images else "random",
            batches=BATCHES,
            seconds=time.perf_counter() - started,
            **differences,
        )
        refuse_difference(report)
        write_info(
            folder,
            dataclasses.replace(
                info, provenance={**info.provenance, "difference": difference_record(report)}
            ),
        )
        write_text(folder / "README.md", onnx_card(info, report))
    return report


def random_images(info: BundleInfo, *, count: int = 3) -> list[NDArray[np.uint8]]:
    """Uniform noise of the model's size, from a fixed seed."""
    shape = (count, info.image.height, info.image.width, info.image.channels)
    return list(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def write_graph(model: torch.nn.Module, info: BundleInfo, path: Path) -> None:
    """Trace the model with torch.export and save the graph, with a free batch size."""
    import torch

    example = torch.zeros(2, info.image.channels, info.image.height, info.image.width)
    dynamic = {"images": {0: torch.export.Dim("batch", min=1)}}
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    with silenced():
        try:
            program: Any = torch.onnx.export(
                model.eval(),
                (example,),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=dynamic,
                dynamo=True,
                optimize=True,
                verbose=False,
            )
        except ImportError as error:
            raise MissingExtraError("the ONNX exporter", "export") from error
        program.model.metadata_props.update(graph_metadata(info))
        program.save(str(path), external_data=size > LARGEST_INSIDE)


def graph_metadata(info: BundleInfo) -> dict[str, str]:
    """What a program that has the graph alone needs to use it; ``labels`` and ``image`` are JSON.

    ``image`` is the preprocessing: size, how an image is fitted to it, mean and standard deviation per
    channel in units of 0..1.
    """
    return {
        "model": info.name,
        "task": info.task,
        "labels": json_text(info.labels),
        "image": json_text(to_mapping(info.image)),
        "license": info.license,
    }


def exported_info(info: BundleInfo, folder: Path) -> BundleInfo:
    """The bundle's description with the digests of the graph's files in place of the tensors'."""
    digests = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
    return dataclasses.replace(
        info,
        digests=digests,
        provenance={**info.provenance, "exported": {"format": "onnx", "precision": "fp32"}},
    )


def largest_difference(
    reference: Predictor, folder: Path, info: BundleInfo, images: Sequence[NDArray[np.uint8]]
) -> dict[str, float]:
    """The largest differences between torch and the graph over batches of each size in ``BATCHES``."""
    graph = open_backend("onnxruntime", folder, info)
    logits = probability = 0.0
    agreeing = count = 0
    for size in BATCHES:
        for first in range(0, max(len(images), size), size):
            chosen = [images[(first + offset) % len(images)] for offset in range(size)]
            batch = normalize(np.stack(chosen), info.image)
            wanted, found = reference.backend.logits(batch), graph.logits(batch)
            logits = max(logits, float(np.abs(wanted - found).max()))
            probability = max(probability, float(np.abs(softmax(wanted) - softmax(found)).max()))
            agreeing += int((wanted.argmax(1) == found.argmax(1)).sum())
            count += size
    return {"max_abs_logits": logits, "max_abs_probability": probability, "same_label": agreeing / count}


def refuse_difference(report: OnnxReport) -> None:
    """Raise where the graph's results are not torch's; a NaN is never accepted."""
    worst = max(report.max_abs_logits, report.max_abs_probability)
    if not worst <= TOLERANCE or not np.isfinite(report.max_abs_logits + report.max_abs_probability):
        raise WeightsError(
            f"the exported graph differs from torch by {report.max_abs_logits:.2e} in a logit and"
            f" {report.max_abs_probability:.2e} in a probability, more than {TOLERANCE:.0e}",
            hint="nothing was written; report the model's configuration",
        )


def difference_record(report: OnnxReport) -> dict[str, Any]:
    """What the new bundle's config.json says about the comparison."""
    return {
        "images": report.images,
        "batches": list(report.batches),
        "max_abs_logits": report.max_abs_logits,
        "max_abs_probability": report.max_abs_probability,
        "same_label": report.same_label,
    }


def onnx_card(info: BundleInfo, report: OnnxReport) -> str:
    """The README of the exported bundle."""
    spec = info.image
    difference = f"{report.max_abs_logits:.2e} in a logit, {report.max_abs_probability:.2e} in a probability"
    return plain_card(
        info,
        f"A model with {info.num_classes} outputs as an ONNX graph in fp32, written by tesela. It predicts "
        "without PyTorch:",
        "    tesela predict FOLDER image.jpg",
        f"- input `images`: float32 (batch, {spec.channels}, {spec.height}, {spec.width}), normalised as "
        "config.json says; "
        f"any batch size\n- output `logits`: float32 (batch, {info.num_classes}); the labels' names are in "
        "config.json\n"
        f"- largest difference to PyTorch on {report.images} images: {difference}",
        title=f"{info.name} (ONNX)",
    )


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Hold back what the exporter prints, logs and warns."""
    loggers = [
        logging.getLogger(name)
        for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "torch._dynamo")
    ]
    levels = [logger.level for logger in loggers]
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
