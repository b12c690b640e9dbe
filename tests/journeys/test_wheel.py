"""A user's way with the built wheel, in an environment of its own: nothing of ``src/`` is on the path.

The wheel is installed without its dependencies, which are lent by the environment of the tests. Demo, report
in a real browser, server with its page, prediction; and what errors look like from outside, for every verb.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import urllib.request
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
BUILT = ("pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what belongs to the project, so that building writes nothing into it."""
    folder = tmp_path_factory.mktemp("source") / "tesela"
    left = {".git", ".venv", "runs", "dist", "site", "node_modules"}

    def others(place: str, names: list[str]) -> list[str]:
        caches = [name for name in names if name.endswith(("_cache", "__pycache__", ".hypothesis"))]
        return [*caches, *(left & set(names) if Path(place) == ROOT else ())]

    shutil.copytree(ROOT, folder, ignore=others)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    """The built wheel."""
    subprocess.run([sys.executable, "-m", *BUILT, "-w", "dist", "."], cwd=source, check=True)
    (found,) = (source / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def tesela(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in an environment that has the wheel, and the dependencies of the tests' environment."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(place / "bin/python"), "install", "--quiet"),
            *("--no-deps", "--disable-pip-version-check", str(wheel)),
        ],
        check=True,
    )
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place / "bin/tesela"


def run(command: Path, *words: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, with nothing of the tests' environment variables that name modules."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([command, *words], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


def test_the_package_is_that_of_the_wheel(tesela: Path, tmp_path: Path) -> None:
    code = "import tesela; print(tesela.__file__)"
    done = run(tesela.with_name("python"), "-c", code, cwd=tmp_path)
    assert done.stdout.startswith(str(tesela.parents[1]))
    assert "Usage: tesela" in run(tesela, "--help", cwd=tmp_path).stdout


def test_files_of_the_wheel(wheel: Path, source: Path) -> None:
    """Every file of the package and nothing else: templates, styles, the page, the mark for types."""
    names = zipfile.ZipFile(wheel).namelist()
    mine = {name for name in names if name.startswith("tesela/")}
    assert mine == {
        path.relative_to(source / "src").as_posix()
        for path in (source / "src/tesela").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"tesela/py.typed", "tesela/serve/static/index.html"} <= mine
    assert any(name.endswith(".j2") for name in mine)
    assert {name.split("/")[0] for name in names} == {"tesela", "tesela-0.1.0.dist-info"}


def test_files_of_the_source_distribution(source: Path) -> None:
    code = "from hatchling.build import build_sdist; print(build_sdist('dist'))"
    name = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True
    )
    with tarfile.open(source / "dist" / name.stdout.strip().splitlines()[-1]) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers()}
    assert {"README.md", "LICENSE", "pyproject.toml", "src/tesela/py.typed", "tests/conftest.py"} <= names
    assert not [entry for entry in names if entry.startswith((".venv", "runs", "dist", ".git/"))]


@pytest.fixture(scope="module")
def demo(tesela: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``tesela demo`` leaves behind, with few epochs."""
    folder = tmp_path_factory.mktemp("user")
    run(tesela, "demo", "--out", "demo", "--epochs", "6", cwd=folder)
    return folder / "demo"


def test_the_report_opens_in_a_browser(demo: Path, tmp_path: Path) -> None:
    """A page with its text and pictures, right for a light and a dark screen, and nothing from elsewhere."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("a browser is needed: apt-get install chromium")
        pytest.skip("no Chromium here: the report was not opened")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    page = (demo / "report.html").as_uri()
    dom = subprocess.run(
        [CHROMIUM, *options, "--dump-dom", page], capture_output=True, text=True, timeout=120
    )
    assert "vit_nano on digits" in dom.stdout
    assert dom.stdout.count("<img") > 20 and dom.stdout.count("<svg") >= 3
    shades = []
    for scheme in ("1", "0"):  # light, dark
        picture = tmp_path / f"{scheme}.png"
        subprocess.run(
            [
                *(CHROMIUM, *options, f"--blink-settings=preferredColorScheme={scheme}"),
                *("--window-size=1200,900", f"--screenshot={picture}", page),
            ],
            capture_output=True,
            timeout=120,
            check=True,
        )
        with Image.open(picture) as shot:
            shades.append(int(np.asarray(shot.convert("L"))[5, 5]))
    assert shades[0] > 200 > 80 > shades[1]


def test_a_photograph_is_predicted(tesela: Path, demo: Path) -> None:
    image = next((demo / "examples").glob("*.png"))
    done = run(tesela, "predict", str(demo), str(image), "--json", cwd=demo)
    (answer,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert answer["label"] in "0123456789"


def test_the_server_and_its_page(tesela: Path, demo: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [str(tesela), "serve", str(demo), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=demo) as process:
        try:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())["address"]
            with urllib.request.urlopen(f"{address}/", timeout=30) as answer:
                assert b"<title>" in answer.read()
            with urllib.request.urlopen(f"{address}/healthz", timeout=30) as answer:
                assert answer.status == 200
            image = next((demo / "examples").glob("*.png")).read_bytes()
            request = urllib.request.Request(
                f"{address}/v1/classify", image, {"content-type": "image/png"}, method="POST"
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert json.load(answer)["label"] in "0123456789"
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


#: Verb, words and exit code (cli.md): 2 is for what the user gave, 1 for what went wrong with it.
WRONG = [
    (["train", "nowhere"], 2),
    (["evaluate", "nowhere"], 2),
    (["predict", "nowhere", "image.png"], 2),
    (["explain", "nowhere", "image.png"], 2),
    (["inspect", "nowhere"], 2),
    (["export", "nowhere", "--to", "onnx"], 2),
    (["convert", "nowhere", "bundle"], 2),
    (["compare", "nowhere"], 2),
    (["serve", "nowhere"], 2),
    (["bench", "nowhere"], 2),
    (["data", "check", "nowhere"], 2),
    (["models", "show", "nowhere"], 2),
    (["demo", "--out", "taken"], 2),
    (["train", "digits", "--epocs", "3"], 2),
    (["nothing"], 2),
]


@pytest.mark.parametrize(("words", "code"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_errors_are_two_lines(words: list[str], code: int, tesela: Path, tmp_path: Path) -> None:
    """What is wrong, and a hint how to mend it, on standard error; no traceback."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").write_text("mine")
    done = run(tesela, *words, cwd=tmp_path, code=code)
    lines = done.stderr.strip().splitlines()
    assert lines[-2].startswith("error: ") and lines[-1].startswith("hint: "), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
