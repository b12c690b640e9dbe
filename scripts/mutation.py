"""Plant single faults into the code and report how many of them the tests notice.

    python scripts/mutation.py --sample 100 --seed 0

A fault changes one operator, comparison, constant, condition or return value of ``src/tesela``. It is
planted into a copy of the project, so that nothing is left behind when this is killed. First the fast lane
runs once with coverage by test; then each fault meets the tests that reach its line (at most ``--most``,
those of the mirrored folder first), and if none of them notices, the slow tests of that folder. The first
failure, crash or timeout ends it.

mutmut and cosmic-ray plant every fault of the modules they are given. This draws a seeded sample from the
whole package, so that a run takes minutes and two runs can be compared.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

import coverage

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = ("-p", "no:cacheprovider", "--ignore=tests/house", "--ignore=tests/journeys")
LEFT = {".git", ".venv", "runs", "dist", "site", "node_modules"}
COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One change.

    Attributes:
        file: below the project.
        line: where.
        kind: what was done.
        before: the statement or expression as it was.
        after: as it is with the fault.
        text: the whole file with the fault.
        first: line where its statement begins.
        last: line where its statement ends; of a default in a signature, where the function does.
    """

    file: str
    line: int
    first: int
    last: int
    kind: str
    before: str
    after: str
    text: str


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Every fault that can be planted at a node, as what replaces it."""
    other: Any = copy.deepcopy(node)
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARED:
        other.ops[0] = COMPARED[type(node.ops[0])]()
        yield "comparison", other
    elif isinstance(node, ast.BinOp) and type(node.op) in COMPUTED:
        other.op = COMPUTED[type(node.op)]()
        yield "operator", other
    elif isinstance(node, ast.BoolOp):
        other.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and/or", other
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        if isinstance(node.operand, ast.Constant):  # an axis -1 and an axis 1 are often the same
            other.operand.value += 1
            yield "constant", other
        else:
            yield "negation", other.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        other.value = not node.value
        yield "constant", other
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        other.value = node.value + 1
        yield "constant", other
    elif isinstance(node, ast.IfExp):
        other.body, other.orelse = other.orelse, other.body
        yield "condition", other
    elif isinstance(node, ast.If):
        other.test = ast.UnaryOp(op=ast.Not(), operand=other.test)
        yield "condition", other
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        other.value = ast.Constant(value=None)
        yield "return", other
    elif isinstance(node, ast.Call) and len(node.args) == 2 and not any(map(_starred, node.args)):
        other.args = other.args[::-1]
        yield "arguments", other


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _starred(node: ast.AST) -> bool:
    return isinstance(node, ast.Starred)


def faults_of(path: Path) -> list[Fault]:
    """All faults of a file, types and docstrings left alone."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    skipped = {id(part) for node in ast.walk(tree) for part in _declarations(node)}
    begins = {id(part): node.lineno for node in ast.walk(tree) if isinstance(node, ast.stmt)
              for part in ast.walk(node)}  # fmt: skip
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    ends = {id(part): one.end_lineno or one.lineno for one in functions for part in ast.walk(one.args)}
    found = []
    for node in ast.walk(tree):
        if id(node) in skipped or not hasattr(node, "lineno"):
            continue
        for kind, other in changes(node):
            before = ast.unparse(node)
            after = ast.unparse(ast.fix_missing_locations(other))
            if before == after:
                continue
            planted = _planted(source, node, after, other)
            if planted is not None:
                found.append(
                    Fault(
                        file=str(path.relative_to(ROOT)),
                        line=node.lineno,
                        first=begins.get(id(node), node.lineno),
                        last=ends.get(id(node), node.lineno),
                        kind=kind,
                        before=before.splitlines()[0],
                        after=after.splitlines()[0],
                        text=planted,
                    )
                )
    return found


def _declarations(node: ast.AST) -> Iterator[ast.AST]:
    """Parts that compute nothing: types, decorators' options, and checks of lengths that always agree."""
    for decorator in getattr(node, "decorator_list", []):
        yield from ast.walk(decorator)
    if isinstance(node, ast.keyword) and node.arg in ("strict", "slots", "kw_only", "frozen", "daemon"):
        yield from ast.walk(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
        yield node.operand
    for name in ("annotation", "returns"):
        part = getattr(node, name, None)
        if isinstance(part, ast.AST):
            yield from ast.walk(part)
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        yield node
        yield node.test
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
        yield from ast.walk(node.value)


def _planted(source: str, node: Any, after: str, other: Any) -> str | None:
    """The source with an expression or a simple statement replaced; None where that is no valid program."""
    lines = source.splitlines(keepends=True)
    target: Any = node.test if isinstance(node, ast.If) else node
    text = ast.unparse(other.test) if isinstance(other, ast.If) else after
    if isinstance(target, ast.expr) and not isinstance(node, ast.If):
        text = f"({text})"
    begin = sum(len(line) for line in lines[: target.lineno - 1])
    begin += len(lines[target.lineno - 1].encode()[: target.col_offset].decode())
    end = sum(len(line) for line in lines[: target.end_lineno - 1])
    end += len(lines[target.end_lineno - 1].encode()[: target.end_col_offset].decode())
    planted = source[:begin] + text.replace("\n", " ") + source[end:]
    try:
        ast.parse(planted)
    except SyntaxError:
        return None
    return planted


class Reach:
    """Which tests reach a line, from one run of the fast lane.

    Args:
        place: a copy of the project, where the run happens.
        most: tests of a fault.
    """

    def __init__(self, place: Path, *, most: int) -> None:
        self.most, file = most, place / ".coverage"
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-n", "2", "-m", "not slow", *SKIPPED),
            *("--cov=src/tesela", "--cov-context=test", "--cov-report="),
        ]
        subprocess.run(command, cwd=place, env=environment(place), capture_output=True, check=True)
        self.data = coverage.CoverageData(str(file))
        self.data.read()
        self.lines: dict[str, dict[int, list[str]]] = {}

    def suites(self, fault: Fault) -> list[list[str]]:
        """Arguments of pytest in the order in which they are tried."""
        folder = mirrored(fault.file)
        reaching = sorted(self.tests(fault), key=lambda test: (not test.startswith(folder), test))
        near = [test for test in reaching if test.startswith(folder)][: self.most]
        far = [test for test in reaching if not test.startswith(folder)]
        random.Random(0).shuffle(far)
        chosen = [*near, *far][: self.most]
        return [words for words in (chosen, [folder, "-m", "slow"] if folder else []) if words]

    def tests(self, fault: Fault) -> set[str]:
        """Tests that run the statement of a fault; any line of its file, where it runs on import."""
        if fault.file not in self.lines:
            measured = next((name for name in self.data.measured_files() if name.endswith(fault.file)), "")
            self.lines[fault.file] = self.data.contexts_by_lineno(measured) if measured else {}
        known = self.lines[fault.file]
        reached = (name for line in range(fault.first, fault.last + 1) for name in known.get(line, []))
        found = {name.split("|")[0] for name in reached if name}
        return found or {name.split("|")[0] for names in known.values() for name in names if name}


def mirrored(file: str) -> str:
    """The folder of tests that mirrors a module's; empty if there is none."""
    module = Path(file).relative_to("src/tesela")
    folders = [Path("tests") / part for part in module.parents if part != Path()]
    return next((str(folder) for folder in folders if (ROOT / folder).is_dir()), "")


def environment(place: Path) -> dict[str, str]:
    """Variables with which a copy is tested."""
    shared = os.environ.get("TESELA_SHARED", str(ROOT.parent / "shared"))
    more = {"PYTHONPATH": str(place / "src"), "OMP_NUM_THREADS": "1", "TESELA_SHARED": shared}
    return {**os.environ, **more, "PYTHONDONTWRITEBYTECODE": "1"}


def noticed(fault: Fault, place: Path, reach: Reach, limit: float) -> bool:
    """Whether a suite fails, crashes or hangs with the fault planted into the copy at ``place``."""
    target = place / fault.file
    whole = target.read_text(encoding="utf-8")
    target.write_text(fault.text, encoding="utf-8")
    try:
        for words in reach.suites(fault):
            command = [sys.executable, "-m", "pytest", "-x", "-q", *SKIPPED, *words]
            try:
                done = subprocess.run(
                    command,
                    cwd=place,
                    env=environment(place),
                    capture_output=True,
                    timeout=limit,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return True
            if done.returncode not in (0, 5):  # 5: no test was chosen
                return True
        return False
    finally:
        target.write_text(whole, encoding="utf-8")


def copied(folder: Path) -> Path:
    """A copy of the project without its environment and its caches."""

    def left(place: str, names: list[str]) -> list[str]:
        caches = [name for name in names if name.endswith(("_cache", "__pycache__"))]
        return [*caches, *(LEFT & set(names) if Path(place) == ROOT else ())]

    shutil.copytree(ROOT, folder, ignore=left)
    return folder


def main() -> int:
    """Exit code 0 if at least the wanted share was noticed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sample", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one suite")
    parser.add_argument("--share", type=float, default=0.9, help="of the faults that must be noticed")
    parser.add_argument("--only", default="", help="part of the file names to choose from")
    parser.add_argument("--most", type=int, default=150, help="tests of one fault")
    options = parser.parse_args()
    files = [path for path in sorted((ROOT / "src/tesela").rglob("*.py")) if options.only in str(path)]
    every = [fault for path in files for fault in faults_of(path)]
    chosen = random.Random(options.seed).sample(every, min(options.sample, len(every)))
    print(f"{len(every):,} faults can be planted; {len(chosen)} are", flush=True)
    begin, missed = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(options.jobs) as pool:
        places: Queue[Path] = Queue()
        for number in range(options.jobs):
            places.put(copied(Path(scratch) / str(number)))
        reach = Reach(copied(Path(scratch) / "whole"), most=options.most)

        def tried(fault: Fault) -> bool:
            place = places.get()
            try:
                return noticed(fault, place, reach, options.limit)
            finally:
                places.put(place)

        for number, (fault, seen) in enumerate(zip(chosen, pool.map(tried, chosen), strict=True), 1):
            word = "noticed" if seen else "MISSED "
            print(
                f"{number:4} {word} {fault.file}:{fault.line} {fault.kind}: {fault.before} -> {fault.after}",
                flush=True,
            )
            missed += [] if seen else [fault]
    share = 1 - len(missed) / max(len(chosen), 1)
    result = {"planted": len(chosen), "noticed": len(chosen) - len(missed), "share": round(share, 3)}
    print(json.dumps({**result, "seconds": round(time.perf_counter() - begin)}))
    return 0 if share >= options.share else 1


if __name__ == "__main__":
    sys.exit(main())
