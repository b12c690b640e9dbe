"""Export of a model to ONNX: any batch size and image size, checked against torch.

The graph takes normalised images and gives logits; labels, preprocessing and digests are in config.json
beside it, so the folder is a bundle that predicts without torch.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from tesela.core.errors import UsageError, WeightsError
from tesela.exporters.contract import ProgramRow
from tesela.exporters.graph import GraphFacts, write_graph
from tesela.exporters.options import ExportOptions
from tesela.exporters.program import Export, ProgramFormat, compare_sizes
from tesela.models.bundle import load_bundle, write_info
from tesela.runtime.backends.base import Backend, open_backend

GRAPH = "model.onnx"
#: Largest difference of a map from ``explain``, as a share of its largest value or of 1.
MAP_TOLERANCE = 1e-4


def _check(options: ExportOptions) -> None:
    if options.precision == "bf16":
        raise UsageError(
            "ONNX Runtime computes no bf16 on a CPU",
            hint="--to openvino or --to compiled have bf16; onnx has fp32 and int8",
        )


def _write(job: Export) -> None:
    with tempfile.TemporaryDirectory(prefix="tesela-") as place:
        fp32 = write_quantised_or_fp32(job, job.folder, plain=Path(place))
        if job.options.precision == "int8":
            info = job.described(fp32.parent, precision="fp32")
            row = ProgramRow(name="onnxruntime fp32")
            job.others.append((row, open_backend("onnxruntime", fp32.parent, info).logits))


export_onnx = ProgramFormat(name="onnx", engine="onnxruntime", check=_check, write=_write)


def write_quantised_or_fp32(job: Export, folder: Path, *, plain: Path | None = None) -> Path:
    """Write ``model.onnx`` in the wanted precision into ``folder``; the path of the fp32 graph.

    Args:
        job: the export.
        folder: where.
        plain: where the fp32 graph goes, if another is wanted; a folder in ``folder`` if None.
    """
    if job.options.precision in ("fp32", "bf16"):
        write_fp32(job, folder / GRAPH)
        return folder / GRAPH
    from tesela.exporters.int8.quantise import quantise, quantise_weights

    plain = plain or folder / "fp32"
    plain.mkdir(exist_ok=True)
    write_fp32(job, plain / GRAPH)
    if job.options.precision == "int8":
        quantised = quantise(plain / GRAPH, folder / GRAPH, job.samples.calibrating)
        job.facts["kept_in_fp32"] = quantised.kept
        if quantised.kept:
            job.remarks.append(
                f"{len(quantised.kept)} of {quantised.layers} layers compute in fp32, the most sensitive "
                "ones by measurement"
            )
    else:
        quantise_weights(plain / GRAPH, folder / GRAPH, job.samples.calibrating)
    return plain / GRAPH


def write_fp32(job: Export, path: Path) -> GraphFacts:
    """Write the fp32 graph, and hold it against torch at several sizes and its maps against ``explain``.

    Raises:
        UsageError: maps are wanted in another precision.
        WeightsError: it differs.
    """
    if job.options.with_map and job.options.precision != "fp32":
        raise UsageError(
            f"maps are exported in fp32, not in {job.options.precision}: they differentiate the network",
            hint="leave --with-map or --precision out",
        )
    facts = write_graph(
        load_bundle(job.bundle)[0],
        job.info,
        path,
        with_map=job.options.with_map,
        with_features=job.options.with_features,
    )
    job.outputs = facts.outputs
    if facts.step is None:
        job.remarks.append(f"the size is fixed to the model's own: {facts.fixed_because}")
    else:
        job.facts["step"] = list(facts.step)
    described = job.described(path.parent, precision="fp32")
    write_info(path.parent, described)
    check_graph_outputs(job, open_backend("onnxruntime", path.parent, described))
    return facts


def check_graph_outputs(job: Export, backend: Backend) -> None:
    """Hold a graph in fp32 against torch at several sizes, and its maps against ``explain``.

    Raises:
        WeightsError: it differs.
    """
    if "step" in job.facts:
        compare_sizes(job, backend.logits, job.facts["step"])
    if job.options.with_map:
        compare_maps(job, backend)


def compare_maps(job: Export, backend: Backend) -> None:
    """Hold a graph's maps against those of ``explain`` on some samples.

    Raises:
        WeightsError: they differ.
    """
    import torch

    from tesela.attribution.explain import explain
    from tesela.models.classifier import Classifier

    images, network = job.samples.first(4), job.reference.network
    drawn = "presence" if isinstance(network, Classifier) else "gradient_rollout"
    for output, method in (("map", drawn), ("rollout", "rollout")):
        wanted = explain(network, torch.from_numpy(images), method=method).map[:, 0].numpy()
        difference = float(np.abs(wanted - backend.output(output, images)).max())
        if not difference <= MAP_TOLERANCE * max(1.0, float(np.abs(wanted).max())):
            raise WeightsError(
                f"the output {output} differs from tesela explain by {difference:.2e}, more than "
                f"{MAP_TOLERANCE:.0e}",
                hint="nothing was written; export without --with-map, and report the model's configuration",
            )
