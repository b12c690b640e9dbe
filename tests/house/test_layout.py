"""The house rules, read off the source itself.

Lengths, names, calls that are not allowed, the page about the architecture.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "tesela"
FOLDERS = ("src", "tests", "benchmarks", "scripts", "examples")
FILES = sorted(
    path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts
)
PRODUCT = [path for path in FILES if SOURCE in path.parents]
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a file with its dotted name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", FILES, ids=name)
def test_file_is_short_and_named_for_something(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, "split it: one noun per file"
    assert path.stem not in NAMELESS


@pytest.mark.parametrize("path", PRODUCT, ids=name)
def test_file_starts_by_saying_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), (
        "a header of a few lines: what, how, what is odd"
    )


@pytest.mark.parametrize("path", PRODUCT, ids=name)
def test_public_names_are_sorted(path: Path) -> None:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = ast.literal_eval(node.value)
            assert names == sorted(names)


@pytest.mark.parametrize("path", PRODUCT, ids=name)
def test_no_call_that_runs_code_from_data(path: Path) -> None:
    """Reliability R7: no pickle, eval, exec or unsafe YAML; torch.load only with weights_only=True."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not modules & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    for called, call in calls(path):
        assert called not in {
            "eval",
            "exec",
            "yaml.load",
            "yaml.unsafe_load",
            "yaml.full_load",
            "pickle.load",
            "torch.save",
        }
        if called == "torch.load":
            assert any(
                word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in call.keywords
            )
        if called in {"np.load", "numpy.load"}:
            assert not any(
                word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in call.keywords
            )


@pytest.mark.parametrize("path", [path for path in PRODUCT if path.name != "output.py"], ids=name)
def test_only_the_command_line_prints(path: Path) -> None:
    assert not [call.lineno for called, call in calls(path) if called == "print"]


def test_images_are_opened_in_one_place() -> None:
    """Reliability R10: one call site of Pillow's opener in the product."""
    sites = [
        name(path)
        for path in PRODUCT
        for called, _ in calls(path)
        if called in {"Image.open", "PIL.Image.open"}
    ]
    assert sites == ["src/tesela/imaging/decode.py"]


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b|NotImplemented" + "Error")
    assert [name(path) for path in FILES if marks.search(path.read_text(encoding="utf-8"))] == []


def test_the_architecture_page_equals_the_disk() -> None:
    """``python scripts/architecture.py`` writes it."""
    done = subprocess.run([sys.executable, "scripts/architecture.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "run: python scripts/architecture.py"


def test_slow_tests_exist() -> None:
    """Every line of slow.txt names a test function that is there."""
    lines = (ROOT / "tests" / "slow.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        if line.startswith("#") or not line:
            continue
        file, _, test = line.partition("::")
        assert (ROOT / file).is_file(), line
        assert not test or f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), line
