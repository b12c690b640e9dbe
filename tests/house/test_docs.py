"""Everything the documentation shows is run.

The README's commands on a small data set, Python blocks, and the examples.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
        "TESELA_HOME": str(home / "home"),
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages speak of: photos/ with class folders, and new/ images."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("docs")
    data = load_digits()
    for number in range(360):
        label = "cat" if data.target[number] < 5 else "dog"
        (folder / "photos" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray((data.images[number] * 15).astype(np.uint8)).save(
            folder / "photos" / label / f"{number}.png"
        )
    for kind in ("images", "masks"):
        (folder / "scenes" / kind).mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows, columns = np.indices((32, 32))
    for number in range(24):
        top, left = generator.integers(8, 24, 2)
        mask = ((rows - top) ** 2 + (columns - left) ** 2 < 50).astype(np.uint8)
        image = generator.integers(0, 90, (32, 32, 3)) + 120 * mask[..., None]
        Image.fromarray(mask).save(folder / "scenes" / "masks" / f"{number:02d}.png")
        Image.fromarray(image.astype(np.uint8)).save(folder / "scenes" / "images" / f"{number:02d}.png")
    (folder / "scenes" / "classes.csv").write_text("value,name\n0,ground\n1,disc\n")
    (folder / "new").mkdir()
    for number in range(1, 4):
        Image.fromarray((data.images[400 + number] * 15).astype(np.uint8)).convert("RGB").save(
            folder / "new" / f"{number}.jpg"
        )
    return folder


#: Runs the commands that come on its standard input, each in a copy of itself, which has PyTorch already, for
#: starting an interpreter takes longer than most of them. It answers with exit codes; "said" has the rest.
COMMANDS = """
import glob, os, shlex, sys
import torch
from tesela.cli.main import run

for line in sys.stdin:
    words = shlex.split(line)[1:]
    words = [one for word in words for one in (sorted(glob.glob(word)) if "*" in word else ()) or [word]]
    process = os.fork()
    if not process:
        said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(said, number)
        sys.exit(run(words))
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


def run_lines(lines: list[str], folder: Path) -> None:
    """Run commands in order, in a folder; a server is one process of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", COMMANDS],
        cwd=folder,
        env=environment(folder),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as commands:
        assert commands.stdin and commands.stdout
        for line in lines:
            if line.startswith("tesela serve"):
                serve(line, folder)
                continue
            print(line, file=commands.stdin, flush=True)
            code = commands.stdout.readline().strip()
            assert code == "0", f"{line}\n{(folder / 'said').read_text(encoding='utf-8')[-4000:]}"
        commands.stdin.close()


def serve(line: str, folder: Path) -> None:
    """Start the server on a free port (other pages run beside it), ask how it is, stop it with SIGTERM."""
    with subprocess.Popen(
        f"exec {line} --port 0 --json",
        shell=True,
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout
        try:
            address = json.loads(server.stdout.readline())["address"]
            with urllib.request.urlopen(f"{address}/healthz", timeout=30) as answer:
                assert answer.status == 200
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_runs(page: Path, place: Path) -> None:
    """Lines of sh blocks that start with tesela, in order (comments excepted).

    Then the Python blocks, which may use what those wrote.
    """
    lines = [line.split("#")[0].strip() for block in blocks(page, "sh") for line in block.splitlines()]
    run_lines([line for line in lines if line.startswith("tesela ")], place)
    for block in blocks(page, "python"):
        done = subprocess.run(
            [sys.executable, "-c", block],
            cwd=place,
            capture_output=True,
            text=True,
            env=environment(place),
            timeout=300,
        )
        assert done.returncode == 0, f"{block}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_example_runs(example: Path, tmp_path: Path) -> None:
    words = [sys.executable, str(example), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(tmp_path), timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    accuracy = re.search(r"accuracy (0\.\d+)", done.stdout)
    assert accuracy
    assert float(accuracy.group(1)) >= 0.9
