"""The API's answers against the predictor and the explainer called directly."""

from __future__ import annotations

import base64
import gzip
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from tests.runtime.bundles import LABELS, SPEC, digits, digits_onnx, digits_run, held_out, png
from tests.serve.clients import client

from tesela.attribution.explain import explain
from tesela.imaging.preprocess import preprocess
from tesela.models.bundle import load_bundle
from tesela.runtime.predictor import Predictor

PNG = {"content-type": "image/png"}
IMAGES = held_out(2)[0]


@pytest.fixture(scope="module")
def api() -> Iterator[TestClient]:
    with client() as found:
        yield found


def scores(body: dict[str, Any]) -> dict[str, float]:
    return {one["label"]: one["probability"] for one in body["top"]}


@pytest.mark.parametrize("name", ["digits", "graph"])
def test_server_torch_and_onnxruntime_agree_on_mnist(api: TestClient, shared: Path, name: str) -> None:
    """40 MNIST test images, sent as PNG.

    The label of both backends called directly, probabilities to 1e-4.
    """
    raw = gzip.decompress((shared / "data/mnist/t10k-images-idx3-ubyte.gz").read_bytes())
    images = [png(image) for image in np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28, 1)[:40]]
    references = [Predictor(digits_run(), backend="torch"), Predictor(digits_onnx(), backend="onnxruntime")]
    wanted = [reference.predict(images, top=10) for reference in references]
    for index, image in enumerate(images):
        body = api.post(f"/v1/classify?top=10&model={name}", content=image, headers=PNG).json()
        for predictions in wanted:
            assert body["label"] == predictions[index].scores[0].label
            assert scores(body) == pytest.approx(
                {score.label: score.probability for score in predictions[index].scores}, abs=1e-4
            )


def test_a_form_and_a_raw_body_give_the_same(api: TestClient) -> None:
    image = held_out(1)[0][0]
    form = api.post("/v1/classify", files={"file": ("../../etc/passwd", image, "text/html")})
    assert form.json() == api.post("/v1/classify", content=image, headers=PNG).json()
    assert form.status_code == 200
    assert len(form.json()["top"]) == 5
    assert len(api.post("/v1/classify?top=99", content=image, headers=PNG).json()["top"]) == 10


@pytest.mark.parametrize(("target", "index"), [(None, None), ("three", 3), ("7", 7)])
def test_explanation_equals_the_library(api: TestClient, target: str | None, index: int | None) -> None:
    """Reference: ``tesela.attribution`` on the same image.

    Tokens are its map brought to 0..1, what speaks against the class at 0.
    """
    image = held_out(1)[0][0]
    body = api.post(
        "/v1/explain", params={"target": target} if target else {}, content=image, headers=PNG
    ).json()
    model, _ = load_bundle(digits_run() / "bundle")
    wanted = explain(model, torch.from_numpy(preprocess([image], SPEC)), target=index)
    tokens = wanted.tokens[0, 0].numpy()
    low = max(tokens.min(), 0.0)
    np.testing.assert_allclose(
        body["tokens"], np.clip((tokens - low) / (tokens.max() - low), 0.0, 1.0), atol=2e-4
    )
    assert body["grid"] == list(tokens.shape)
    assert body["target"]["index"] == int(wanted.targets[0, 0])
    assert body["target"]["probability"] == pytest.approx(float(wanted.probabilities[0, 0]), abs=1e-4)
    assert body["prefix_mass"] == pytest.approx(float(wanted.prefix_mass[0, 0]), abs=1e-4)
    assert body["method"] == wanted.method


def test_the_heat_map_has_the_images_shape_and_is_strongest_where_the_map_is(api: TestClient) -> None:
    """A wide digit, 24 x 40, comes back as 24 x 40 with transparency.

    Its strongest pixel lies in the strongest patch.
    """
    wide = np.asarray(Image.fromarray(digits()[0][1500, :, :, 0]).resize((40, 24)))[:, :, None]
    body = api.post("/v1/explain", content=png(wide), headers=PNG).json()
    with Image.open(io.BytesIO(base64.b64decode(body["heatmap"]))) as picture:
        cover = np.asarray(picture)[:, :, 3]
    assert cover.shape == (24, 40) == (body["height"], body["width"])
    tokens = np.array(body["tokens"])
    row, column = np.unravel_index(cover.argmax(), cover.shape)
    rows, columns = tokens.shape
    assert tokens[int(row * rows / 24), int(column * columns / 40)] == tokens.max()


def test_metadata_does_not_come_back(api: TestClient) -> None:
    """An EXIF block with a GPS position and a comment is in the image that is sent and in nothing that
    comes back."""
    picture = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    exif = Image.Exif()
    exif[0x010E] = "SECRET-PLACE"
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)
    assert b"SECRET-PLACE" in buffer.getvalue()
    for path in ("/v1/classify", "/v1/explain"):
        body = api.post(path, content=buffer.getvalue(), headers=PNG)
        assert body.status_code == 200
        assert "SECRET-PLACE" not in body.text
        assert b"SECRET-PLACE" not in base64.b64decode(body.json().get("heatmap", ""))


def test_models_health_and_counters(api: TestClient) -> None:
    listed = api.get("/v1/models").json()["models"]
    assert [(one["name"], one["backend"], one["explainable"]) for one in listed] == [
        ("digits", "torch", True),
        ("graph", "onnxruntime", False),
    ]
    assert listed[0]["labels"] == LABELS
    assert api.get("/healthz").json() == {"status": "ok"}
    assert api.get("/readyz").json() == {"status": "ready"}
    before = counted(api)
    api.post("/v1/classify", content=held_out(1)[0][0], headers=PNG)
    api.get("/nothing/" + "x" * 50)
    after = counted(api)
    assert after["/v1/classify", "POST", "200"] == before.get(("/v1/classify", "POST", "200"), 0) + 1
    assert after["other", "GET", "404"] == before.get(("other", "GET", "404"), 0) + 1


def counted(api: TestClient) -> dict[tuple[str, str, str], float]:
    """Requests by route, method and status, read by prometheus' own parser."""
    families = {family.name: family for family in text_string_to_metric_families(api.get("/metrics").text)}
    samples = [
        sample for sample in families["tesela_requests"].samples if sample.name == "tesela_requests_total"
    ]
    return {(one.labels["route"], one.labels["method"], one.labels["status"]): one.value for one in samples}


@pytest.mark.parametrize(
    ("method", "status"), [("relevance", 200), ("gradcam", 200), ("rise", 422), ("occlusion", 422)]
)
def test_methods_of_many_passes_are_not_served(api: TestClient, method: str, status: int) -> None:
    answer = api.post("/v1/explain", params={"method": method}, content=held_out(1)[0][0], headers=PNG)
    assert answer.status_code == status
    if status == 422:
        assert answer.json()["code"] == "bad_parameter"


def test_openapi_document_describes_body_and_refusals(api: TestClient) -> None:
    document = api.get("/openapi.json").json()
    operation = document["paths"]["/v1/classify"]["post"]
    assert set(operation["requestBody"]["content"]) >= {
        "multipart/form-data",
        "image/jpeg",
        "image/png",
        "image/webp",
    }
    for status in ("400", "401", "413", "415", "422", "503"):
        assert operation["responses"][status]["content"]["application/problem+json"]["schema"][
            "$ref"
        ].endswith("/ErrorBody")
    assert api.get("/docs").status_code == api.get("/redoc").status_code == 404


def test_an_exported_model_is_served_without_torch() -> None:
    """In a process that serves an ONNX bundle torch is never imported."""
    code = (
        "import sys; from starlette.testclient import TestClient; from tesela.runtime.predictor import "
        "Predictor\n"
        "from tesela.serve.app import create_app\n"
        "with TestClient(create_app({'m': Predictor(sys.argv[1])})) as api:\n"
        "    print(api.post('/v1/classify', content=sys.stdin.buffer.read(), "
        "headers={'content-type': 'image/png'}).json()['label'])\n"
        "print('torch' in sys.modules)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(digits_onnx())],
        input=held_out(1)[0][0],
        capture_output=True,
        check=True,
        cwd=root,
    )
    label, imported = done.stdout.decode().split()
    assert label == Predictor(digits_onnx()).predict(held_out(1)[0])[0].scores[0].label
    assert imported == "False"


@pytest.mark.parametrize(
    "kind", ["image/jpg", "image/pjpeg", "image/x-png", "IMAGE/PNG; q=1", "application/octet-stream", None]
)
def test_the_content_decides_and_not_the_type(api: TestClient, kind: str | None) -> None:
    """Any image/... type, none, and those that clients send by themselves give the answer of image/png."""
    expected = api.post("/v1/classify", content=IMAGES[0], headers=PNG)
    assert expected.status_code == 200
    headers = {} if kind is None else {"content-type": kind}
    assert api.post("/v1/classify", content=IMAGES[0], headers=headers).json() == expected.json()
    form = {"content-type": "application/x-www-form-urlencoded"}  # curl --data-binary
    assert api.post("/v1/classify", content=IMAGES[0], headers=form).json() == expected.json()


def test_formats_and_pixels_are_widened_by_options_only() -> None:
    """A TIFF is refused with 415, and answered like the same pixels as PNG where the server allows it."""
    stream = io.BytesIO()
    Image.open(io.BytesIO(IMAGES[0])).save(stream, "TIFF")
    headers = {"content-type": "image/tiff"}
    with client(onnx_only=True) as strict:
        refused = strict.post("/v1/classify", content=stream.getvalue(), headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (415, "format_not_allowed")
    with client(onnx_only=True, formats=("png,tif",), max_pixels=100) as wide:
        answer = wide.post("/v1/classify", content=stream.getvalue(), headers=headers)
        assert answer.json() == wide.post("/v1/classify", content=IMAGES[0], headers=PNG).json()
        assert wide.post("/v1/classify", content=png(np.zeros((11, 10, 3), np.uint8))).status_code == 413
