"""Does a map name the right patch where the right patch is known? Models with planted answers, every
method. Prints one JSON object.

One hop: the class token reads the coloured patch itself. Two hops: through four others. Each image holds
evidence of two classes and is asked for both.

    python benchmarks/planted.py [--cases 1000] [--methods gradient_rollout,rollout]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tesela.attribution.methods.table import AUTO_METHOD, BEST, methods

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.attribution.planted import hits, planted

IMAGES = 20
GOALS = {1: 1.0, 2: 0.99}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--methods", default=",".join(methods()))
    chosen = parser.parse_args()
    models = -(-chosen.cases // (2 * IMAGES))
    table: dict[str, dict[str, str]] = {}
    reached = {}
    for hops in GOALS:
        cases = [planted(hops=hops, seed=seed, images=IMAGES) for seed in range(models)]
        for method in chosen.methods.split(","):
            counts = [hits(case, method) for case in cases]
            right, total = sum(one for one, _ in counts), sum(total for _, total in counts)
            table.setdefault(method, {})[f"{hops} hop"] = f"{right}/{total}"
            if method in (AUTO_METHOD, BEST):
                reached[hops] = right / total
    print(json.dumps({"right_patch": table, "goals": GOALS}))
    return 0 if all(reached.get(hops, 1.0) >= goal for hops, goal in GOALS.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
