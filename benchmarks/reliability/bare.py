"""The model without a server: images a second within the latency bound, and seconds of one image.

python -m benchmarks.reliability.bare BUNDLE MODEL SECONDS

A batch of each size is computed again and again; of those that stay within the bound the fastest counts: of
the model alone, and with decoding, which a server has to do on its cores as well. One image includes it too.
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
    encoded = [files[index % len(files)] for index in range(max(BATCHES))]

    def best(call: Callable[[int], object]) -> float:
        times = {size: seconds_of(lambda size=size: call(size), seconds) for size in BATCHES}  # type: ignore[misc]
        return max(size / took for size, took in times.items() if took <= BOUND)

    found = {
        "per_second": best(lambda size: predictor.outputs(views[:size])),
        "decoding_per_second": best(lambda size: predictor.predict(encoded[:size])),
        "single_seconds": seconds_of(lambda: predictor.predict(files[:1]), seconds),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
