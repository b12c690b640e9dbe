"""What full, wide, axial and local attention cost beside the length of the sequence.

Operations, memory, time. Prints a markdown table.

    python benchmarks/attention_cost.py [--attentions full,axial] [--sides 14,28,42,56] [--window 7]
    [--position none] [--kernel fused]

Two blocks of a ViT-S by default (axial attention takes rows in one and columns in the other, local windows
are shifted in the second) on one class token and side x side patches; figures are per block. Operations are
counted in closed form, two per multiply-add, MLP and projections included; "map" is the part that the
attention map itself takes. Memory is what autograd keeps for the backward pass, per image. Times are medians
per image: forward alone, and forward with backward. On CUDA the peak of allocated memory is shown too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tesela.hardware.memory import kept_bytes
from tesela.layers.attention.attention import set_attention_kernel
from tesela.layers.token_layout import TokenLayout
from tesela.models.factory import create_model
from tesela.models.vit.config import ViTConfig

ATTENTIONS = ("full", "wide", "axial", "local")
PATCH = 16


def configuration(attention: Any, side: int, chosen: argparse.Namespace) -> ViTConfig:
    image = (side * PATCH, side * PATCH)
    return ViTConfig(
        image_size=image,
        width=chosen.width,
        heads=chosen.heads,
        depth=2,
        attention=attention,
        window=chosen.window,
        position=chosen.position,
        patch_size=(PATCH, PATCH),
    )


def operations(config: ViTConfig) -> tuple[float, float]:
    """Operations per block in total, and those of the map."""
    depth, bare = (
        config.depth,
        config.flops(1) - 2 * (config.stem_products(config.image_size) + config.pooled_width),
    )
    pairs = sum(config.windows(index).pairs(config.grid(), prefix=config.prefix) for index in range(depth))
    return bare / depth, 4 * pairs * config.attention_width / depth


def median_seconds(call: Callable[[], Any], *, rounds: int, device: torch.device) -> float:
    times = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def measured(attention: str, side: int, chosen: argparse.Namespace) -> list[str]:
    """One row of the table."""
    config, device = configuration(attention, side, chosen), torch.device(chosen.device)
    model: Any = create_model(config, num_classes=1, seed=0).to(device)
    set_attention_kernel(model, chosen.kernel)
    blocks: nn.ModuleList = model.blocks
    layout = TokenLayout(config.grid(), config.prefix) if config.needs_grid else None
    tokens = torch.randn(chosen.batch, config.prefix + side * side, chosen.width, device=device)

    def run(given: Tensor) -> Tensor:
        for block in blocks:
            given = block(given, layout=layout)
        return given

    def forward() -> None:
        with torch.inference_mode():
            run(tokens)

    def step() -> None:
        run(tokens).sum().backward()  # type: ignore[no-untyped-call]

    total, part = operations(config)
    kept = kept_bytes(lambda: run(tokens), model) / (config.depth * chosen.batch)
    share = config.depth * chosen.batch
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = [
        median_seconds(call, rounds=chosen.rounds, device=device) / share * 1e3 for call in (forward, step)
    ]
    row = [
        attention,
        f"{side * side + 1:,}",
        f"{total / 1e6:,.0f}",
        f"{part / 1e6:,.0f}",
        f"{kept / 2**20:,.1f}",
        *(f"{ms:,.2f}" for ms in times),
    ]
    return row + ([f"{torch.cuda.max_memory_allocated() / 2**20:,.0f}"] if device.type == "cuda" else [])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", default="14,28,42,56", help="patches along a side, separated by commas")
    parser.add_argument("--attentions", default=",".join(ATTENTIONS), help="rows, separated by commas")
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--window", type=int, default=7)
    parser.add_argument("--position", default="none", choices=["none", "relative", "rotary"])
    parser.add_argument("--kernel", default="fused", choices=["fused", "matmul"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0 takes PyTorch's choice")
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    head = [
        "attention",
        "tokens",
        "MFLOP",
        "of it the map",
        "kept, MB",
        "forward, ms",
        "forward + backward, ms",
    ]
    head += ["peak of all, MB"] if chosen.device.startswith("cuda") else []
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head), flush=True)
    for side in (int(word) for word in chosen.sides.split(",")):
        for attention in chosen.attentions.split(","):
            print("| " + " | ".join(measured(attention, side, chosen)) + " |", flush=True)


if __name__ == "__main__":
    main()
