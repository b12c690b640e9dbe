"""Configuration: what is read, what is refused and what the user is told.

Expected values are written out by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from tesela.core.config import build, field_docs, leaves, nest, read_yaml, to_mapping, to_yaml
from tesela.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    rate: float = 0.5
    """How fast."""
    name: Literal["fast", "slow"] = "fast"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    size: tuple[int, int] = (1, 2)
    names: tuple[str, ...] = ()
    count: int | None = None
    """How many,
    in two lines."""
    flag: bool = False
    batch: int | Literal["auto"] = "auto"
    extra: dict[str, float] = field(default_factory=dict)


def test_later_layers_win_and_keep_what_they_do_not_name() -> None:
    outer = build(Outer, {"inner": {"rate": 1, "name": "slow"}}, {"inner.rate": "0.25"}, {"count": "7"})
    assert outer == Outer(inner=Inner(rate=0.25, name="slow"), count=7)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"size": "3x4"}, Outer(size=(3, 4))),
        ({"size": "3,4"}, Outer(size=(3, 4))),
        ({"size": 5}, Outer(size=(5, 5))),
        ({"size": [6, 7]}, Outer(size=(6, 7))),
        ({"size": "[6, 7]"}, Outer(size=(6, 7))),
        ({"names": "sky,road"}, Outer(names=("sky", "road"))),
        ({"names": "[sky, traffic light]"}, Outer(names=("sky", "traffic light"))),
        ({"names": "[]"}, Outer(names=())),
        ({"flag": "yes"}, Outer(flag=True)),
        ({"flag": False}, Outer(flag=False)),
        ({"count": "none"}, Outer(count=None)),
        ({"batch": "64"}, Outer(batch=64)),
        ({"batch": "auto"}, Outer(batch="auto")),
        ({"count": 3.0}, Outer(count=3)),
        ({"extra": {"a": 1.5}}, Outer(extra={"a": 1.5})),
    ],
)
def test_words_become_typed_values(given: dict[str, object], expected: Outer) -> None:
    assert build(Outer, given) == expected


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"inner.rat": 1}, "unknown key 'inner.rat'", "did you mean rate?"),
        ({"cuont": 1}, "unknown key 'cuont'", "did you mean count?"),
        ({"inner.rate": "quick"}, "inner.rate must be a number, not 'quick'", "give a number"),
        ({"inner.name": "slwo"}, "inner.name cannot be 'slwo'", "did you mean slow?"),
        ({"count": 1.5}, "count must be a whole number, not 1.5", "give a whole number"),
        ({"count": True}, "count must be a whole number, not True", "give a whole number"),
        ({"size": [1, 2, 3]}, "size needs 2 values, not 3", "write size a,b"),
        ({"inner": 3}, "inner must be Inner, not 3", "give Inner"),
        ({"flag": "perhaps"}, "flag must be true or false, not 'perhaps'", "give true or false"),
    ],
)
def test_wrong_input_is_named_with_its_cure(given: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Outer, given)
    assert (caught.value.message, caught.value.hint, caught.value.exit_code) == (message, hint, 2)


def test_a_key_cannot_be_a_value_and_a_group() -> None:
    with pytest.raises(ConfigError, match="has a value already"):
        nest({"inner": 1, "inner.rate": 2})


def test_mapping_and_yaml_give_the_same_configuration_back(tmp_path: Path) -> None:
    outer = Outer(inner=Inner(rate=0.1, name="slow"), size=(8, 9), count=3, extra={"b": 2.0})
    assert build(Outer, to_mapping(outer)) == outer
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(outer), encoding="utf-8")
    assert build(Outer, read_yaml(path)) == outer


def test_yaml_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    with pytest.raises(ConfigError, match="there is no configuration file"):
        read_yaml(path)
    path.write_text("a: [1\nb: 2", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"not valid YAML \(line 2\)"):
        read_yaml(path)
    path.write_text("- 1\n- 2", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds no mapping"):
        read_yaml(path)
    path.write_text("!!python/object/apply:os.system ['true']", encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_yaml(path)


def test_field_docstrings_become_help() -> None:
    assert field_docs(Outer) == {"count": "How many,\nin two lines."}
    found = {leaf.name: (leaf.default, leaf.help) for leaf in leaves(Outer)}
    assert found["inner.rate"] == (0.5, "How fast.")
    assert list(found) == ["inner.rate", "inner.name", "size", "names", "count", "flag", "batch", "extra"]
