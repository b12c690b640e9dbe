"""What explaining costs beside one forward pass (time at 197 and 577 tokens, memory at 4,097 tokens).

Prints one JSON object.

Time: forward and forward + rollout alternate on the same images; medians, of the clock and of processor time,
which other programs on the machine disturb less. The goals: rollout adds at most 0.10, memory at most 0.04,
and one image of a ViT-S at 224 takes at most 0.5 s. Memory: peak resident set of a fresh process that only
runs the forward pass against one that also explains, as a share of what all maps would take in float32.

    python benchmarks/explanation.py [--rounds 7] [--model vit_b16] [--threads 2] [--skip-memory]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

METHODS = ("rollout", "gradient_rollout")


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of one call: of the clock, and of all processors together."""
    begin, used = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - begin, time.process_time() - used


def cost(name: str, side: int, *, batch: int, rounds: int, method: str, **options: Any) -> dict[str, Any]:
    """Median seconds of forward, of explain, and of what explain adds as a share of forward."""
    import torch

    from tesela.attribution.explain import explain
    from tesela.models.factory import create_model

    model = create_model(name, num_classes=1000, image_size=side, seed=0).eval()
    images = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))

    def forward() -> None:
        with torch.inference_mode():
            model(images)

    def explained() -> None:
        explain(model, images, target=1, method=method, **options)

    forward()
    explained()
    pairs = [(timed(forward), timed(explained)) for _ in range(rounds)]
    result: dict[str, Any] = {"method": method, **options, "model": name, "side": side, "batch": batch}
    for clock, suffix in ((0, ""), (1, "_cpu")):
        plain, whole = (
            statistics.median(one[clock] for one in column) for column in zip(*pairs, strict=True)
        )
        added = statistics.median(second[clock] - first[clock] for first, second in pairs)
        result |= {
            f"forward{suffix}_s": plain,
            f"explain{suffix}_s": whole,
            f"added{suffix}_share": added / plain,
        }
    return result


def peak(name: str, side: int, *, explained: bool) -> int:
    """Peak resident bytes of a fresh process."""
    words = [
        sys.executable,
        __file__,
        "--model",
        name,
        "--child",
        str(side),
        *(["--explained"] if explained else []),
    ]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def child(name: str, side: int, *, explained: bool, threads: int) -> None:
    """Run once and print the peak."""
    import torch

    from tesela.attribution.explain import explain
    from tesela.models.factory import create_model

    torch.set_num_threads(threads)
    model = create_model(name, num_classes=10, image_size=side, seed=0).eval()
    images = torch.zeros(1, 3, side, side)
    with torch.inference_mode():
        model(images)
    if explained:
        explain(model, images, method="rollout")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", default="vit_b16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip-memory", action="store_true")
    parser.add_argument("--child", type=int, default=0)
    parser.add_argument("--explained", action="store_true")
    chosen = parser.parse_args()
    if chosen.child:
        child(chosen.model, chosen.child, explained=chosen.explained, threads=chosen.threads)
        return
    import torch

    torch.set_num_threads(chosen.threads)
    sides = (224, 384)
    rows = [
        cost(chosen.model, side, batch=1, rounds=chosen.rounds, method=method)
        for side in sides
        for method in METHODS
    ]
    rows += [
        cost(chosen.model, side, batch=1, rounds=chosen.rounds, method="rollout", discard=0.9)
        for side in sides
    ]
    rows += [
        cost("vit_s16", 224, batch=1, rounds=chosen.rounds, method=method)
        for method in ("auto", *METHODS, "relevance", "gradcam")
    ]
    result: dict[str, Any] = {"time": rows, "threads": chosen.threads}
    if not chosen.skip_memory:
        eager = 12 * 12 * 4097**2 * 4
        extra = peak(chosen.model, 1024, explained=True) - peak(chosen.model, 1024, explained=False)
        result["memory"] = {
            "model": chosen.model,
            "tokens": 4097,
            "eager_bytes": eager,
            "extra_bytes": extra,
            "share": extra / eager,
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
