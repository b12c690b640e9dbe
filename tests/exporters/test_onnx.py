"""The exported graph against torch, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tests.runtime.bundles import SPEC, digits, digits_onnx, digits_run

from tesela.core.config import to_mapping
from tesela.core.errors import UsageError, WeightsError
from tesela.exporters import onnx as exporter
from tesela.exporters.onnx import export_onnx, refuse_difference
from tesela.models.bundle import describe, load_bundle, read_info, write_bundle
from tesela.models.factory import create_model


def test_plain_onnxruntime_gives_torchs_logits_for_any_batch_size() -> None:
    """Reference: the nn.Module.

    The graph is run by onnxruntime itself, at batch sizes that were not in the check too.
    """
    model, _ = load_bundle(digits_run() / "bundle")
    session = onnxruntime.InferenceSession(
        str(digits_onnx() / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    for size in (1, 2, 5, 33):
        batch = np.random.default_rng(size).standard_normal((size, 1, 8, 8), dtype=np.float32)
        with torch.no_grad():
            wanted = model(torch.from_numpy(batch)).numpy()
        np.testing.assert_allclose(session.run(None, {"images": batch})[0], wanted, atol=2e-5)


def test_the_graph_alone_says_labels_and_preprocessing() -> None:
    """Read by onnxruntime from the file; reference: the bundle's description."""
    info = read_info(digits_onnx())
    session = onnxruntime.InferenceSession(
        str(digits_onnx() / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    found = session.get_modelmeta().custom_metadata_map
    assert json.loads(found["labels"]) == info.labels and found["task"] == info.task
    assert json.loads(found["image"]) == json.loads(json.dumps(to_mapping(info.image)))


def test_other_families_and_non_square_images_export(tmp_path: Path) -> None:
    """A CCT at 16 x 24 in colour: the report's difference is what the test measures by itself."""
    model: Any = create_model("cct_2_3x2_32", num_classes=3, image_size=(16, 24), channels=3, seed=1)
    torch.nn.init.normal_(model.head.linear.weight, generator=torch.Generator().manual_seed(0))
    spec = dataclasses.replace(SPEC, height=16, width=24, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    write_bundle(
        tmp_path / "bundle", model.eval(), describe(model, name="cct", labels=["a", "b", "c"], image=spec)
    )
    report = export_onnx(tmp_path / "bundle")
    assert report.bundle == tmp_path / "bundle-onnx"
    assert report.max_abs_logits < 1e-4
    assert report.images == "random"
    session = onnxruntime.InferenceSession(
        str(report.bundle / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    batch = np.random.default_rng(0).standard_normal((3, 3, 16, 24), dtype=np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(
            session.run(None, {"images": batch})[0], model(torch.from_numpy(batch)).numpy(), atol=1e-4
        )


def test_the_console_stays_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing of the exporter's talk is seen; real images are compared where they are given.

    The old export is replaced.
    """
    report = export_onnx(digits_run(), tmp_path / "out", images=list(digits()[0][1500:1504]))
    export_onnx(digits_run(), tmp_path / "out")
    assert capfd.readouterr() == ("", "")
    assert (report.images, report.same_label) == ("real", 1.0)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "model.onnx",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_config_says_what_was_measured() -> None:
    info = read_info(digits_onnx())
    assert list(info.digests) == ["model.onnx"]
    assert info.labels == read_info(digits_run() / "bundle").labels
    assert info.provenance["difference"]["max_abs_logits"] <= 1e-3
    assert info.provenance["difference"]["batches"] == [1, 3]
    assert "without PyTorch" in (digits_onnx() / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("logits", "probability"), [(2e-3, 0.0), (0.0, 2e-3), (float("nan"), 0.0), (0.0, float("nan"))]
)
def test_a_difference_above_the_limit_is_refused_with_numbers(logits: float, probability: float) -> None:
    report = exporter.OnnxReport(
        bundle=Path("x"),
        bytes=1,
        images="random",
        batches=(1,),
        max_abs_logits=logits,
        max_abs_probability=probability,
        same_label=1.0,
        seconds=1.0,
    )
    with pytest.raises(
        WeightsError, match=r"differs from torch by .* in a logit and .* in a probability, more than 1e-03"
    ):
        refuse_difference(report)


def test_a_graph_that_differs_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph of other weights is written instead; the check sees it and the folder does not appear."""
    write = exporter.write_graph

    def of_other_weights(model: torch.nn.Module, info: object, path: Path) -> None:
        other = create_model(
            "vit_nano", num_classes=10, image_size=8, channels=1, seed=9, width=32, depth=2, heads=2
        )
        other.load_state_dict({name: value + 0.01 for name, value in model.state_dict().items()})
        write(other, info, path)  # type: ignore[arg-type]

    monkeypatch.setattr(exporter, "write_graph", of_other_weights)
    with pytest.raises(WeightsError, match="differs from torch"):
        export_onnx(digits_run(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_folders_of_others_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years", encoding="utf-8")
    with pytest.raises(UsageError, match="is no earlier export"):
        export_onnx(digits_run(), tmp_path / "mine")
    with pytest.raises(UsageError, match="holds the bundle that is exported"):
        export_onnx(digits_run(), digits_run())
    with pytest.raises(UsageError, match="holds the bundle that is exported"):
        export_onnx(digits_run(), digits_run() / "bundle")
    assert (
        json.loads((digits_run() / "bundle" / "config.json").read_text(encoding="utf-8"))["name"] == "digits"
    )


def test_an_export_cannot_be_exported_again(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no model\.safetensors"):
        export_onnx(digits_onnx(), tmp_path / "out")
