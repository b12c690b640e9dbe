"""Rules of the house that a reader relies on.

No circles, small folders, one meaning per name, plain first lines.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "tesela"
FILES = sorted(path for path in SOURCE.rglob("*.py"))
FOLDERS = ("src", "tests", "benchmarks", "scripts", "examples")
#: Commands are named like the functions that they call, and the public verbs like the functions that do the
#: work.
VERBS = ("cli/verbs/", "api.py", "answers.py")
#: A name that each module of a kind has: a family's table of sizes.
SHARED_NAMES = {"MODELS", "DECODERS", "CLASSES", "Row"}
#: Words of model hubs' and file formats' own vocabularies, which are no decision about a task.
HUB_WORDS = {"image-classification"}


def relative(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_imports_have_no_circle() -> None:
    """Tarjan's strongly connected components over modules, imports for types only left out."""
    graph = grimp.build_graph("tesela", exclude_type_checking_imports=True, cache_dir=None)
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for other in graph.find_modules_directly_imported_by(module):
            if other not in order:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], order[other])
        if lowest[module] == order[module]:
            circle = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(circle) > 1:
                circles.append(sorted(circle))

    for module in sorted(graph.modules):
        if module not in order:
            visit(module)
    assert circles == []


def test_folders_are_small() -> None:
    counts = {
        folder: len([path for path in folder.glob("*.py") if path.name != "__init__.py"])
        for folder in {path.parent for path in FILES}
    }
    assert {str(folder): count for folder, count in counts.items() if count > 15} == {}


def test_a_public_name_means_one_thing() -> None:
    places = defaultdict(list)
    for path in FILES:
        if relative(path).startswith(VERBS):
            continue
        for node in tree(path).body:
            names: list[str] = []
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
                names = [node.name]
            elif isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names = [node.target.id]
            for name in names:
                if not name.startswith("_") and name not in SHARED_NAMES:
                    places[name].append(relative(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if not relative(path).startswith(("cli/", "api.py", "answers.py"))],
    ids=relative,
)
def test_lower_rooms_do_not_import_the_package(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            assert "tesela" not in {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.module != "tesela"


@pytest.mark.parametrize(
    "path", [path for path in FILES if not relative(path).startswith(("tasks/", "cli/"))], ids=relative
)
def test_only_tasks_name_tasks(path: Path) -> None:
    """No string or name outside ``tasks/`` decides by what is learned.

    Help texts and docstrings may speak of it.
    """
    names = re.compile(r"^(classify|segment|pretrain|distill)$")
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Compare):
            words = [part for part in ast.walk(node) if isinstance(part, ast.Constant)]
            assert not [
                word.value for word in words if isinstance(word.value, str) and names.match(word.value)
            ]
        if isinstance(node, ast.ImportFrom) and node.module:
            assert not node.module.startswith("tesela.tasks.classification"), ast.unparse(node)


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_private_parts_of_torch_stand_in_one_file(path: Path) -> None:
    if relative(path) == "hardware/torch_private.py":
        return
    private = {"_modules", "_parameters", "_buffers", "_iterator", "_shutdown_workers"}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            whole = ast.unparse(node)
            assert node.attr not in private, whole
            assert not re.match(r"torch(\.\w+)*\._[a-z]", whole), whole
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch"):
            assert not [alias.name for alias in node.names if alias.name.startswith("_")]


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_the_first_line_says_what_it_is(path: Path) -> None:
    """A noun phrase or an imperative of at most 90 characters."""
    first = (ast.get_docstring(tree(path)) or "").splitlines()[0]
    assert len(first) <= 90, first
    assert not re.match(r"(What|Where|How|Which|Whether|Why|When)\b", first), first


@pytest.mark.parametrize(
    "path",
    sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")),
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_lines_are_at_most_110_columns(path: Path) -> None:
    """But for addresses and for what a checker is told at the end of a line."""
    lines = [
        re.sub(r"  # (type: ignore|noqa|fmt).*", "", line)
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert [number for number, line in enumerate(lines, 1) if len(line) > 110 and "http" not in line] == []
