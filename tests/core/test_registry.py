"""The registry: lazy targets, double names, unknown names."""

from __future__ import annotations

import json

import pytest

from tesela.core import registry
from tesela.core.errors import UnknownNameError


@pytest.fixture(autouse=True)
def own_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_entries", {})


def test_a_target_is_imported_when_it_is_loaded() -> None:
    registry.register("tool", "dumps", target="json:dumps", summary="to JSON")
    registry.register("tool", "later", target="no.such.module:thing")
    assert registry.names("tool") == ["dumps", "later"]
    assert registry.lookup("tool", "dumps").load() is json.dumps
    with pytest.raises(ModuleNotFoundError):
        registry.lookup("tool", "later").load()


def test_a_name_is_given_once() -> None:
    registry.register("tool", "a", target="json:dumps")
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("tool", "a", target="json:loads")


def test_a_target_names_module_and_attribute() -> None:
    with pytest.raises(ValueError, match="module:attribute"):
        registry.register("tool", "a", target="json.dumps")


def test_an_unknown_name_offers_the_nearest() -> None:
    registry.register("tool", "hammer", target="json:dumps")
    with pytest.raises(UnknownNameError) as caught:
        registry.lookup("tool", "hamer")
    assert (caught.value.message, caught.value.hint) == ("unknown tool 'hamer'", "did you mean hammer?")


def test_a_decorator_registers_the_configuration() -> None:
    @registry.registered_config("tool", "saw", target="json:loads", summary="cuts")
    class Saw:
        pass

    entry = registry.lookup("tool", "saw")
    assert (entry.config, entry.summary, entry.load()) == (Saw, "cuts", json.loads)
