"""P2, P13: programs of a model held against it: size, agreement, score, latency and memory by precision.

    python benchmarks/export.py RUN [--data DATA] [--out FOLDER] [--sizes] [--nncf FOLDER]
                                    [--programs onnx-fp32,openvino-fp32,openvino-int8]
    python benchmarks/export.py --size --data IMAGES [--out FOLDER] [--rounds 5]

RUN is a trained classifier or segmenter (such as one of CIFAR-10, the figure's data). Every format and
precision is exported with --force, so that what breaks its contract is shown too; the table has one row for
each, all measured in turns with the fp32 model in one process. NNCF's default int8 of the same OpenVINO graph
stands beside them where nncf can be imported, or is installed in FOLDER. --size exports a ViT-B/16 with
random weights in int8, calibrated on images of --data (16 are enough), and starts `tesela predict` with it in
fresh processes without torch: size on disk, most resident memory, seconds to the first answer; then its time
in turns with and without onnxruntime's memory pattern and arena. --sizes holds
the graphs against torch at six image sizes, on real images, and a graph's maps against `tesela explain`.
Last result: see LOG.md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tesela.attribution.explain import explain
from tesela.core.errors import WeightsError
from tesela.exporters.catalog import export_model
from tesela.exporters.contract import BOUNDS, ProgramRow, measure_contract
from tesela.exporters.options import ExportOptions
from tesela.exporters.samples import collect_samples
from tesela.hardware.machine import cores
from tesela.hardware.openvino_core import openvino_core
from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import describe, write_bundle
from tesela.models.classifier import Classifier
from tesela.models.factory import create_model
from tesela.runtime.backends.base import open_backend
from tesela.runtime.predictor import Predictor
from tesela.runtime.sources import find_images

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


#: Most images that sizes are compared on.
COMPARED = 1000
COLD = (
    "import re, sys; sys.modules['torch'] = None; from pathlib import Path; from tesela.cli.main import run; "
    "run(sys.argv[1:]); print(re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1])"
)


def vit_b16(out: Path) -> Path:
    """A bundle of a ViT-B/16 at 224 pixels with random weights and 1,000 classes."""
    model = create_model("vit_b16", num_classes=1000, image_size=224, seed=0).eval()
    torch.nn.init.normal_(model.head.linear.weight, std=0.02)  # type: ignore[union-attr,arg-type]
    spec = ImageSpec(height=224, width=224, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    labels = [f"class {number}" for number in range(1000)]
    write_bundle(out / "vit_b16", model, describe(model, name="vit_b16", labels=labels, image=spec))
    return out / "vit_b16"


def compare_sizes(source: Path, folders: dict[str, Path], maps: Path | None, data: str | None) -> None:
    """Largest difference from torch at six sizes, square and not, on real images: logits, and maps."""
    reference = Predictor(source, backend="torch", precision="fp32")
    real = torch.from_numpy(collect_samples(source, data, reference, calibrate=False).first(COMPARED))
    drawn = "presence" if isinstance(reference.network, Classifier) else "gradient_rollout"
    for engine, folder in folders.items():
        program = Predictor(folder, backend=engine)
        mapper = None if maps is None else Predictor(maps, backend=engine)
        step, (height, width) = program.info.program.get("step"), program.info.image.size
        if step is None:
            print(f"{engine}: the size is fixed")
            continue
        most = {"logits": 0.0, "map": 0.0, "rollout": 0.0}
        for down, right in ((0, 0), (1, 1), (2, 0), (0, 3), (-1, 2), (4, 4)):
            size = max(2 * step[0], height + down * step[0]), max(2 * step[1], width + right * step[1])
            images = torch.nn.functional.interpolate(real, size, mode="bilinear").numpy()
            line = {"logits": 0.0}
            for batch in np.array_split(images, max(1, len(images) // 8)):
                off = np.abs(program.backend.logits(batch) - reference.backend.logits(batch)).max()
                line["logits"] = max(line["logits"], float(off))
            for name, method in (("map", drawn), ("rollout", "rollout")) if mapper is not None else ():
                assert mapper is not None
                heat = explain(reference.network, torch.from_numpy(images[:8]), method=method).map[:, 0]
                scale = max(1.0, float(heat.abs().max()))
                off = np.abs(mapper.backend.output(name, images[:8]) - heat.numpy()).max()
                line[name] = float(off) / scale
            said = ", ".join(f"{key} {value:.1e}" for key, value in line.items())
            print(f"{engine} at {size[0]} x {size[1]}: {said}")
            most = {key: max(value, line.get(key, 0.0)) for key, value in most.items()}
        print(f"{engine}, {len(real)} images, six sizes: {most} (at most 1e-4)")


def exported_with_maps(source: Path, out: Path, data: str | None) -> Path | None:
    """The ONNX program with maps; None where the network has none that a graph can give."""
    options = ExportOptions(with_map=True, data=data, force=True)
    try:
        export_model(source, to="onnx", out=out / "onnx-maps", options=options)
    except WeightsError as error:
        print(f"no maps: {error}")
        return None
    return out / "onnx-maps"


def cold_starts(bundle: Path, image: Path, rounds: int) -> None:
    """Seconds from the start of a process without torch to its first answer, and its most resident memory."""
    seconds, peaks = [], []
    for _ in range(rounds):
        begin = time.perf_counter()
        words = ["predict", str(bundle), str(image), "--backend", "onnxruntime", "--json"]
        process = subprocess.Popen([sys.executable, "-c", COLD, *words], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        first = process.stdout.readline()
        seconds.append(time.perf_counter() - begin)
        assert "label" in first, first
        peaks.append(int(process.stdout.read().split()[-1]) * 1024)
        process.wait()
    print(
        f"cold start without torch to the first answer: {statistics.median(seconds):.2f} s "
        f"({min(seconds):.2f} to {max(seconds):.2f}; at most 1); resident {max(peaks) / 1e6:.0f} MB "
        "(at most 200)"
    )


def memory_settings(bundle: Path, rounds: int) -> None:
    """Time in turns of batches of 1, 8 and changing sizes: pattern and arena, arena alone, neither."""
    import onnxruntime

    info = Predictor(bundle, backend="onnxruntime").info
    sessions = {}
    for name, pattern, arena in (("both", True, True), ("arena", False, True), ("neither", False, False)):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = cores(), 3
        options.enable_mem_pattern, options.enable_cpu_mem_arena = pattern, arena
        sessions[name] = onnxruntime.InferenceSession(
            str(bundle / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
    for label, sizes in (("1", [1]), ("8", [8]), ("changing", [3, 1, 8, 2, 5])):
        batches = [np.zeros((size, info.image.channels, *info.image.size), np.float32) for size in sizes]
        times: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(rounds + 1):  # the first round warms up
            for name, session in sessions.items():
                begin = time.perf_counter()
                for batch in batches:
                    session.run(["logits"], {"images": batch})
                times[name].append(time.perf_counter() - begin)
        medians = {name: statistics.median(taken[1:]) for name, taken in times.items()}
        print(
            f"batch {label}: "
            + ", ".join(f"{name} {1e3 * one:.1f} ms" for name, one in medians.items())
            + f"; without the pattern {medians['arena'] / medians['both']:.3f}x, "
            f"without both {medians['neither'] / medians['both']:.3f}x"
        )


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
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--data")
    parser.add_argument("--nncf", help="folder with nncf: pip install --target FOLDER nncf")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--programs", help="formats and precisions, with commas between; all by default")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--size", action="store_true")
    parser.add_argument("--sizes", action="store_true")
    chosen = parser.parse_args()
    out = chosen.out or Path(tempfile.mkdtemp(prefix="tesela-export-"))
    if chosen.nncf:
        sys.path.append(chosen.nncf)
    if chosen.size:
        source = vit_b16(out)
        folder = exported(source, "onnx", "int8", out, chosen.data)
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"int8 bundle of a ViT-B/16: {size / 1e6:.1f} MB (at most 95)")
        cold_starts(folder, find_images([chosen.data])[0], chosen.rounds)
        memory_settings(folder, chosen.rounds)
        return
    if chosen.run is None:
        parser.error("name a RUN, or --size")
    named = chosen.programs.split(",") if chosen.programs else ["-".join(pair) for pair in PROGRAMS]
    folders = {
        (to, precision): exported(chosen.run, to, precision, out, chosen.data)
        for to, precision in PROGRAMS
        if f"{to}-{precision}" in named
    }
    if chosen.sizes:
        engines = {"onnxruntime": ("onnx", "fp32"), "openvino": ("openvino", "fp32")}
        graphs = {engine: folders[key] for engine, key in engines.items() if key in folders}
        compare_sizes(chosen.run, graphs, exported_with_maps(chosen.run, out, chosen.data), chosen.data)
    if ("openvino", "fp32") in folders:
        beside_nncf(chosen.run, folders["openvino", "fp32"], chosen.data)


if __name__ == "__main__":
    main()
