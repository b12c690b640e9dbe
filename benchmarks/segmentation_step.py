"""One training step of SegFormer-B0 and of a U-Net on ResNet-34, 256 px, batch 8, on the CPU.

    python benchmarks/segmentation_step.py --smp FOLDER [--rounds 5]

tesela beside transformers' SegFormer and segmentation_models.pytorch's U-Net (the same network, 24.4 million
parameters), each in a plain loop with its defaults: fp32, AdamW, cross-entropy of upsampled logits. tesela
runs what `tesela train` would: bf16 where it is faster, its allocator and kernels. FOLDER holds the peer: pip
install --target FOLDER --no-deps segmentation-models-pytorch timm torchvision.

Each side is a process of its own, in turn; three steps warm up, the median of the rest counts. Last result:
see LOG.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from training_step import pass_over_missing_operators, product_rate

BATCH, SIZE, CLASSES, STEPS, WARM = 8, 256, 11, 8, 3


def batch() -> tuple[Any, Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, 3, SIZE, SIZE, generator=generator)
    return images, torch.randint(0, CLASSES, (BATCH, SIZE, SIZE), generator=generator)


def tesela(name: str, **options: Any) -> Callable[[], float]:
    """A step as ``tesela train`` takes it."""
    from tesela.hardware.allocator import keep_freed_memory

    keep_freed_memory()
    import torch

    from tesela.data.batch import Batch
    from tesela.layers.attention.attention import set_attention_kernel
    from tesela.models.factory import create_segmenter
    from tesela.tasks.objective import Draw
    from tesela.tasks.segmentation.config import SegmentationConfig
    from tesela.tasks.segmentation.objective import MaskLoss
    from tesela.training.optim.optimizer import OptimConfig, build_optimizers
    from tesela.training.step import TrainingStep

    model = create_segmenter(name, num_classes=CLASSES, image_size=SIZE, seed=0, **options)
    set_attention_kernel(model, "cpu_bf16")
    objective = MaskLoss(SegmentationConfig())
    step = TrainingStep(
        model,
        objective,
        build_optimizers(model, OptimConfig(), objective=objective),
        device=torch.device("cpu"),
        precision="bf16",
        clip_norm=1.0,
    )
    images, targets = batch()
    one = Batch(images, targets.to(torch.uint8), torch.arange(BATCH))

    def run() -> float:
        loss = step.loss(one, Draw(0, 0))
        step.backward(loss, share=1.0)
        step.update()
        return float(loss.value.detach())

    return run


def plain(model: Any, logits: Callable[[Any], Any]) -> Callable[[], float]:
    """A step as a loop without tricks takes it."""
    import torch
    import torch.nn.functional as F

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images, targets = batch()

    def run() -> float:
        found = logits(model(images))
        if found.shape[2:] != targets.shape[1:]:
            found = F.interpolate(found, size=targets.shape[1:], mode="bilinear", align_corners=False)
        loss = F.cross_entropy(found, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return run


def transformers_segformer() -> Callable[[], float]:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return plain(
        SegformerForSemanticSegmentation(SegformerConfig(num_labels=CLASSES)), lambda out: out.logits
    )


def smp_unet() -> Callable[[], float]:
    pass_over_missing_operators()
    import segmentation_models_pytorch as smp

    return plain(smp.Unet("resnet34", encoder_weights=None, classes=CLASSES), lambda out: out)


WIDTHS = (256, 128, 64, 32, 16)
SIDES: dict[str, Callable[[], Callable[[], float]]] = {
    "segformer_b0 tesela": lambda: tesela("segformer_b0"),
    "segformer_b0 transformers": transformers_segformer,
    "unet resnet34 tesela": lambda: tesela("resnet34", decoder={"name": "unet", "widths": WIDTHS}),
    "unet resnet34 smp": smp_unet,
}


def one_side(name: str) -> None:
    """Print images per second of one side, measured in this process."""
    run, times = SIDES[name](), []
    for number in range(WARM + STEPS):
        started = time.perf_counter()
        run()
        if number >= WARM:
            times.append(time.perf_counter() - started)
    print(json.dumps({"images_per_second": BATCH / statistics.median(times)}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smp", help="folder with segmentation-models-pytorch, timm and torchvision")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", choices=sorted(SIDES))
    options = parser.parse_args()
    if options.side:
        one_side(options.side)
        return
    rates: dict[str, list[float]] = {name: [] for name in SIDES}
    for _ in range(options.rounds):
        for name in SIDES:
            place = options.smp if name.endswith("smp") else None
            path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), place)))
            done = subprocess.run(
                [sys.executable, __file__, "--side", name],
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
                check=True,
            )
            rates[name].append(json.loads(done.stdout.splitlines()[-1])["images_per_second"])
            print(f"{name}: {rates[name][-1]:.1f} images/s", file=sys.stderr, flush=True)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {
        "segformer_b0": medians["segformer_b0 tesela"] / medians["segformer_b0 transformers"],
        "unet resnet34": medians["unet resnet34 tesela"] / medians["unet resnet34 smp"],
    }
    print(json.dumps({"images_per_second": medians, "ratios": ratios, "bf16_tflops": product_rate()}))


if __name__ == "__main__":
    main()
