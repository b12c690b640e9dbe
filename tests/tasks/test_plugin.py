"""A task that lives outside the package trains, resumes after SIGKILL, evaluates, reports, predicts and is
served.

It is found through the entry point group ``tesela.tasks`` of a distribution that the test puts on the
path; nothing of it is in ``src/``. Everything runs in processes, as users run it.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

PLUGIN = Path(__file__).resolve().parent / "plugin"
ROOT = Path(__file__).resolve().parents[2]
OPTIONS = [
    *("--model", "vit_nano", "--net.width", "16", "--net.depth", "2", "--net.heads", "2", "--epochs", "12"),
    *("--batch-size", "20", "--optim.lr", "0.01", "--precision", "fp32", "--attention", "fused"),
    *("--threads", "1", "--augment.mixup", "0.2", "--ema.decay", "0.9", "--checkpoint-steps", "3"),
    *("--no-tensorboard", "--objective.forget", "0.2", "--data.workers", "2", "--data.cache", "none"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits with the tags even, low and round in a manifest, and the distribution's metadata."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("tags")
    metadata = folder / "site" / "tags_task-0.1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tags-task\nVersion: 0.1\n")
    (metadata / "entry_points.txt").write_text(
        "[tesela.tasks]\ntags = tags_task\n[tesela.heads]\ntagger = tags_task\n"
    )
    digits = load_digits()
    with (folder / "digits.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "tags"])
        for number in range(400):
            digit = int(digits.target[number])
            tags = {"even": digit % 2 == 0, "low": digit < 5, "round": digit in (0, 6, 8, 9)}
            Image.fromarray((digits.images[number] * 15).astype(np.uint8)).save(folder / f"{number}.png")
            writer.writerow([f"{number}.png", ";".join(tag for tag, holds in tags.items() if holds)])
    return folder


def environment(place: Path, **more: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "src"), str(PLUGIN), str(place / "site")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def tesela(place: Path, *words: str, code: int = 0, **more: str) -> str:
    """Run the command line; its standard output."""
    command = [sys.executable, "-m", "tesela", *words]
    done = subprocess.run(command, cwd=place, env=environment(place, **more), capture_output=True, text=True)
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    """A run that nobody disturbed."""
    answer = json.loads(
        tesela(place, "train", "digits.csv", *OPTIONS, "--out", "run", "--json").splitlines()[-1]
    )
    assert answer["task"] == "tags" and answer["f1"] > 0.75 and "accuracy" not in answer
    return place / "run"


def test_resumes_to_the_same_bits_after_sigkill(place: Path, run: Path) -> None:
    """Reference: the undisturbed run; killed after steps 5 and 11, between two checkpoints."""
    words = ["train", "digits.csv", *OPTIONS, "--no-report", "--out", "killed"]
    tesela(place, *words, code=-9, TESELA_FAILPOINT="loop.after_step=kill@5")
    tesela(place, "train", "--out", "killed", "--resume", code=-9, TESELA_FAILPOINT="loop.after_step=kill@8")
    tesela(place, "train", "--out", "killed", "--resume")
    first, second = (load_file(folder / "bundle" / "model.safetensors") for folder in (run, place / "killed"))
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)
    assert (run / "metrics.jsonl").read_bytes() == (place / "killed" / "metrics.jsonl").read_bytes()
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["train_bias"] > 0, "the objective's own parameter was not trained"


def test_evaluates_and_reports(place: Path, run: Path) -> None:
    """Reference: the run's own scores."""
    scores = json.loads(tesela(place, "evaluate", "run", "--json").splitlines()[-1])
    assert scores["f1"] == json.loads((run / "result.json").read_text())["f1"]
    assert "has no option 'top'" not in tesela(place, "evaluate", "run", "--split", "val")
    page = (run / "report.html").read_text()
    assert "<h2>Tags</h2>3 tags" in page and "F1" in page and "Confusion" not in page
    assert "image tagger" in (run / "bundle" / "README.md").read_text()
    tesela(place, "evaluate", "run", "--top", "3", code=2)


def test_predicts(place: Path, run: Path) -> None:
    """Reference: the manifest; most of a hundred images have exactly their tags."""
    images = [f"{number}.png" for number in range(100)]
    (place / "broken.png").write_bytes(b"no image")
    lines = tesela(
        place, "predict", "run", *images, "broken.png", "--json", "--out", "all.parquet", code=1
    ).splitlines()
    rows = [json.loads(line) for line in lines]
    with (place / "digits.csv").open() as stream:
        wanted = {row["path"]: row["tags"].split(";") for row in csv.DictReader(stream)}
    hits = sum(set(row["tags"]) == set(filter(None, wanted[row["image"]])) for row in rows[:100])
    assert hits > 40
    assert (rows[100]["tags"], rows[100]["surest"], rows[100]["error"]["code"]) == ([], None, "not_an_image")
    import pyarrow.parquet as parquet

    assert parquet.read_table(place / "all.parquet").to_pylist() == rows


def test_is_served(place: Path, run: Path) -> None:
    """Reference: what predict says of the same file."""
    command = [sys.executable, "-m", "tesela", "serve", "run", "--port", "0", "--json"]
    with subprocess.Popen(
        command, cwd=place, env=environment(place), stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            address = json.loads(server.stdout.readline())["address"]
            image = (place / "1.png").read_bytes()
            request = urllib.request.Request(f"{address}/v1/tags", image, {"Content-Type": "image/png"})
            with urllib.request.urlopen(request, timeout=20) as response:
                answer = json.loads(response.read())
            with urllib.request.urlopen(f"{address}/openapi.json", timeout=20) as response:
                paths = json.loads(response.read())["paths"]
        finally:
            server.terminate()
            server.wait(20)
    wanted = json.loads(tesela(place, "predict", "run", "1.png", "--json"))
    assert answer["tags"] == wanted["tags"] and answer["surest"] == pytest.approx(wanted["surest"], abs=1e-5)
    assert "/v1/tags" in paths and "/v1/classify" not in paths
