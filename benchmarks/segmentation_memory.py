"""Memory of ``evaluate`` and ``predict`` over many large images: it must not grow with their number.

    python benchmarks/segmentation_memory.py RUN --out FOLDER [--images 1000]

RUN is a segmenter's run. A hundred photographs of 1920x1080 with masks are drawn and named ten times over;
each verb runs as a process of its own whose resident memory is read ten times a second. The slope is that of
a line through the second half of the readings, in MB per 100 images. Last result: see LOG.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tesela.models.bundle import locate_bundle, read_info

DISTINCT = 100
HEIGHT, WIDTH = 1080, 1920


def draw(root: Path, count: int, classes: int) -> None:
    """Images of blurred noise, and masks of coarse regions; further names are links."""
    generator = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / "val" / kind).mkdir(parents=True, exist_ok=True)
        (root / "train" / kind).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image, mask = (root / "val" / kind / f"{number:05d}" for kind in ("images", "masks"))
        if number < DISTINCT:
            small = generator.integers(0, 256, (27, 48, 3)).astype(np.uint8)
            Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(
                image.with_suffix(".jpg"), quality=90
            )
            coarse = generator.integers(0, classes, (9, 16)).astype(np.uint8)
            Image.fromarray(coarse.repeat(120, 0).repeat(120, 1)).save(mask.with_suffix(".png"))
            continue
        for place, suffix in ((image, ".jpg"), (mask, ".png")):
            source = place.with_name(f"{number % DISTINCT:05d}{suffix}")
            place.with_suffix(suffix).hardlink_to(source)
    for kind, suffix in (("images", ".jpg"), ("masks", ".png")):
        for number in range(min(count, DISTINCT)):
            source = root / "val" / kind / f"{number:05d}{suffix}"
            (root / "train" / kind / f"{number:05d}{suffix}").hardlink_to(source)


def readings(words: list[str], folder: Path) -> list[tuple[float, float]]:
    """Seconds and resident megabytes of a process, ten times a second."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=folder)
    found, begin = [], time.monotonic()
    while process.poll() is None:
        try:
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            break
        found.append((time.monotonic() - begin, pages * os.sysconf("SC_PAGE_SIZE") / 1e6))
        time.sleep(0.1)
    if process.wait():
        assert process.stderr is not None
        raise SystemExit(process.stderr.read().decode())
    return found


def slope(found: list[tuple[float, float]], images: int) -> float:
    """MB per 100 images over the second half."""
    late = np.array(found[len(found) // 2 :])
    per_second = np.polyfit(late[:, 0], late[:, 1], 1)[0]
    return float(per_second * found[-1][0] / images * 100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1000)
    options = parser.parse_args()
    info = read_info(locate_bundle(Path(options.run)))
    data = options.out / "data"
    if not data.is_dir():
        draw(data, options.images, info.num_classes)
        rows = "".join(f"{value},{label}\n" for value, label in enumerate(info.labels))
        (data / "classes.csv").write_text("value,name\n" + rows)
    tesela, run = [sys.executable, "-m", "tesela"], str(Path(options.run).resolve())
    bundle = str(locate_bundle(Path(run)))
    verbs = {
        "evaluate": [*tesela, "evaluate", bundle, str(data.resolve()), "--split", "val", "--batch-size", "8"],
        "predict": [*tesela, "predict", run, str((data / "val" / "images").resolve()), "--out", "masks"],
    }
    result = {}
    for verb, words in verbs.items():
        found = readings([*words, *(("--batch", "8") if verb == "predict" else ())], options.out)
        result[verb] = {
            "seconds": round(found[-1][0], 1),
            "peak_mb": round(max(value for _, value in found), 1),
            "slope_mb_per_100_images": round(slope(found, options.images), 2),
        }
        print(verb, result[verb], file=sys.stderr, flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
