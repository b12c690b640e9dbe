"""Hints name only verbs and options that exist, on the verb where they are read.

Every hint in the source is collected: keyword arguments ``hint=`` and the texts of functions that make them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tesela.cli.main import VERBS, make_app
from tesela.cli.verbs.train import flag_name
from tesela.core.config import leaves
from tesela.training.config import TrainConfig, objective_fields

SOURCE = Path(__file__).parents[2] / "src" / "tesela"
OPTION = re.compile(r"(?<![\w-])--([a-z][\w.-]*[\w])")
COMMAND = re.compile(r"\btesela ([a-z]+)\b")
#: Rooms whose hints are read on one verb only.
ROOMS = {
    "training": "train",
    "recipes": "train",
    "studies": "study",
    "serve": "serve",
    "attribution": "explain",
    "exporters": "export",
    "inspection": "inspect",
}
#: Hints of shared rooms that are read on one verb only.
ON_TRAIN = ("augment.", "decoder.")
#: Options that every verb has under which such a hint is read.
COMMON = {"out", "split", "device"}
#: Options of other programs that hints spell out.
FOREIGN = {"local-dir", "key"}
#: Words that follow the program's name where it is no command.
WORDS = ("bundle", "version")


@cache
def options(verb: str) -> frozenset[str]:
    """Names of a verb's options without dashes, with those of its own verbs."""
    app = make_app()[verb]
    found: set[str] = {"help", "debug", "version"}
    apps = [app]
    for name in ("check", "show", "split", "pack", "suggest"):
        if verb in ("data", "label", "models") and name in list(app):
            apps.append(app[name])
    for one in apps:
        if one.default_command is not None:
            for argument in one.assemble_argument_collection():
                found |= {name.lstrip("-") for name in argument.names if name.startswith("--")}
    if verb == "train":
        found |= {flag_name(leaf.name) for leaf in (*leaves(TrainConfig), *objective_fields().values())}
    return frozenset(found)


def texts(node: ast.expr) -> str:
    """The constant parts of a string expression, what is filled in as ``VALUE``."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(texts(part) if isinstance(part, ast.Constant) else "VALUE" for part in node.values)
    if isinstance(node, ast.BinOp):
        return texts(node.left) + texts(node.right)
    if isinstance(node, ast.IfExp):
        return f"{texts(node.body)} {texts(node.orelse)}"
    return ""


def hints() -> Iterator[tuple[str, str]]:
    """(file and line, text) of each hint."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "hint" and texts(node.value):
                place = f"{path.relative_to(SOURCE).as_posix()}:{node.value.lineno}"
                yield place, texts(node.value)


HINTS = list(hints())
NAMES = [name for name, *_ in VERBS]


def exists(option: str, verb: str) -> bool:
    """Whether a verb takes an option, however its words are joined."""
    name = option.replace("_", "-")
    free = verb == "train" and name.split(".")[0] in ("net", "decoder", "objective")
    known = {one.replace("_", "-") for one in options(verb)}
    return name in known or free


def verbs_of(place: str, before: str, option: str) -> list[str]:
    """The verbs on which an option is to be typed: named before it, or those that reach the hint's room."""
    named = [verb for verb in COMMAND.findall(before) if verb in NAMES]
    parts = place.split("/")
    if named:
        return named[-1:]
    if parts[:2] == ["cli", "verbs"]:
        return [parts[2].split(".")[0]]
    if parts[0] in ROOMS:
        return [ROOMS[parts[0]]]
    return ["train"] if option.startswith(ON_TRAIN) else NAMES if option in COMMON else []


def test_there_are_hints_and_options() -> None:
    """The collection itself finds what is known to be there."""
    assert len(HINTS) > 200
    assert {"split", "top", "batch-size"} <= options("evaluate") and "optim.lr" in options("train")
    assert not exists("nonsense", "train") and exists("data.val_fraction", "train")


@pytest.mark.parametrize(("place", "text"), HINTS, ids=[place for place, _ in HINTS])
def test_a_hint_names_what_exists(place: str, text: str) -> None:
    for verb in COMMAND.findall(text):
        assert verb in (*NAMES, *WORDS), f"there is no verb {verb}: {text}"
    for found in OPTION.finditer(text):
        option = found[1]
        if option not in FOREIGN:
            verbs = verbs_of(place, text[: found.start()], option)
            assert any(exists(option, verb) for verb in verbs), f"no --{option} on {', '.join(verbs)}: {text}"


def test_what_is_given_by_its_place_is_no_option() -> None:
    """No verb offers ``--run`` beside RUN: two ways to say one thing, and one that stops other arguments."""
    app = make_app()
    apps = [app[name] for name in NAMES] + [app["data"][name] for name in ("check", "show", "split")]
    for one in apps:
        if one.default_command is not None and one.name != ("train",):
            for argument in one.assemble_argument_collection():
                placed = argument.index is not None
                assert not (placed and any(name.startswith("--") for name in argument.names)), argument.names
