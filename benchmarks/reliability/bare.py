"""The model without a server: images a second within the latency bound, and seconds of one image.

python -m benchmarks.reliability.bare BUNDLE MODEL SECONDS

A batch of each size is computed again and again; of those that stay within the bound the fastest counts. One
image includes its decoding, for a server has that to do as well.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable

from benchmarks.reliability.material import MODELS, photographs
from benchmarks.reliability.plan import BOUND

from tesela.runtime.predictor import Predictor

BATCHES = (1, 2, 4, 8, 16)


def seconds_of(call: Callable[[], object], seconds: float) -> float:
    """Median seconds of a call."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def main() -> None:
    predictor, seconds = Predictor(sys.argv[1], precision="auto"), float(sys.argv[3])
    files = photographs(MODELS[sys.argv[2]][1])
    views = [predictor.prepare(files[index % len(files)]) for index in range(max(BATCHES))]
    speeds = []
    for size in BATCHES:
        took = seconds_of(lambda size=size: predictor.outputs(views[:size]), seconds)  # type: ignore[misc]
        if took <= BOUND:
            speeds.append(size / took)
    single = seconds_of(lambda: predictor.predict(files[:1]), seconds)
    print(json.dumps({"per_second": max(speeds), "single_seconds": single}))


if __name__ == "__main__":
    main()
