"""P3: one training step of ViT-S/16 at 224 px, batch 32, on the CPU; tesela beside transformers and timm.

    python benchmarks/training_step.py --timm FOLDER --accelerate FOLDER [--rounds 5]

The folders hold the peers, installed apart from tesela and from one another: pip install --target FOLDER
--no-deps timm torchvision, and the same for accelerate. torchvision's own operators are missing beside a CPU
build of torch: transformers does not start beside it, and for timm they are registered as no-ops; none is
used.

Each side is a process of its own with its own defaults (allocator, threads), started in turn; within a
process three steps warm up and the median of the rest counts. transformers runs its Trainer with default
arguments (fp32, AdamW). timm runs bf16 autocast with unfused attention, the best of its settings on such a
machine. tesela runs what `tesela train` runs. Last result: see LOG.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, ClassVar

BATCH, STEPS, WARM = 32, 8, 3


def steps_of_tesela() -> Callable[[], float]:
    from tesela.hardware.allocator import keep_freed_memory

    keep_freed_memory()
    import torch

    from tesela.layers.attention.attention import set_attention_kernel
    from tesela.models.factory import create_model
    from tesela.training.optim.optimizer import OptimConfig, build_optimizers

    model = create_model("vit_s16", num_classes=1000, seed=0)
    set_attention_kernel(model, os.environ.get("KERNEL", "cpu_bf16"))
    optimizers = build_optimizers(model, OptimConfig())
    images, targets = batch()

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(images), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizers.parts[0].step()
        optimizers.zero_grad()
        return float(loss.detach())

    return step


def times_of_trainer() -> list[float]:
    """Seconds per step of transformers' Trainer with its default arguments, but for the batch size."""
    import tempfile

    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments, ViTConfig, ViTForImageClassification

    class Clock(TrainerCallback):  # type: ignore[misc]
        ends: ClassVar[list[float]] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.perf_counter())

    config = ViTConfig(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536, num_labels=1000
    )
    images, targets = batch()
    rows = [
        {"pixel_values": image, "labels": int(target)} for image, target in zip(images, targets, strict=True)
    ]
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            output_dir=out,
            per_device_train_batch_size=BATCH,
            max_steps=WARM + STEPS + 1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        Trainer(
            model=ViTForImageClassification(config), args=arguments, train_dataset=rows, callbacks=[Clock()]
        ).train()
    assert torch.get_num_threads() >= 1
    return [after - before for before, after in itertools.pairwise(Clock.ends)][WARM:]


def pass_over_missing_operators() -> None:
    """Let torchvision start beside a torch without its operators: their registrations are passed over."""
    from torch import library as operators

    register_fake = operators.register_fake

    def register(name: Any, *rest: Any, **options: Any) -> Any:
        if str(name).startswith("torchvision::"):
            return lambda function: function
        return register_fake(name, *rest, **options)

    operators.register_fake = register


def import_timm() -> Any:
    """timm, which needs torchvision."""
    pass_over_missing_operators()
    import timm
    import timm.layers

    return timm


def steps_of_timm() -> Callable[[], float]:
    timm = import_timm()
    timm.layers.set_fused_attn(False)
    return plain(
        timm.create_model("vit_small_patch16_224", num_classes=1000).train(),
        lambda out: out,
        autocast=True,
        fused=True,
    )


def plain(model: Any, logits: Callable[[Any], Any], *, autocast: bool, fused: bool) -> Callable[[], float]:
    """A step as a loop without tricks takes it."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)
    images, targets = batch()

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = torch.nn.functional.cross_entropy(logits(model(images)), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def batch() -> tuple[Any, Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randn(BATCH, 3, 224, 224, generator=generator), torch.randint(
        0, 1000, (BATCH,), generator=generator
    )


SIDES: dict[str, Callable[[], list[float]]] = {
    "tesela": lambda: timed(steps_of_tesela()),
    "transformers": times_of_trainer,
    "timm": lambda: timed(steps_of_timm()),
}


def timed(step: Callable[[], float]) -> list[float]:
    """Seconds of each step after warming up."""
    times = []
    for number in range(WARM + STEPS):
        started = time.perf_counter()
        step()
        if number >= WARM:
            times.append(time.perf_counter() - started)
    return times


def one_side(name: str) -> None:
    """Print images per second of one side, measured in this process."""
    times = SIDES[name]()
    print(json.dumps({"images_per_second": BATCH / statistics.median(times)}))


def product_rate() -> float:
    """TFLOP/s of a large bf16 matrix product, the limit."""
    import torch

    side = 4096
    left, right = (torch.randn(side, side).to(torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(4):
        started = time.perf_counter()
        torch.mm(left, right)
        times.append(time.perf_counter() - started)
    return 2 * side**3 / min(times) / 1e12


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--timm", help="folder with timm and torchvision")
    parser.add_argument("--accelerate", help="folder with accelerate, which the Trainer needs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", choices=sorted(SIDES))
    options = parser.parse_args()
    if options.side:
        one_side(options.side)
        return
    rates: dict[str, list[float]] = {name: [] for name in SIDES}
    places = {"tesela": None, "timm": options.timm, "transformers": options.accelerate}
    for _ in range(options.rounds):
        for name in SIDES:
            words = [sys.executable, __file__, "--side", name]
            path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), places[name])))
            done = subprocess.run(
                words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=True
            )
            rates[name].append(json.loads(done.stdout.splitlines()[-1])["images_per_second"])
            print(f"{name}: {rates[name][-1]:.1f} images/s", file=sys.stderr, flush=True)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        print(f"{name:<13} {middle[name]:6.1f} images/s   {min(values):.1f} .. {max(values):.1f}")
    limit = product_rate()
    print(
        f"limit: bf16 matrix product {limit:.2f} TFLOP/s, tesela uses "
        f"{middle['tesela'] * 27.6e9 / 1e12 / limit:.0%} of it"
    )
    ratios = {f"over_{name}": round(middle["tesela"] / middle[name], 2) for name in ("transformers", "timm")}
    print(
        json.dumps(
            {
                **{name: round(rate, 1) for name, rate in middle.items()},
                **ratios,
                "goals": {"over_transformers": 5, "over_timm": 1.25},
            }
        )
    )


if __name__ == "__main__":
    main()
