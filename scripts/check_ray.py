"""Score on a local cluster of two nodes with Ray and compare the rows with those of one machine.

    RAY_USAGE_STATS_ENABLED=0 python scripts/check_ray.py RUN --images 400

Two nodes run on this machine. The same images are scored by the local engine and by Ray; one of the nodes is
killed while Ray is at work. No row may be missing, there twice, or have another answer. The last line is
JSON. Ray has to be importable, by ``pip install "tesela[ray]"``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def make_images(folder: Path, count: int) -> None:
    """Random pictures, every fiftieth damaged."""
    draw = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        path = folder / f"{number:06d}.png"
        Image.fromarray(draw.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
        if number % 50 == 7:
            path.write_bytes(path.read_bytes()[:60])


def rows_of(out: Path) -> list[dict[str, Any]]:
    """All rows, part after part."""
    parts = sorted(out.glob("part-*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text(encoding="utf-8").splitlines()]


def answer(row: dict[str, Any]) -> tuple[Any, ...]:
    """What has to be equal: the image, the label, the reason."""
    return row["image"], row.get("label"), (row["error"] or {}).get("code")


def main() -> int:
    """Exit code 1 if a row differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--backend", default="torch")
    asked = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster_utils = importlib.import_module("ray.cluster_utils")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    other = cluster.add_node(num_cpus=1)
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make_images(place / "images", asked.images)

        def command(engine: str) -> list[str]:
            words = ["predict", asked.run, str(place / "images"), "--out", str(place / f"{engine}.jsonl")]
            words += ["--parts", str(asked.rows), "--engine", engine, "--threads", "1", "--json"]
            words += ["--backend", asked.backend, "--precision", "fp32"]
            return [sys.executable, "-m", "tesela", *words]

        subprocess.run(command("local"), check=False, stdout=subprocess.PIPE)
        begin = time.monotonic()
        scoring = subprocess.Popen(command("ray"), env=environment, stdout=subprocess.PIPE, text=True)
        while scoring.poll() is None and not list((place / "ray.jsonl").glob("part-*")):
            time.sleep(0.02)
        before = len(list((place / "ray.jsonl").glob("part-*")))
        cluster.remove_node(other, allow_graceful=False)
        told, _ = scoring.communicate()
        seconds = time.monotonic() - begin
        local, found = rows_of(place / "local.jsonl"), rows_of(place / "ray.jsonl")
        wrong = sum(answer(one) != answer(two) for one, two in zip(local, found, strict=False))
        facts = {
            "images": asked.images,
            "parts_before_kill": before,
            "parts": len(list((place / "ray.jsonl").glob("part-*"))),
            "missing": asked.images - len({row["image"] for row in found}),
            "twice": len(found) - len({row["image"] for row in found}),
            "other_answers": wrong,
            "equal_to_the_bit": local == found,
            "exit_code": scoring.returncode,
            "seconds": round(seconds, 1),
            "told": json.loads(told.splitlines()[-1]) if told.strip() else None,
        }
    cluster.shutdown()
    sys.stdout.write(json.dumps(facts) + "\n")
    return int(bool(facts["missing"] or facts["twice"] or wrong or scoring.returncode != 1))


if __name__ == "__main__":
    raise SystemExit(main())
