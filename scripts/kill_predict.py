"""Kill scorings of very many images with SIGKILL at random instants and count their rows.

    python scripts/kill_predict.py RUN --images 200000 --kills 5        # by hand
    python scripts/kill_predict.py RUN --images 600 --kills 3 --rows 50 # what the tests run

The images are links to a few hundred pictures, one in a hundred of them damaged. A scoring is started,
killed, taken up and killed again, and ends at last: no row may be missing or there twice, damaged images and
no others have a reason, and memory must not grow with the number of images. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

#: Different pictures, of which the images are links.
PICTURES, DAMAGED = 400, 100
#: Images of a folder.
FOLDER = 5000


def make_images(folder: Path, count: int, *, side: int) -> None:
    """Links to random pictures, every hundredth to a file that is cut off."""
    draw, originals = np.random.default_rng(0), folder.with_name("originals")
    originals.mkdir()
    for number in range(PICTURES):
        small = Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8)).resize((side, side))
        small.save(originals / f"{number}.jpg")
    data = (originals / "0.jpg").read_bytes()
    (originals / "damaged.jpg").write_bytes(data[: len(data) // 2])
    for number in range(count):
        place = folder / f"{number // FOLDER:04d}"
        if number % FOLDER == 0:
            place.mkdir(parents=True)
        name = "damaged" if number % DAMAGED == 7 else str(number % PICTURES)
        (place / f"{number:07d}.jpg").symlink_to(originals / f"{name}.jpg")


class Watched:
    """A scoring as a process of its own, with its memory over time."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.memory: list[int] = []

    def wait(self, seconds: float) -> int | None:
        """The exit code, or None after so many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            code = self.process.poll()
            if code is not None:
                return code
            with contextlib.suppress(OSError, AttributeError):
                status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
                found = re.search(r"^VmRSS:\s*(\d+) kB", status, re.MULTILINE)
                self.memory += [int(found.group(1)) * 1024] if found else []
            time.sleep(0.05)
        return None


def rows_of(out: Path) -> Counter[tuple[str, str]]:
    """How often each image has a row, with the code of its error."""
    found: Counter[tuple[str, str]] = Counter()
    for part in sorted(out.glob("part-*.jsonl")):
        for line in part.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found[Path(row["image"]).name, (row["error"] or {}).get("code", "")] += 1
    return found


def main(words: list[str] | None = None) -> int:
    """Exit code 1 if a row is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=60.0, help="seconds before a kill, at most")
    asked = parser.parse_args(words)
    draw = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as place:
        images, out = Path(place, "images"), Path(place, "out.jsonl")
        make_images(images, asked.images, side=asked.side)
        command = [sys.executable, "-m", "tesela", "predict", asked.run, str(images), "--out", str(out)]
        command += ["--parts", str(asked.rows), "--backend", asked.backend, "--json"]
        kills, begin, watched = 0, time.monotonic(), Watched(command)
        while kills < asked.kills:
            # the clock of a kill starts with the first line of the list, not with the imports
            while not (out / "_images.list").exists() and watched.wait(0.05) is None:
                pass
            if watched.wait(draw.uniform(0.05, asked.longest)) is not None:
                break
            watched.process.kill()
            watched.process.wait()
            kills += 1
            watched = Watched(command)
        code = watched.wait(24 * 3600)
        seconds, rows = time.monotonic() - begin, rows_of(out)
        told: dict[str, Any] = json.loads((watched.process.stdout or sys.stdin).read().splitlines()[-1])
        names = Counter(name for name, _ in rows.elements())
        damaged = {f"{number:07d}.jpg" for number in range(asked.images) if number % DAMAGED == 7}
        later = watched.memory[len(watched.memory) // 4 :] or [0]
        found = {
            "images": asked.images,
            "kills": kills,
            "exit_code": code,
            "missing": asked.images - len(names),
            "twice": sum(count > 1 for count in names.values()),
            "wrong_reasons": sum(
                count for (name, error), count in rows.items() if bool(error) != (name in damaged)
            ),
            "leftovers": len(list(out.glob(".*.part"))),
            "resident_megabytes": max(watched.memory or [0]) // 10**6,
            "growth_megabytes": (max(later) - min(later)) // 10**6,
            "seconds": round(seconds, 1),
            "last_images_per_second": round(told["computed"] / max(told["seconds"], 1e-9), 1),
        }
    sys.stdout.write(json.dumps(found) + "\n")
    wrong = [found[name] for name in ("missing", "twice", "wrong_reasons", "leftovers")]
    return int(any(wrong) or told["rows"] != asked.images or code != 1)


if __name__ == "__main__":
    raise SystemExit(main())
