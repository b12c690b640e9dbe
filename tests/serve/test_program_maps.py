"""Explanations of an exported program by the API, in a process that cannot import torch."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient
from tests.runtime.bundles import SPEC, digits, digits_run, held_out, png
from tests.runtime.test_predictor import ROOT, WITHOUT_TORCH
from tests.serve.clients import client

from tesela.attribution.draw.heatmap import stretched
from tesela.attribution.explain import explain
from tesela.cli.main import run
from tesela.exporters.onnx import export_onnx
from tesela.exporters.options import ExportOptions
from tesela.imaging.preprocess import preprocess
from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import describe, load_bundle, write_bundle
from tesela.models.factory import create_segmenter
from tesela.runtime.predictor import Predictor
from tesela.serve.app import create_app
from tesela.serve.config import ServeConfig
from tesela.serve.looking.explanation import heat_picture
from tesela.serve.looking.program import patch_values

PNG = {"content-type": "image/png"}
#: Asks a server of a bundle each question, with an image as its body: model, then [status, body] of each.
ASK = """
from starlette.testclient import TestClient
from tesela.runtime.predictor import Predictor
from tesela.serve.app import create_app
with TestClient(create_app({'m': Predictor(sys.argv[2])})) as api:
    image = sys.stdin.buffer.read()
    said = [api.get('/v1/models/m').json()]
    for path in sys.argv[3:]:
        answer = api.post(path, content=image, headers={'content-type': 'image/png'})
        said.append([answer.status_code, answer.json()])
said.append('torch' in sys.modules)
print(json.dumps(said))
"""


def asked(bundle: Path, image: bytes, *paths: str) -> list[Any]:
    """What a server without torch says of itself and to each path."""
    code = WITHOUT_TORCH.partition("from pathlib")[0] + ASK
    command = [sys.executable, "-c", code, "blocked", str(bundle), *paths]
    done = subprocess.run(command, input=image, capture_output=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr.decode()
    said: list[Any] = json.loads(done.stdout)
    assert said.pop() is False
    return said


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits' classifier with its maps."""
    out = tmp_path_factory.mktemp("program") / "onnx"
    return export_onnx(digits_run(), out, options=ExportOptions(with_map=True)).bundle


@pytest.mark.parametrize(("method", "of"), [("auto", "presence"), ("rollout", "rollout")])
def test_the_map_is_the_networks(program: Path, method: str, of: str) -> None:
    """Reference: torch's map of the same image; its numbers to 1e-4, its picture to one level."""
    wide = np.asarray(Image.fromarray(digits()[0][1500, :, :, 0]).resize((12, 10)))[:, :, None]
    image = png(wide)
    said, (status, body) = asked(program, image, f"/v1/explain?method={method}&top=3")
    model, _ = load_bundle(digits_run() / "bundle")
    wanted = explain(model, torch.from_numpy(preprocess([image], SPEC)), method=of)
    assert status == 200
    assert (body["method"], body["prefix_mass"]) == (of, None)
    tokens = wanted.tokens[0, 0].numpy()
    assert body["grid"] == list(tokens.shape)
    np.testing.assert_allclose(body["tokens"], stretched(tokens), atol=1e-4)
    assert (body["height"], body["width"]) == (10, 12)
    picture = heat_picture(wanted.map[0, 0].numpy(), (10, 12), Predictor(program))
    mine, torchs = (
        np.asarray(Image.open(io.BytesIO(data)), int) for data in (base64.b64decode(body["heatmap"]), picture)
    )
    assert mine.shape == (10, 12, 4)
    assert np.abs(mine - torchs)[..., 3].max() <= 1
    (best,) = Predictor(digits_run(), backend="torch").predict([image], top=3)
    assert [one["label"] for one in body["top"]] == [score.label for score in best.scores]
    assert body["target"]["label"] == best.scores[0].label
    assert body["target"]["probability"] == pytest.approx(best.scores[0].probability, abs=1e-4)
    assert said["explainable"] is True
    assert (said["methods"], said["explain_options"]) == (["presence", "rollout"], [])
    assert (said["layers"], said["inspection"]) == (None, None)


def test_the_served_map_is_that_of_the_command_line(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``tesela explain`` on the same bundle: the patches' values to 1e-4."""
    image = held_out(1)[0][0]
    (tmp_path / "a.png").write_bytes(image)
    words = [str(program), str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--json"]
    assert run(["explain", *words]) == 0
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["images"]
    with TestClient(create_app({"m": Predictor(program)}, config=ServeConfig(decoders=1))) as api:
        body = api.post("/v1/explain", content=image, headers=PNG).json()
    with np.load(row["npz"]) as arrays:
        values = patch_values(arrays["map"][0], tuple(body["grid"]))
    np.testing.assert_allclose(body["tokens"], stretched(values), atol=1e-4)
    assert body["target"]["label"] == row["classes"][0]["label"]


def test_a_program_is_asked_for_nothing_but_its_maps(program: Path) -> None:
    """The predicted class may be named; another class, settings and methods are refused by name."""
    image, label = held_out(1)[0][0], Predictor(program).predict([held_out(1)[0][0]])[0].best.label
    other = "zero" if label != "zero" else "one"
    fixed = ["layer=0", "head=0", "discard=0.5", "residual=0.3", "region=0,0,2,2", f"target={other}"]
    wrong = ["method=gradcam", "method=relevance"]
    queries = [f"target={label}", *fixed, *wrong, "target=none", "method=occlusion"]
    answers = asked(program, image, *(f"/v1/explain?{query}" for query in queries), "/v1/heads")[1:]
    codes = [(status, body.get("code")) for status, body in answers]
    assert codes == [
        (200, None),
        *[(409, "fixed_explanation")] * len(fixed),
        *[(409, "explain_unavailable")] * len(wrong),
        *[(422, "unknown_class"), (422, "bad_parameter"), (409, "explain_unavailable")],
    ]


def test_a_segmenters_map_is_the_networks(tmp_path: Path) -> None:
    """Gradient rollout for the class with most pixels, with its mean probability there."""
    fields: dict[str, Any] = {"image_size": (8, 12), "channels": 1, "seed": 0, "width": 32, "depth": 2}
    model = create_segmenter("vit_nano", num_classes=4, decoder="linear", heads=2, **fields)
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(1))
    spec = ImageSpec(height=8, width=12, channels=1, mean=(0.5,), std=(0.25,))
    info = describe(model.eval(), name="tiny", labels=list("abcd"), image=spec, task="segment")
    write_bundle(tmp_path / "bundle", model, info)
    bundle = export_onnx(tmp_path / "bundle", tmp_path / "out", options=ExportOptions(with_map=True)).bundle
    image = png(np.random.default_rng(0).integers(0, 256, (8, 12, 1), np.uint8))
    said, (status, body) = asked(bundle, image, "/v1/explain")
    assert (status, said["methods"]) == (200, ["gradient_rollout", "rollout"])
    wanted = explain(model, torch.from_numpy(preprocess([image], spec)), method="gradient_rollout")
    np.testing.assert_allclose(body["tokens"], stretched(wanted.tokens[0, 0].numpy()), atol=1e-4)
    assert body["target"]["index"] == int(wanted.targets[0, 0])
    assert body["target"]["probability"] == pytest.approx(float(wanted.probabilities[0, 0]), abs=1e-4)


def test_a_program_without_maps_says_how_to_get_them() -> None:
    with client(onnx_only=True) as api:
        answer = api.post("/v1/explain", content=held_out(1)[0][0], headers=PNG)
        model = api.get("/v1/models/graph").json()
    assert (answer.status_code, answer.json()["code"]) == (409, "no_maps")
    assert "tesela export RUN --to onnx --with-map" in answer.json()["hint"]
    assert (model["explainable"], model["methods"], model["explain_options"]) == (False, [], [])


@pytest.mark.parametrize("shape", [(2, 3), (1, 4), (4, 4)])
def test_patches_are_read_back_from_their_map(shape: tuple[int, int]) -> None:
    """Reference: torch's bilinear map of random patches, at a size that is no multiple too."""
    tokens = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    for size in ((8, 12), (9, 13), (16, 4)):
        if size[1] >= shape[1]:
            heat = torch.nn.functional.interpolate(tokens, size=size, mode="bilinear")[0, 0].numpy()
            np.testing.assert_allclose(patch_values(heat, shape), tokens[0, 0].numpy(), atol=1e-4)
