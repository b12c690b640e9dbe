"""Batches, models, attention and options of the API against the library called directly."""

from __future__ import annotations

import base64
import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient
from tests.runtime.bundles import LABELS, SPEC, digits, digits_run, held_out
from tests.serve.clients import client

from tesela.attribution.explain import explain
from tesela.imaging.preprocess import normalize, preprocess
from tesela.inspection.inspect import inspect
from tesela.layers.trace import Trace
from tesela.models.bundle import load_bundle
from tesela.runtime.predictor import Predictor
from tesela.serve.app import create_app
from tesela.serve.config import ServeConfig
from tesela.serve.looking.examples import example_images

PNG = {"content-type": "image/png"}
IMAGES = held_out(4)[0]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def api() -> Iterator[TestClient]:
    with client(max_parts=5) as found:
        yield found


def traced() -> list[torch.Tensor]:
    """Attention (heads, tokens, tokens) of each layer on the first image."""
    model, _ = load_bundle(digits_run() / "bundle")
    trace = Trace()
    with torch.no_grad():
        model(torch.from_numpy(preprocess(IMAGES[:1], SPEC)), trace=trace)
    return [record.dense()[0].double() for record in trace.attentions.values()]


def test_a_batch_answers_each_image_in_order(api: TestClient) -> None:
    """Three good images and a damaged one between: each as if sent alone, under its own name."""
    singles = [api.post("/v1/classify?top=3", content=image, headers=PNG).json() for image in IMAGES[:3]]
    files = [("image", (f"{index}.png", image)) for index, image in enumerate(IMAGES[:3])]
    files.insert(1, ("image", ("bad.png", IMAGES[0][:60])))
    body = api.post("/v1/classify?top=3", files=files).json()
    assert set(body) == {"model", "results"}
    assert [one["name"] for one in body["results"]] == ["0.png", "bad.png", "1.png", "2.png"]
    bad = body["results"].pop(1)
    assert bad["error"]["code"] == "truncated"
    assert set(bad["error"]) == {"code", "message", "hint"}
    for single, one in zip(singles, body["results"], strict=True):
        assert {name: value for name, value in one.items() if name not in ("name", "top", "probability")} == {
            name: value for name, value in single.items() if name not in ("top", "probability")
        }
        for left, right in zip(single["top"], one["top"], strict=True):
            assert left["label"] == right["label"]
            assert left["probability"] == pytest.approx(right["probability"], abs=1e-5)


def test_a_batch_has_a_limit_and_explanations_take_one_image(api: TestClient) -> None:
    files = [("image", ("a.png", IMAGES[0]))] * 6
    assert api.post("/v1/classify", files=files).json()["code"] == "bad_multipart"
    assert len(api.post("/v1/classify", files=files[:5]).json()["results"]) == 5
    assert len(api.post("/v1/classify", files=files[:1]).json()["results"]) == 1
    for path in ("/v1/explain", "/v1/attention", "/v1/heads"):
        assert api.post(path, files=files[:2]).json()["code"] == "bad_multipart"
        assert api.post(path, files=files[:1]).status_code == 200


def test_a_model_tells_all_of_itself(api: TestClient) -> None:
    listed = api.get("/v1/models").json()["models"]
    body = api.get("/v1/models/digits").json()
    model, info = load_bundle(digits_run() / "bundle")
    layers = traced()
    assert {name: body[name] for name in listed[0]} == listed[0]
    assert body["image"]["mean"] == list(SPEC.mean)
    assert body["image"]["interpolation"] == "bilinear"
    assert body["card"] == (digits_run() / "bundle/README.md").read_text("utf-8")
    assert body["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert (body["layers"], body["heads"]) == (len(layers), len(layers[0]))
    assert body["grid"][0] * body["grid"][1] <= layers[0].shape[-1]
    assert {"presence", "rollout", "gradcam"} <= set(body["methods"])
    assert "rise" not in body["methods"]
    assert body["explain_options"] == ["target", "layer", "head", "discard", "residual"]
    assert body["labels"] == LABELS == list(info.labels)
    assert (body["examples"], body["inspection"]["distance"]) == (0, None)  # nothing lies beside the bundle
    for name in ("filters", "positions"):
        with Image.open(io.BytesIO(base64.b64decode(body["inspection"][name]))) as sheet:
            assert len(np.unique(np.asarray(sheet))) > 10
    graph = api.get("/v1/models/graph").json()
    assert [graph[name] for name in ("parameters", "layers", "grid", "inspection", "methods")] == [
        None,
        None,
        None,
        None,
        [],
    ]
    assert api.get("/v1/models/none").json()["code"] == "unknown_model"


@pytest.fixture
def with_examples(tmp_path: Path) -> Path:
    """A run that has kept three test images beside its bundle, as an evaluation does."""
    shutil.copytree(digits_run() / "bundle", tmp_path / "run" / "bundle")
    np.savez_compressed(tmp_path / "run" / "predictions.npz", shown_images=digits()[0][1500:1503])
    return tmp_path / "run"


def test_example_images_and_attention_distances_of_a_run(with_examples: Path) -> None:
    """The images as they were kept; distances are those of ``tesela inspect`` on them."""
    model, _ = load_bundle(with_examples / "bundle")
    wanted = inspect(model, torch.from_numpy(normalize(digits()[0][1500:1503], SPEC))).distance
    assert wanted is not None
    with TestClient(create_app({"digits": Predictor(with_examples)}, config=ServeConfig(decoders=1))) as api:
        body = api.get("/v1/models/digits").json()
        assert body["examples"] == 3
        for number in range(3):
            answer = api.get(f"/v1/models/digits/examples/{number}")
            assert answer.headers["content-type"] == "image/png"
            pixels = np.asarray(Image.open(io.BytesIO(answer.content)))
            assert np.array_equal(pixels, digits()[0][1500 + number, :, :, 0])
        for path in ("digits/examples/3", "none/examples/0"):
            assert api.get(f"/v1/models/{path}").status_code == 404
        assert api.get("/v1/models/digits/examples/-1").status_code == 422
    np.testing.assert_allclose(body["inspection"]["distance"], wanted, atol=1e-3)
    config = ServeConfig(decoders=1, examples=False)
    with TestClient(create_app({"digits": Predictor(with_examples)}, config=config)) as api:
        assert api.get("/v1/models/digits").json()["examples"] == 0
        assert api.get("/v1/models/digits/examples/0").status_code == 404


def test_kept_images_that_do_not_fit_are_no_examples(with_examples: Path) -> None:
    file = with_examples / "predictions.npz"
    assert example_images(with_examples / "bundle", SPEC).shape == (3, 8, 8, 1)
    for write in (
        lambda: np.savez(file, shown_images=np.zeros((2, 9, 9, 1), np.uint8)),
        lambda: np.savez(file, shown_images=np.zeros((2, 8, 8, 1), np.float32)),
        lambda: np.savez(file, sample_images=np.zeros((2, 8, 8, 1), np.uint8)),
        lambda: file.write_bytes(b"PK\3\4 no archive"),
        file.unlink,
    ):
        write()
        assert len(example_images(with_examples / "bundle", SPEC)) == 0
    assert len(example_images(None, SPEC)) == 0


@pytest.mark.parametrize("head", [None, 1])
def test_attention_of_a_patch_is_the_models_own(api: TestClient, head: int | None) -> None:
    """Reference: the traced forward pass."""
    params: dict[str, Any] = {"layer": 0, "row": 0, "column": 1} | ({} if head is None else {"head": head})
    body = api.post("/v1/attention", params=params, content=IMAGES[0], headers=PNG).json()
    rows, columns = body["grid"]
    first = traced()[0]
    prefix = first.shape[-1] - rows * columns
    wanted = first[:, prefix + 1] if head is None else first[[head], prefix + 1]
    np.testing.assert_allclose(np.ravel(body["weights"]), wanted.mean(0)[prefix:], atol=1e-5)
    assert np.sum(body["weights"]) + body["prefix_mass"] == pytest.approx(1.0, abs=1e-6)
    assert (body["layer"], body["head"], body["row"], body["column"]) == (0, head, 0, 1)


def test_all_heads_on_a_sheet_are_the_models_own(api: TestClient) -> None:
    """Reference: what the classifier reads in the traced pass, and the same place in ``/v1/attention``."""
    body = api.post("/v1/heads", content=IMAGES[0], headers=PNG).json()
    layers, heads, (rows, columns) = body["layers"], body["heads"], body["grid"]
    with Image.open(io.BytesIO(base64.b64decode(body["maps"]))) as picture:
        assert (picture.mode, picture.size) == ("L", (heads * columns, layers * rows))
        sheet = np.asarray(picture).reshape(layers, rows, heads, columns).swapaxes(1, 2)
    dense = traced()
    prefix = dense[0].shape[-1] - rows * columns
    for layer in range(layers):
        for head in range(heads):
            params = {"layer": layer, "head": head}
            one = api.post("/v1/attention", params=params, content=IMAGES[0], headers=PNG).json()
            weights = np.array(one["weights"])
            assert np.abs(sheet[layer, head] - weights / weights.max() * 255).max() <= 0.51
            read = dense[layer][head, 0] if prefix else dense[layer][head].mean(0)
            np.testing.assert_allclose(weights.ravel(), read[prefix:], atol=1e-5)
            entropy = -(read * read.clamp(min=1e-300).log()).sum()
            assert body["entropy"][layer][head] == pytest.approx(float(entropy), abs=1e-4)


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"layer": 99}, "bad_parameter"),
        ({"head": 99}, "bad_parameter"),
        ({"row": 0}, "bad_parameter"),
        ({"row": 99, "column": 0}, "bad_parameter"),
        ({"row": -1, "column": 0}, "bad_parameter"),
        ({"model": "graph"}, "explain_unavailable"),
        ({"model": "none"}, "unknown_model"),
    ],
)
def test_places_that_are_not_there_are_refused(api: TestClient, params: dict[str, Any], code: str) -> None:
    assert api.post("/v1/attention", params=params, content=IMAGES[0], headers=PNG).json()["code"] == code


@pytest.mark.parametrize(
    "options",
    [
        {"method": "attention", "layer": 0, "head": 1},
        {"method": "rollout", "discard": 0.5},
        {"method": "gradient_rollout", "residual": 0.25},
        {"method": "gradcam", "layer": 1},
    ],
)
def test_options_of_explanations_are_those_of_the_library(api: TestClient, options: dict[str, Any]) -> None:
    body = api.post("/v1/explain", params={**options, "target": "3"}, content=IMAGES[0], headers=PNG).json()
    model, _ = load_bundle(digits_run() / "bundle")
    wanted = explain(model, torch.from_numpy(preprocess(IMAGES[:1], SPEC)), target=3, **options)
    tokens = wanted.tokens[0, 0].numpy()
    low = max(tokens.min(), 0.0)
    np.testing.assert_allclose(
        body["tokens"], np.clip((tokens - low) / (tokens.max() - low), 0, 1), atol=1e-4
    )


@pytest.mark.parametrize("params", [{"method": "attention", "layer": 9}, {"discard": 1.5}, {"residual": -1}])
def test_options_out_of_range_are_refused(api: TestClient, params: dict[str, Any]) -> None:
    answer = api.post("/v1/explain", params=params, content=IMAGES[0], headers=PNG)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_parameter")


def test_the_openapi_page_equals_the_server() -> None:
    """``python scripts/openapi.py`` writes it."""
    done = subprocess.run([sys.executable, "scripts/openapi.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "run: python scripts/openapi.py"
