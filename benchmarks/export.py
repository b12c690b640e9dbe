"""P2, P13: programs of a model held against it: size, agreement, score, latency and memory by precision.

    python benchmarks/export.py RUN [--data DATA] [--out FOLDER] [--size] [--sizes]

RUN is a trained classifier or segmenter (such as one of CIFAR-10, the figure's data). Every format and
precision is exported with --force, so that what breaks its contract is shown too; the table has one row for
each, all measured in turns with the fp32 model in one process. NNCF's default int8 of the same OpenVINO graph
stands beside them where nncf can be imported. --size exports a ViT-B/16 with random weights, calibrated on
images of --data, for the size of its int8 bundle and its memory. --sizes holds the ONNX and OpenVINO graphs
against torch at six image sizes. Last result: see LOG.md.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tesela.exporters.catalog import export_model
from tesela.exporters.contract import BOUNDS, ProgramRow, measure_contract
from tesela.exporters.options import ExportOptions
from tesela.exporters.samples import collect_samples
from tesela.hardware.openvino_core import openvino_core
from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import describe, write_bundle
from tesela.models.factory import create_model
from tesela.runtime.backends.base import open_backend
from tesela.runtime.predictor import Predictor

PROGRAMS = [
    ("onnx", "fp32"),
    ("onnx", "int8"),
    ("onnx", "int8-weights"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
    ("compiled", "fp32"),
    ("compiled", "bf16"),
]


def exported(source: Path, to: str, precision: str, out: Path, data: str | None) -> Path:
    """Export, print what was measured, and return the folder."""
    options = ExportOptions(precision=precision, data=data, force=True)
    report = export_model(source, to=to, out=out / f"{to}-{precision}", options=options)
    for line in [*report.lines(), *(f"note: {remark}" for remark in report.mapping()["remarks"])]:
        print(line)
    return out / f"{to}-{precision}"


def vit_b16(out: Path) -> Path:
    """A bundle of a ViT-B/16 at 224 pixels with random weights and 1,000 classes."""
    model = create_model("vit_b16", num_classes=1000, image_size=224, seed=0).eval()
    torch.nn.init.normal_(model.head.linear.weight, std=0.02)  # type: ignore[union-attr,arg-type]
    spec = ImageSpec(height=224, width=224, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    labels = [f"class {number}" for number in range(1000)]
    write_bundle(out / "vit_b16", model, describe(model, name="vit_b16", labels=labels, image=spec))
    return out / "vit_b16"


def compare_sizes(source: Path, folders: dict[str, Path]) -> None:
    """Largest difference of a logit from torch at six sizes."""
    reference = Predictor(source, backend="torch", precision="fp32")
    for engine, folder in folders.items():
        program = Predictor(folder, backend=engine)
        step, (height, width) = program.info.program.get("step"), program.info.image.size
        if step is None:
            print(f"{engine}: the size is fixed")
            continue
        for down, right in ((0, 0), (1, 1), (2, 0), (0, 3), (-1, 2), (4, 4)):
            size = max(2 * step[0], height + down * step[0]), max(2 * step[1], width + right * step[1])
            shape = (2, program.info.image.channels, *size)
            images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
            difference = np.abs(reference.backend.logits(images) - program.backend.logits(images)).max()
            print(f"{engine} at {size[0]} x {size[1]}: {difference:.1e}")


def beside_nncf(source: Path, fp32: Path, data: str | None) -> None:
    """NNCF's default int8 of the same graph, calibrated on the same images."""
    try:
        import nncf
    except ImportError:
        print("nncf is not installed: no row for it")
        return
    import openvino

    reference = Predictor(source, backend="torch", precision="fp32")
    samples = collect_samples(source, data, reference, calibrate=True)
    images = [image[None] for image in samples.calibrating]
    graph = openvino_core().read_model(fp32 / "openvino.xml")
    quantised: Any = nncf.quantize(
        graph, nncf.Dataset(images), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(images)
    )
    with tempfile.TemporaryDirectory() as place:
        openvino.save_model(quantised, Path(place) / "nncf.xml", compress_to_fp16=False)
        size = sum(path.stat().st_size for path in Path(place).iterdir())
    compiled = openvino_core().compile_model(quantised, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    row = ProgramRow(name="nncf int8", bytes=size)
    fp32_row = ProgramRow(name="openvino fp32")
    contract = measure_contract(
        samples,
        reference.task,
        reference.info,
        reference=reference.backend.logits,
        others=[(fp32_row, open_backend("openvino", fp32, Predictor(fp32, backend="openvino").info).logits)],
        program=(row, lambda batch: np.array(compiled({"images": batch})["logits"], np.float32)),
        bounds=BOUNDS["int8"],
    )
    print("\n".join(contract.lines()))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--size", action="store_true")
    parser.add_argument("--sizes", action="store_true")
    chosen = parser.parse_args()
    out = chosen.out or Path(tempfile.mkdtemp(prefix="tesela-export-"))
    if chosen.size:
        source = vit_b16(out)
        folder = exported(source, "onnx", "int8", out, chosen.data)
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"int8 bundle of a ViT-B/16: {size / 1e6:.1f} MB (at most 95)")
        return
    folders = {
        (to, precision): exported(chosen.run, to, precision, out, chosen.data) for to, precision in PROGRAMS
    }
    if chosen.sizes:
        graphs = {"onnxruntime": folders["onnx", "fp32"], "openvino": folders["openvino", "fp32"]}
        compare_sizes(chosen.run, graphs)
    beside_nncf(chosen.run, folders["openvino", "fp32"], chosen.data)


if __name__ == "__main__":
    main()
