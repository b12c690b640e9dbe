"""Features as an output of programs, and what reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tests.exporters.test_programs import class_folders
from tests.runtime.bundles import digits_onnx, digits_run, held_out

from tesela.answers import predict
from tesela.cli.main import run
from tesela.core.errors import UsageError, WeightsError
from tesela.evaluation.few_shot import few_shot
from tesela.exporters import features
from tesela.exporters.catalog import export_model
from tesela.exporters.graph import write_graph
from tesela.exporters.options import ExportOptions
from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import describe, load_bundle, read_info, write_bundle
from tesela.models.embedder import representation
from tesela.models.factory import create_model, create_segmenter

SMALL: dict[str, Any] = {"num_classes": 3, "image_size": (16, 32), "channels": 3, "seed": 0}
TINY: dict[str, Any] = {**SMALL, "width": 32, "depth": 2, "heads": 2}


#: Classifiers of several ways to read tokens, and segmenters, which read none.
MODELS: dict[str, Callable[[], Any]] = {
    "class token": lambda: create_model("vit_nano", **TINY),
    "attention pool": lambda: create_model("vit_nano", **TINY, pool="attention"),
    "convolutions": lambda: create_model("resnet20_small", **{**SMALL, "image_size": 32}),
    "segmenter": lambda: create_segmenter("vit_nano", decoder="linear", **TINY),
    "pyramid": lambda: create_segmenter(
        "segformer_b0", **{**SMALL, "image_size": 64, "depths": (1, 1, 1, 1)}
    ),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_the_output_is_what_the_head_reads(name: str, tmp_path: Path) -> None:
    """Run by onnxruntime itself, at the model's own size; reference: the module's representation."""
    model = MODELS[name]().eval()
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(1))
    height, width = model.config.image_size
    spec = ImageSpec(height=height, width=width, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    info = describe(model, name="tiny", labels=list("abc"), image=spec)
    images = torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits, wanted = model(images).numpy(), representation(model, images).numpy()
    facts = write_graph(model, info, tmp_path / "model.onnx", with_features=True)
    assert facts.outputs == ("logits", "features")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(["logits", "features"], {"images": images.numpy()})
    np.testing.assert_allclose(found[0], logits, atol=1e-4)
    np.testing.assert_allclose(found[1], wanted, atol=1e-4)


@pytest.mark.parametrize("kind", ["classify", "segment"])
def test_maps_and_features_come_from_one_pass(kind: str, tmp_path: Path) -> None:
    """Beside the maps the features are the same as without; reference: the module at two sizes."""
    one = {**TINY, "depth": 1}  # maps of more blocks have a test of their own
    model: Any = (
        create_model("vit_nano", **one)
        if kind == "classify"
        else create_segmenter("vit_nano", decoder="linear", **one)
    )
    spec = ImageSpec(height=16, width=32, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    info = describe(model.eval(), name="tiny", labels=list("abc"), image=spec)
    write_bundle(tmp_path / "bundle", model, info)
    twin = load_bundle(tmp_path / "bundle")[0]
    facts = write_graph(twin, info, tmp_path / "model.onnx", with_map=True, with_features=True)
    assert facts.outputs == ("logits", "map", "rollout", "features")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for size in ((16, 32), (24, 24)):
        images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(size[0]))
        with torch.no_grad():
            wanted = representation(model, images).numpy()
        (found,) = session.run(["features"], {"images": images.numpy()})
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_predict_gives_the_features_of_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that torch reads of the run; the bundle says how alike they are."""
    images = held_out(3)[0]
    wanted = predict(digits_run(), images, backend="torch", precision="fp32", features=True)
    options = ExportOptions(with_features=True, data=str(class_folders()))
    export_model(digits_run(), to="onnx", out=tmp_path / "board", options=options)
    found = predict(tmp_path / "board", images, features=True)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.vector, other.vector, atol=1e-4)
        assert len(one.vector) == 32
    info = read_info(tmp_path / "board")
    assert info.program["outputs"] == ["logits", "features"]
    assert info.provenance["contract"]["program"]["features"] == pytest.approx(1.0, abs=1e-6)
    assert "output `features`" in (tmp_path / "board" / "README.md").read_text(encoding="utf-8")
    (tmp_path / "a.png").write_bytes(images[0])
    assert run(["predict", str(tmp_path / "board"), str(tmp_path / "a.png"), "--features"]) == 0
    assert "32 numbers" in capsys.readouterr().out


def test_few_shot_reads_the_features_of_a_program(tmp_path: Path) -> None:
    """The same accuracies as of the run; a program without features says what it lacks."""
    options = ExportOptions(with_features=True, data=str(class_folders()))
    export_model(digits_run(), to="onnx", out=tmp_path / "board", options=options)
    wanted, found = (
        few_shot(place, class_folders(), shots=[5], draws=1, split="val")
        for place in (digits_run() / "bundle", tmp_path / "board")
    )
    assert found["features"] == wanted["features"] == 32
    for name in ("ridge", "knn", "probe"):
        one, other = (scores["few_shot"][0][name]["mean"] for scores in (found, wanted))
        assert one == pytest.approx(other, abs=1e-6)
    with pytest.raises(UsageError, match="gives outputs but no features") as caught:
        few_shot(digits_onnx(), class_folders(), shots=[5], split="val")
    assert "--with-features" in caught.value.hint


def test_int8_keeps_its_features_alike(tmp_path: Path) -> None:
    """Mean cosine similarity with the fp32 model's, counted by hand; one that strays is refused."""
    options = ExportOptions(
        precision="int8", with_features=True, data=str(class_folders()), force=True
    )  # int8 of a model this small is slower
    export_model(digits_run(), to="onnx", out=tmp_path / "board", options=options)
    images = held_out(40)[0]
    wanted = predict(digits_run(), images, backend="torch", precision="fp32", features=True)
    found = predict(tmp_path / "board", images, features=True)
    one, other = (np.array([row.vector for row in rows]) for rows in (found, wanted))
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    kept = read_info(tmp_path / "board").provenance["contract"]["program"]["features"]
    assert 0.99 < kept < 1.0 and cosine.mean() == pytest.approx(kept, abs=0.005)


def test_features_that_stray_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph's features are those of another pool: logits agree, and still nothing is written."""
    plain = features.FeaturesModel.forward

    def strayed(self: Any, images: Any) -> Any:
        logits, found = plain(self, images)
        return logits, found.flip(1)

    monkeypatch.setattr(features.FeaturesModel, "forward", strayed)
    options = ExportOptions(with_features=True, data=str(class_folders()))
    with pytest.raises(WeightsError, match="mean cosine similarity"):
        export_model(digits_run(), to="onnx", out=tmp_path / "board", options=options)
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_features_says_what_works() -> None:
    with pytest.raises(UsageError, match="gives no features") as caught:
        predict(digits_onnx(), held_out(1)[0], features=True)
    assert "--with-features" in caught.value.hint
    with pytest.raises(UsageError, match="features have no option 'top'"):
        predict(digits_run(), held_out(1)[0], features=True, top=3)
    with pytest.raises(UsageError, match="has no features"):
        export_model(digits_run(), to="compiled", options=ExportOptions(with_features=True))


def test_a_batch_of_features_has_an_image() -> None:
    with pytest.raises(UsageError, match="batch must be 1 or more"):
        predict(digits_run(), held_out(1)[0], features=True, batch=0)
