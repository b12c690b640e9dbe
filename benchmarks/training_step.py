"""P3: one training step of ViT-S/16 at 224 px, batch 32, on the CPU; tesela beside transformers and timm.

    python benchmarks/training_step.py --peers FOLDER [--rounds 5]

FOLDER holds the peers, installed apart from tesela: pip install --target FOLDER --no-deps timm torchvision. torchvision's own
operators are missing beside a CPU build of torch; they are registered as no-ops before timm is imported, and none is used.

Each side is a process of its own with its own defaults (allocator, threads), started in turn; within a process three steps warm up
and the median of the rest counts. transformers runs as its Trainer does by default: fp32, AdamW. timm runs bf16 autocast with
unfused attention, the best of its settings on such a machine. tesela runs what `tesela train` runs. Last result: see LOG.md.
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

BATCH, STEPS, WARM = 32, 8, 3


def steps_of_tesela() -> Callable[[], float]:
    import torch

    from tesela.core.allocator import keep_freed_memory
    from tesela.layers.attention import set_attention_kernel
    from tesela.models.factory import create_model
    from tesela.train.optim import OptimConfig, build_optimizers

    keep_freed_memory()
    model = create_model("vit_s16", num_classes=1000, seed=0)
    set_attention_kernel(model, os.environ.get("KERNEL", "lean"))
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


def steps_of_transformers() -> Callable[[], float]:
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536, num_labels=1000)
    return plain(ViTForImageClassification(config).train(), lambda out: out.logits, autocast=False, fused=torch.cuda.is_available())


def steps_of_timm() -> Callable[[], float]:
    import torch

    register_fake = torch.library.register_fake

    def register(name: Any, *rest: Any, **options: Any) -> Any:
        if str(name).startswith("torchvision::"):
            return lambda function: function
        return register_fake(name, *rest, **options)

    torch.library.register_fake = register
    import timm
    import timm.layers

    timm.layers.set_fused_attn(False)
    return plain(timm.create_model("vit_small_patch16_224", num_classes=1000).train(), lambda out: out, autocast=True, fused=True)


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
    return torch.randn(BATCH, 3, 224, 224, generator=generator), torch.randint(0, 1000, (BATCH,), generator=generator)


SIDES = {"tesela": steps_of_tesela, "transformers": steps_of_transformers, "timm": steps_of_timm}


def one_side(name: str) -> None:
    """Print images per second of one side, measured in this process."""
    step = SIDES[name]()
    times = []
    for number in range(WARM + STEPS):
        started = time.perf_counter()
        step()
        if number >= WARM:
            times.append(time.perf_counter() - started)
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="folder with timm and torchvision")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", choices=sorted(SIDES))
    options = parser.parse_args()
    if options.side:
        one_side(options.side)
        return
    rates: dict[str, list[float]] = {name: [] for name in SIDES}
    environment = dict(os.environ)
    if options.peers:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (environment.get("PYTHONPATH"), options.peers)))
    for _ in range(options.rounds):
        for name in SIDES:
            words = [sys.executable, __file__, "--side", name]
            done = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)
            rates[name].append(json.loads(done.stdout.splitlines()[-1])["images_per_second"])
    middle = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        print(f"{name:<13} {middle[name]:6.1f} images/s   {min(values):.1f} .. {max(values):.1f}")
    limit = product_rate()
    print(f"limit: bf16 matrix product {limit:.2f} TFLOP/s, tesela uses {middle['tesela'] * 27.6e9 / 1e12 / limit:.0%} of it")
    ratios = {f"over_{name}": round(middle["tesela"] / middle[name], 2) for name in ("transformers", "timm")}
    print(
        json.dumps(
            {**{name: round(rate, 1) for name, rate in middle.items()}, **ratios, "goals": {"over_transformers": 5, "over_timm": 1.25}}
        )
    )


if __name__ == "__main__":
    main()
