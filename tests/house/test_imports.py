"""What is imported when.

Nothing heavy for help, no torch where a board has none, and how long the start takes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tesela

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "kornia", "matplotlib", "pyarrow", "torchmetrics", "sklearn", "fastapi")
LIGHT = (
    "tesela",
    "tesela.cli.main",
    "tesela.cli.verbs.bench",
    "tesela.cli.verbs.several.compare",
    "tesela.cli.verbs.several.study",
    "tesela.cli.verbs.convert",
    "tesela.cli.verbs.data",
    "tesela.cli.verbs.demo",
    "tesela.cli.verbs.doctor",
    "tesela.cli.verbs.evaluate",
    "tesela.cli.verbs.explain",
    "tesela.cli.verbs.export",
    "tesela.cli.verbs.inspect",
    "tesela.cli.verbs.models",
    "tesela.cli.verbs.predict",
    "tesela.cli.verbs.serve",
    "tesela.cli.verbs.train",
    "tesela.core.config",
    "tesela.core.files",
    "tesela.data.config",
    "tesela.imaging.decode",
    "tesela.imaging.preprocess",
    "tesela.models.bundle",
    "tesela.models.catalog",
    "tesela.checkpoints.open",
    "tesela.recipes",
    "tesela.runtime.predictor",
    "tesela.studies",
    "tesela.training.config",
)


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout


@pytest.mark.parametrize("module", LIGHT)
def test_module_starts_without_heavy_libraries(module: str) -> None:
    loaded = json.loads(run_python(f"import json, sys, {module}; print(json.dumps(list(sys.modules)))"))
    assert [heavy for heavy in HEAVY if heavy in loaded] == []


def test_help_and_list_of_models_are_quick() -> None:
    """Performance P10 as a ratio.

    A start of the bare interpreter with NumPy is the unit, since machines differ.
    """

    def seconds(*words: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True, cwd=ROOT)
        return time.perf_counter() - started

    pairs = [
        (seconds("-c", "import rich.table, numpy"), seconds("-m", "tesela", *words))
        for words in (["--help"], ["models"])
        for _ in range(5)
    ]
    unit = statistics.median(pair[0] for pair in pairs)
    assert statistics.median(pair[1] for pair in pairs) <= 4 * unit


def test_public_names_exist() -> None:
    """Every name in ``__all__`` can be had, and the list is sorted."""
    assert tesela.__all__ == sorted(tesela.__all__)
    for public in tesela.__all__:
        assert getattr(tesela, public) is not None
    with pytest.raises(AttributeError, match="has no attribute"):
        getattr(tesela, "nothing_of_this_name")  # noqa: B009
