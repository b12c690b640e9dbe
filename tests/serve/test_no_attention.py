"""Networks whose layers have windows, or that do not attend at all, on the server."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import describe, write_bundle
from tesela.models.factory import create_model
from tesela.runtime.predictor import Predictor
from tesela.serve.app import create_app

#: Architecture -> pixels of a side.
NETWORKS = {"swin_nano_small": 32, "convnextv2_atto_small": 32}
PNG = {"content-type": "image/png"}


@pytest.fixture(scope="module", params=NETWORKS)
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server of that network."""
    side = NETWORKS[request.param]
    model = create_model(request.param, num_classes=3, seed=0, image_size=side, channels=3).eval()
    spec = ImageSpec(height=side, width=side, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    folder: Path = tmp_path_factory.mktemp(request.param)
    write_bundle(
        folder, model, describe(model, name="one", labels=list("abc"), image=spec, license="CC0-1.0")
    )
    with TestClient(create_app({"one": Predictor(folder, backend="torch")})) as found:
        yield found


def photograph() -> bytes:
    """A PNG of noise."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def test_it_is_explained_although_its_attention_is_not_shown(api: TestClient) -> None:
    for verb in ("attention", "heads"):
        answer = api.post(f"/v1/{verb}", content=photograph(), headers=PNG)
        assert (answer.status_code, answer.json()["code"]) == (409, "no_attention")
    answer = api.post("/v1/explain", content=photograph(), headers=PNG)
    assert answer.status_code == 200
    detail = api.get("/v1/models/one").json()
    assert answer.json()["method"] in detail["methods"]
    assert detail["heads"] is None


@pytest.mark.parametrize(
    ("field", "code"), [("image", "bad_multipart"), ("file", "bad_multipart"), ("x", "")]
)
def test_an_image_that_was_sent_as_text_is_not_passed_over(api: TestClient, field: str, code: str) -> None:
    """Beside a file; fields of other names say nothing."""
    answer = api.post(
        "/v1/classify", files={"file": ("a.png", photograph(), "image/png")}, data={field: "{}"}
    )
    assert (answer.status_code, answer.json().get("code", "")) == ((400, code) if code else (200, ""))
