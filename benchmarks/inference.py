"""P1, P2: inference on the CPU, tesela beside transformers, timm, OpenVINO (NNCF) and ONNX Runtime.

    python benchmarks/inference.py --timm FOLDER [--nncf FOLDER] [--run RUN] [--int8 BUNDLE] [--images FOLDER]
                                   [--model vit_s16] [--batch 1,8] [--rounds 5] [--threads 2]

The folders hold peers, installed apart from tesela: pip install --target FOLDER --no-deps timm torchvision;
pip install --target FOLDER nncf. Without --run a model with random weights is taken, whose labels mean
nothing; P1's agreement is that of a run on CIFAR-10, with its test images as --images. Without --int8
tesela's own int8 (tesela export RUN --to openvino --precision int8) is left out.

Every side computes the same weights, carried over by tesela's own exports, on the same images. Each is a
process of its own with the same threads; the sides alternate, and within a process the calls are warmed up
and their median counts. Before it is timed, each is compared with tesela's fp32 in torch: largest difference
of a logit, and share of equal labels. Beside the rates stands the share of the matrix product's rate in the
same precision, measured in the same process right after. Last result: see LOG.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
Compute = Callable[[Images], Images]
#: Images that answers are compared on, and seconds of a timing.
COMPARED, SECONDS = 64, 3.0


def tesela_side(bundle: str, backend: str, precision: str | None) -> Callable[[Path, int], Compute]:
    def opened(place: Path, threads: int) -> Compute:
        from tesela.runtime.predictor import Predictor

        kind: Any = precision
        predictor = Predictor(place / bundle, backend=backend, precision=kind, threads=threads)
        if predictor.choice is not None:
            print(predictor.choice.line(), file=sys.stderr)
        return predictor.backend.logits

    return opened


def transformers_side(precision: str) -> Callable[[Path, int], Compute]:
    def opened(place: Path, threads: int) -> Compute:
        import torch
        from transformers import AutoModelForImageClassification

        torch.set_num_threads(threads)
        kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        model = AutoModelForImageClassification.from_pretrained(place / "hf").to(kind).eval()
        return torch_function(lambda images: model(images).logits, kind)

    return opened


def timm_side(precision: str, *, compiled: bool = False) -> Callable[[Path, int], Compute]:
    def opened(place: Path, threads: int) -> Compute:
        import torch

        torch.set_num_threads(threads)
        kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        model: Any = timm_model(place).to(kind)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        if compiled:
            model = torch.compile(model, dynamic=False, options={"freezing": True})
        return torch_function(model, kind)

    return opened


def timm_model(place: Path) -> Any:
    from training_step import import_timm

    return import_timm().create_model(f"local-dir:{place / 'timm'}", pretrained=True).eval()


def torch_function(model: Callable[[Any], Any], kind: Any) -> Compute:
    import torch

    def compute(images: Images) -> Images:
        with torch.inference_mode():
            found: Images = model(torch.from_numpy(images).to(kind)).float().numpy()
        return found

    return compute


def openvino_side(precision: str) -> Callable[[Path, int], Compute]:
    """OpenVINO on timm's own graph, as it advises: in bf16, or quantised by NNCF with its defaults."""

    def opened(place: Path, threads: int) -> Compute:
        import openvino

        core = openvino.Core()
        graph = core.read_model(place / "timm.onnx")
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        if precision == "int8":
            import nncf

            real = [np.load(place / "images.npy")[index : index + 1] for index in range(COMPARED)]
            graph = nncf.quantize(
                graph, nncf.Dataset(real), model_type=nncf.ModelType.TRANSFORMER, subset_size=COMPARED
            )
        else:
            settings["INFERENCE_PRECISION_HINT"] = {"fp32": "f32", "bf16": "bf16"}[precision]
        request = core.compile_model(graph, "CPU", settings).create_infer_request()
        return lambda images: np.array(next(iter(request.infer({0: images}).values())))

    return opened


def onnxruntime_side(place: Path, threads: int) -> Compute:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session: Any = onnxruntime.InferenceSession(str(place / "timm.onnx"), options)
    name = session.get_inputs()[0].name

    def compute(images: Images) -> Images:
        found: Images = session.run(None, {name: images})[0]
        return found

    return compute


#: Name, precision whose matrix product is the limit, what opens it, and the folder of peers that it needs.
SIDES: dict[str, tuple[str, Callable[[Path, int], Compute], str]] = {
    "transformers fp32": ("fp32", transformers_side("fp32"), ""),
    "transformers bf16": ("bf16", transformers_side("bf16"), ""),
    "timm fp32": ("fp32", timm_side("fp32"), "timm"),
    "timm bf16": ("bf16", timm_side("bf16"), "timm"),
    "timm bf16 compiled": ("bf16", timm_side("bf16", compiled=True), "timm"),
    "onnxruntime fp32": ("fp32", onnxruntime_side, "timm"),
    "openvino fp32": ("fp32", openvino_side("fp32"), "timm"),
    "openvino bf16": ("bf16", openvino_side("bf16"), "timm"),
    "openvino int8 (nncf)": ("int8", openvino_side("int8"), "nncf"),
    "tesela torch fp32": ("fp32", tesela_side("bundle", "torch", "fp32"), ""),
    "tesela torch bf16": ("bf16", tesela_side("bundle", "torch", "bf16"), ""),
    "tesela compiled bf16": ("bf16", tesela_side("bundle", "compiled", "bf16"), ""),
    "tesela onnxruntime fp32": ("fp32", tesela_side("onnx", "onnxruntime", "fp32"), ""),
    "tesela openvino fp32": ("fp32", tesela_side("onnx", "openvino", "fp32"), ""),
    "tesela openvino bf16": ("bf16", tesela_side("onnx", "openvino", "bf16"), ""),
    "tesela int8": ("int8", tesela_side("int8", "auto", None), "int8"),
}


def prepare(place: Path, options: argparse.Namespace) -> None:
    """The same weights in every form, the images, and the answers that all are held against."""
    import torch

    from tesela.checkpoints.huggingface.write import export_huggingface
    from tesela.checkpoints.timm.write import export_timm
    from tesela.exporters.catalog import export_model
    from tesela.imaging.spec import ImageSpec
    from tesela.models.bundle import describe, load_bundle, locate_bundle, write_bundle
    from tesela.models.factory import create_model
    from tesela.runtime.choice import random_batch
    from tesela.runtime.predictor import Predictor
    from tesela.runtime.sources import find_images

    if options.run:
        (place / "bundle").symlink_to(locate_bundle(Path(options.run)).resolve())
    else:
        model = create_model(options.model, num_classes=1000, seed=0)
        for parameter in model.head.parameters():  # a new head is all zero
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(0))
        spec = ImageSpec(height=224, width=224, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
        labels = [f"class {number}" for number in range(1000)]
        write_bundle(
            place / "bundle",
            model.eval(),
            describe(model, name=options.model, labels=labels, image=spec),
        )
    if options.int8:
        (place / "int8").symlink_to(Path(options.int8).resolve())
    export_model(place / "bundle", to="onnx", out=place / "onnx")
    export_huggingface(place / "bundle", place / "hf")
    export_timm(place / "bundle", place / "timm")
    predictor = Predictor(place / "bundle", backend="torch")
    info = predictor.info
    if options.images:
        files = find_images([options.images])
        chosen = [files[index] for index in np.linspace(0, len(files) - 1, COMPARED).astype(int)]
        from tesela.imaging.preprocess import preprocess

        images = preprocess(chosen, info.image)
    else:
        images = np.concatenate([random_batch(info)] * (COMPARED // 8))
        images = images + np.random.default_rng(1).standard_normal(images.shape, dtype=np.float32)
    np.save(place / "images.npy", images)
    np.save(place / "logits.npy", in_batches(predictor.backend.logits, images))
    flops = load_bundle(place / "bundle")[0].config.flops(info.num_classes)
    (place / "flops.json").write_text(json.dumps(flops))


def export_timm_graph(place: Path) -> None:
    """timm's own graph, in a process that has timm."""
    import torch

    images = torch.from_numpy(np.load(place / "images.npy")[:2])
    torch.onnx.export(
        timm_model(place),
        (images,),
        str(place / "timm.onnx"),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        verbose=False,
    )


def in_batches(compute: Compute, images: Images) -> Images:
    return np.concatenate(
        [np.array(compute(images[first : first + 8])) for first in range(0, len(images), 8)]
    )


def one_side(name: str, place: Path, sizes: list[int], threads: int) -> None:
    """Print agreement, rates and limit of one side, measured in this process."""
    from tesela.hardware.allocator import keep_freed_memory
    from tesela.hardware.speed import matrix_rate, measure_speed

    keep_freed_memory()  # for every side: the benchmark is about what computes
    precision, opener, _ = SIDES[name]
    started = time.perf_counter()
    compute = opener(place, threads)
    images, wanted = np.load(place / "images.npy"), np.load(place / "logits.npy")
    found = in_batches(compute, images)
    row: dict[str, Any] = {
        "difference": float(np.abs(found - wanted).max()),
        "same_label": float((found.argmax(1) == wanted.argmax(1)).mean()),
        "start": time.perf_counter() - started,
    }
    for size in sizes:
        batch = np.ascontiguousarray(images[:size])
        timing = measure_speed(lambda batch=batch: compute(batch), seconds=SECONDS)  # type: ignore[misc]
        row[f"batch {size}"] = size / timing.median
    row["limit"] = matrix_rate(precision, threads=threads)
    print(json.dumps(row))


def run_side(
    words: list[str], peers: str | None, threads: int, *, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """This script in a process of its own that sees a folder of peers."""
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), peers)))
    settings = {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, *words, "--threads", str(threads)]
    return subprocess.run(
        command, capture_output=True, text=True, check=check, env={**os.environ, **settings}
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--timm", help="folder with timm and torchvision")
    parser.add_argument("--nncf", help="folder with nncf")
    parser.add_argument("--run", help="a run, instead of random weights")
    parser.add_argument("--int8", help="an int8 export of the same model")
    parser.add_argument("--images", help="a folder of images to compare answers on")
    parser.add_argument("--model", default="vit_s16")
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--sides", help="names to measure, with commas between; all that can be by default")
    parser.add_argument("--side")
    parser.add_argument("--place", type=Path)
    options = parser.parse_args()
    sizes = [int(word) for word in options.batch.split(",")]
    if options.side == "graph":
        export_timm_graph(options.place)
    elif options.side:
        one_side(options.side, options.place, sizes, options.threads)
    else:
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder), options, sizes)


def compare(place: Path, options: argparse.Namespace, sizes: list[int]) -> None:
    """Measure all sides in turn and print them beside one another."""
    prepare(place, options)
    given = {
        "": "",
        "timm": options.timm,
        "nncf": options.nncf and os.pathsep.join(filter(None, (options.nncf, options.timm))),
        "int8": options.int8,
    }
    if options.timm:
        run_side(["--side", "graph", "--place", str(place)], options.timm, options.threads)
    named = [word.strip() for word in options.sides.split(",")] if options.sides else list(SIDES)
    chosen = [name for name in named if given[SIDES[name][2]] is not None]
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for _ in range(options.rounds):
        for name in chosen:
            words = ["--side", name, "--place", str(place), "--batch", options.batch]
            needs = SIDES[name][2]
            peers = given[needs] if needs in ("timm", "nncf") else None
            done = run_side(words, peers, options.threads, check=False)
            if done.returncode:
                print(f"{name}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr, flush=True)
                continue
            rows[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{name}: {rows[name][-1]}", file=sys.stderr, flush=True)
    flops = json.loads((place / "flops.json").read_text())
    result = {name: summary(found, sizes, flops) for name, found in rows.items() if found}
    for name, one in result.items():
        print(f"{name:<24} " + "  ".join(f"{key} {value:.3g}" for key, value in one.items()))
    print(json.dumps({"model": options.run or options.model, "threads": options.threads, "sides": result}))


def summary(found: list[dict[str, float]], sizes: list[int], flops: float) -> dict[str, float]:
    """Medians over the rounds, their spread, and shares of the limit."""
    middle = {key: statistics.median(one[key] for one in found) for key in found[0]}
    for size in sizes:
        values = [one[f"batch {size}"] for one in found]
        middle[f"lowest {size}"], middle[f"highest {size}"] = min(values), max(values)
        middle[f"share {size}"] = middle[f"batch {size}"] * flops / middle["limit"]
    return middle


if __name__ == "__main__":
    main()
