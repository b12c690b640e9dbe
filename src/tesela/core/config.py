"""Typed configuration: frozen dataclasses from mappings, YAML and ``key=value`` words.

Unknown keys are refused.

A component owns its dataclass; the docstring under a field is its help text; ``__post_init__`` checks values
and says the fix. Later layers win: defaults, recipe, file, command line. Unknown keys fail with the nearest
name.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from tesela.core.errors import ConfigError, suggestion

_C = TypeVar("_C")
Tree = dict[str, Any]


def build(config: type[_C], *layers: Mapping[str, Any]) -> _C:
    """Make a ``config`` from nested or dotted mappings; values of later layers win.

    Raises:
        ConfigError: an unknown key, a wrong type, or what the class itself refuses.
    """
    merged: Tree = {}
    for layer in layers:
        merge(merged, nest(layer))
    return _read(config, merged, "")


def merge(target: Tree, extra: Mapping[str, Any]) -> Tree:
    """Put the nested mapping ``extra`` over ``target``, in place."""
    for key, value in extra.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = merge({}, value) if isinstance(value, Mapping) else value
    return target


def nest(flat: Mapping[str, Any]) -> Tree:
    """``{"optim.lr": 1}`` as ``{"optim": {"lr": 1}}``; keys that are nested already stay so."""
    tree: Tree = {}
    for key, value in flat.items():
        *path, last = str(key).replace("-", "_").split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ConfigError(
                    f"{key!r} is below {part!r}, which has a value already",
                    hint=f"give either {part} or {key}",
                )
        merge(node, {last: nest(value) if isinstance(value, Mapping) else value})
    return tree


def to_mapping(config: Any) -> Tree:
    """The configuration as plain nested dictionaries, lists and scalars, ready for YAML or JSON."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def read_yaml(path: Path) -> Tree:
    """The mapping in a YAML file (safe loading only).

    Raises:
        ConfigError: the file is missing, is not YAML, or is not a mapping.
    """
    try:
        stream = path.open(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {path}", hint="check the path") from None
    import yaml  # a prediction from a program has no such file, and need not load this

    try:
        with stream:
            value = yaml.safe_load(stream.read())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        where = f" (line {place.line + 1})" if place else ""
        raise ConfigError(
            f"{path} is not valid YAML{where}", hint="mend the file; indentation counts"
        ) from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds no mapping", hint="write lines of the form 'key: value'")
    return value


def to_yaml(config: Any) -> str:
    """The configuration as YAML text, fields in the order of the class."""
    import yaml

    return yaml.safe_dump(to_mapping(config), sort_keys=False, allow_unicode=True)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Leaf:
    """One settable value of a configuration tree: its dotted name, type, default and help."""

    name: str
    type: Any
    default: Any
    help: str


def leaves(config: type[Any], *, prefix: str = "") -> Iterator[Leaf]:
    """Every settable value below ``config``, depth first, with the docstring under the field as help."""
    hints = typing.get_type_hints(config)
    texts = field_docs(config)  # type: ignore[arg-type, unused-ignore]
    for field in dataclasses.fields(config):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield from leaves(kind, prefix=f"{prefix}{field.name}.")
        else:
            yield Leaf(
                name=prefix + field.name, type=kind, default=_default(field), help=texts.get(field.name, "")
            )


@functools.cache
def field_docs(config: type[Any]) -> dict[str, str]:
    """The string literal under each field of a dataclass, by field name; base classes included."""
    found: dict[str, str] = {}
    for base in reversed(config.__mro__):
        if dataclasses.is_dataclass(base):
            body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]).body
            for statement, after in itertools.pairwise(body):
                if (
                    isinstance(statement, ast.AnnAssign)
                    and isinstance(statement.target, ast.Name)
                    and _is_text(after)
                ):
                    found[statement.target.id] = inspect.cleandoc(after.value.value)  # type: ignore[attr-defined]
    return found


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_mapping(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def _read(config: type[_C], tree: Mapping[str, Any], prefix: str) -> _C:
    hints = typing.get_type_hints(config)
    fields = {field.name: field for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    for key in tree:
        if key not in fields:
            raise ConfigError(f"unknown key {prefix + key!r}", hint=suggestion(key, fields))
    values: Tree = {}
    for name, value in tree.items():
        values[name] = convert_value(hints[name], value, prefix + name)
    missing = [name for name, field in fields.items() if name not in values and _required(field)]
    if missing:
        raise ConfigError(f"{prefix + missing[0]!r} has no value", hint=f"give {prefix + missing[0]}")
    return config(**values)


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def convert_value(kind: Any, value: Any, name: str) -> Any:
    """``value`` (of YAML, JSON or a word of the command line) as ``kind``.

    Raises:
        ConfigError: it does not fit; the message names ``name`` and what would fit.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if isinstance(value, kind):
            return value
        if isinstance(value, Mapping):
            return _read(kind, value, name + ".")
    elif origin in (Union, types.UnionType):
        return _convert_union(arguments, value, name)
    elif origin is Literal:
        for choice in arguments:
            if value == choice or str(value) == str(choice):
                return choice
        choices = [str(choice) for choice in arguments]
        raise ConfigError(f"{name} cannot be {value!r}", hint=suggestion(str(value), choices))
    elif origin in (tuple, list):
        return _convert_sequence(origin, arguments, value, name)
    elif origin is dict or kind is dict:
        if isinstance(value, Mapping):
            return dict(value)
    else:
        fitted = _convert_scalar(kind, value)
        if fitted is not None:
            return fitted
    raise ConfigError(f"{name} must be {_describe(kind)}, not {value!r}", hint=f"give {_describe(kind)}")


def _convert_union(arguments: tuple[Any, ...], value: Any, name: str) -> Any:
    if type(None) in arguments and (value is None or value in ("none", "null")):
        return None
    options = [argument for argument in arguments if argument is not type(None)]
    last: ConfigError | None = None
    for option in options:
        try:
            return convert_value(option, value, name)
        except ConfigError as error:
            last = error
    if len(options) == 1 and last is not None:
        raise last
    wanted = " or ".join(_describe(option) for option in arguments)
    raise ConfigError(f"{name} must be {wanted}, not {value!r}", hint=f"give {wanted}")


def _convert_sequence(origin: type, arguments: tuple[Any, ...], value: Any, name: str) -> Any:
    if isinstance(value, str):
        value = _parts(value, numeric=_numeric(arguments))
    if not isinstance(value, (list, tuple)):
        value = [value]
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) == 1 and len(arguments) == 2:
            value = [value[0], value[0]]
        if len(value) != len(arguments):
            raise ConfigError(
                f"{name} needs {len(arguments)} values, not {len(value)}", hint=f"write {name} a,b"
            )
        return tuple(convert_value(kind, item, name) for kind, item in zip(arguments, value, strict=True))
    kind = arguments[0] if arguments else Any
    return origin(convert_value(kind, item, name) for item in value)


def _parts(text: str, *, numeric: bool) -> list[str]:
    """The values of a word such as ``1,2``, ``32x32`` or ``[sky, road]``."""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    if numeric:
        return [part for part in text.replace("x", ",").split(",") if part.strip()]
    return [part.strip() for part in text.split(",")] if text.strip() else []


def _numeric(arguments: tuple[Any, ...]) -> bool:
    return any(argument in (int, float) for argument in arguments)


_WORDS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def _convert_scalar(kind: Any, value: Any) -> Any:
    if kind is bool:
        return value if isinstance(value, bool) else _WORDS.get(str(value).lower())
    if isinstance(value, bool):
        return None
    if kind in (int, float):
        return _convert_number(kind, value)
    if kind is str:
        return (
            value if isinstance(value, str) else str(value) if isinstance(value, (int, float, Path)) else None
        )
    if kind is Path:
        return Path(value) if isinstance(value, (str, Path)) else None
    return value if isinstance(kind, type) and isinstance(value, kind) else None


def _convert_number(kind: type, value: Any) -> Any:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if kind is float:
        return number
    return int(value) if isinstance(value, int) else int(number) if number.is_integer() else None


def _describe(kind: Any) -> str:
    known = {
        int: "a whole number",
        float: "a number",
        str: "text",
        bool: "true or false",
        Path: "a path",
        type(None): "none",
    }
    if kind in known:
        return known[kind]
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(kind))
    if typing.get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_describe(part) for part in typing.get_args(kind))
    return getattr(kind, "__name__", str(kind))
