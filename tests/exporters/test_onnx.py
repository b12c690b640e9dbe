"""The exported graph against torch, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tests.runtime.bundles import SPEC, digits_onnx, digits_run, held_out

from tesela.core.config import to_mapping
from tesela.core.errors import UsageError, WeightsError
from tesela.exporters import graph
from tesela.exporters import onnx as exporter
from tesela.exporters.onnx import export_onnx
from tesela.exporters.options import ExportOptions
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
    assert report.contract.program.max_abs_logits < 1e-4
    assert report.contract.kind == "random"
    session = onnxruntime.InferenceSession(
        str(report.bundle / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    batch = np.random.default_rng(0).standard_normal((3, 3, 16, 24), dtype=np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(
            session.run(None, {"images": batch})[0], model(torch.from_numpy(batch)).numpy(), atol=1e-4
        )


def test_the_console_stays_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing of the exporter's talk is seen; real images are compared where they are given."""
    for index, image in enumerate(held_out(4)[0]):
        (tmp_path / f"{index}.png").write_bytes(image)
    report = export_onnx(digits_run(), tmp_path / "out", options=ExportOptions(data=str(tmp_path)))
    assert capfd.readouterr() == ("", "")
    assert (report.contract.kind, report.contract.count, report.contract.program.agreement) == (
        "real",
        4,
        1.0,
    )
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["README.md", "config.json", "model.onnx"]


def test_config_and_card_say_what_was_measured() -> None:
    info = read_info(digits_onnx())
    assert list(info.digests) == ["model.onnx"]
    assert info.labels == read_info(digits_run() / "bundle").labels
    assert info.program == {
        "format": "onnx",
        "precision": "fp32",
        "file": "model.onnx",
        "outputs": ["logits"],
        "step": [2, 2],
    }
    row = info.provenance["contract"]["program"]
    assert 0 < row["max_abs_logits"] <= 1e-4 and row["agreement"] == 1.0
    assert set(row["latency"]) == {"1", "8"} and min(row["latency"].values()) > 0
    assert 1e7 < row["memory"] < 2e8
    card = (digits_onnx() / "README.md").read_text(encoding="utf-8")
    assert "without PyTorch" in card and f"{row['max_abs_logits']:.1e}" in card


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 12), (12, 8), (6, 10), (16, 16), (20, 4)])
def test_one_graph_serves_every_image_size(height: int, width: int) -> None:
    """Square or not, smaller or larger than its own; reference: the module, which interpolates positions."""
    model, _ = load_bundle(digits_run() / "bundle")
    session = onnxruntime.InferenceSession(
        str(digits_onnx() / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    batch = np.random.default_rng(height).standard_normal((3, 1, height, width), dtype=np.float32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(session.run(None, {"images": batch})[0], wanted, atol=1e-4)


def test_a_sabotaged_graph_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One weight of the written graph has its sign flipped; the folder does not appear."""
    write = graph.write_graph

    def sabotaged(model: Any, info: Any, path: Path, **options: Any) -> Any:
        facts = write(model, info, path, **options)
        broken = onnx.load(path)
        tensor = max(broken.graph.initializer, key=lambda one: int(np.prod(one.dims)))
        values = onnx.numpy_helper.to_array(tensor).copy()
        place = np.unravel_index(np.abs(values).argmax(), values.shape)
        values[place] = -values[place]
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        onnx.save(broken, path)
        return facts

    monkeypatch.setattr(exporter, "write_graph", sabotaged)
    with pytest.raises(WeightsError, match="differs from torch by"):
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
