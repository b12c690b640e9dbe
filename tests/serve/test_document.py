"""The OpenAPI document against the server, with values from it and beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripts.hostile_images import jpeg
from starlette.testclient import TestClient
from tests.runtime.bundles import held_out
from tests.serve.clients import client

ROOT = Path(__file__).resolve().parents[2]
#: The server's own, as another test makes sure.
DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs" / "openapi.json").read_text("utf-8"))
IMAGE = held_out(1)[0][0]
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "number": (int, float),
    "integer": (int,),
    "null": (type(None),),
}
BODIES = st.one_of(
    st.sampled_from([IMAGE, IMAGE[:60], jpeg((8, 8)), b"", b"<html>"]),
    st.binary(max_size=200),
)
KINDS = st.sampled_from(
    [None, "image/png", "image/*", "application/octet-stream", "multipart/form-data", "text/html", "a" * 300]
)


@pytest.fixture(scope="module")
def api() -> Iterator[TestClient]:
    with client() as found:
        yield found


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value is what a schema says, by the words of JSON Schema that the document uses."""
    if "$ref" in schema:
        return fits(value, DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
    if "anyOf" in schema:
        return any(fits(value, one) for one in schema["anyOf"])
    if "type" in schema and not isinstance(value, TYPES[schema["type"]]):
        return False
    if isinstance(value, list):
        most = schema.get("maxItems", len(value))
        return schema.get("minItems", 0) <= len(value) <= most and all(
            fits(one, schema.get("items", {})) for one in value
        )
    if isinstance(value, dict):
        known = schema.get("properties", {})
        return set(schema.get("required", [])) <= set(value) and all(
            fits(one, known[name]) for name, one in value.items() if name in known
        )
    return True


def values_of(parameter: dict[str, Any]) -> st.SearchStrategy[str]:
    """Values of a parameter: of its own kind, or any text."""
    schema = parameter["schema"]
    schema = next((one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"), schema)
    if schema["type"] == "integer":
        low, high = int(schema.get("minimum", -5)), int(schema.get("maximum", 1000))
        own: st.SearchStrategy[str] = st.integers(low - 1, high + 1).map(str)
    elif schema["type"] == "number":
        own = st.floats(-0.5, 1.5).map(str)
    elif "pattern" in schema:
        own = st.from_regex(schema["pattern"], fullmatch=True)
    else:
        own = st.sampled_from(["digits", "graph", "one", "3"])
    return st.one_of(own, st.text(max_size=20))


def requests() -> st.SearchStrategy[dict[str, Any]]:
    """Any operation with any values and any body."""
    found = []
    for path, operations in DOCUMENT["paths"].items():
        if path == "/v1/segment":  # no such model here
            continue
        for method, operation in operations.items():
            parameters = operation.get("parameters", [])
            placed: dict[str, list[dict[str, Any]]] = {"path": [], "query": []}
            for parameter in parameters:
                placed[parameter["in"]].append(parameter)
            found.append(
                st.fixed_dictionaries(
                    {
                        "path": st.just(path),
                        "method": st.just(method),
                        "places": st.fixed_dictionaries(
                            {one["name"]: values_of(one) for one in placed["path"]}
                        ),
                        "query": st.fixed_dictionaries(
                            {}, optional={one["name"]: values_of(one) for one in placed["query"]}
                        ),
                        "body": BODIES if method == "post" else st.just(b""),
                        "kind": KINDS if method == "post" else st.none(),
                    }
                )
            )
    return st.one_of(found)


@given(asked=requests())
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_every_answer_is_one_that_the_document_names(api: TestClient, asked: dict[str, Any]) -> None:
    """The status, the content type and the body are as documented, whatever is asked."""
    address, named = asked["path"], True
    for name, value in asked["places"].items():
        named &= bool(re.fullmatch(r"\w+", value))
        address = address.replace("{" + name + "}", quote(value, safe="") or "0")
    headers = {} if asked["kind"] is None else {"content-type": asked["kind"]}
    method = asked["method"].upper()
    answer = api.request(method, address, params=asked["query"], content=asked["body"], headers=headers)
    assert answer.status_code < 500 or answer.status_code == 503, answer.text
    if not named and answer.status_code in (404, 405):  # a name may have become another address
        return
    documented = DOCUMENT["paths"][asked["path"]][asked["method"]]["responses"][str(answer.status_code)]
    kind = answer.headers["content-type"].partition(";")[0]
    if kind.endswith("json"):
        assert kind in documented["content"]
        assert fits(answer.json(), documented["content"][kind]["schema"])
