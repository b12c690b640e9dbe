"""OpenVINO and compiled programs, maps in a graph, and the images that exports are held against."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tests.runtime.bundles import LABELS, SPEC, digits, digits_onnx, digits_run, png

from tesela.attribution.explain import explain
from tesela.core.errors import DataError, UsageError, WeightsError
from tesela.evaluation.evaluate import evaluate_run
from tesela.exporters import graph
from tesela.exporters.catalog import export_model
from tesela.exporters.gradients import convolution_backward
from tesela.exporters.graph import write_graph
from tesela.exporters.int8 import quantise as int8
from tesela.exporters.int8.layers import find_layers, load_graph
from tesela.exporters.maps import check_mappable
from tesela.exporters.options import ExportOptions
from tesela.hardware.openvino_core import openvino_core
from tesela.hardware.torch_private import open_package
from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import describe, load_bundle, read_info, write_bundle
from tesela.models.factory import create_model, create_segmenter


@functools.cache
def class_folders() -> Path:
    """Digits from 1,200 on, in a folder for each of the model's classes."""
    folder = Path(tempfile.mkdtemp(prefix="tesela-test-"))
    images, targets = digits()
    for number in range(1200, 1600):
        place = folder / LABELS[targets[number]]
        place.mkdir(exist_ok=True)
        (place / f"{number}.png").write_bytes(png(images[number]))
    return folder


def openvino_outputs(path: Path, images: Any, shape: list[int] | None = None) -> list[Any]:
    """By OpenVINO itself, in fp32; of a graph for images of this shape alone, if it is given."""
    graph = openvino_core().read_model(path)
    if shape is not None:
        graph.reshape(shape)
    compiled = openvino_core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return list(compiled({"images": images}).values())


def test_openvino_gives_torchs_logits_at_six_sizes(tmp_path: Path) -> None:
    """Square and not; reference: the module. The exported program's score is the model's own."""
    report = export_model(
        digits_run(), to="openvino", out=tmp_path / "ov", options=ExportOptions(data=str(class_folders()))
    )
    model, _ = load_bundle(digits_run() / "bundle")
    for height, width in [(8, 8), (8, 12), (12, 8), (6, 10), (16, 16), (20, 4)]:
        batch = np.random.default_rng(height).standard_normal((2, 1, height, width), dtype=np.float32)
        with torch.no_grad():
            wanted = model(torch.from_numpy(batch)).numpy()
        for shape in (None, [-1, 1, height, width], [len(batch), 1, height, width]):
            found = openvino_outputs(tmp_path / "ov" / "openvino.xml", batch, shape=shape)[0]
            np.testing.assert_allclose(found, wanted, atol=1e-4)
    contract = report.mapping()["contract"]
    assert contract["program"]["scores"] == pytest.approx(contract["reference"]["scores"], abs=1e-6)
    assert read_info(tmp_path / "ov").program["file"] == "openvino.xml"
    scores = evaluate_run(tmp_path / "ov", data=str(class_folders()), split="val")
    assert scores["accuracy"] == pytest.approx(contract["program"]["scores"]["accuracy"])


def test_a_compiled_package_gives_torchs_logits_for_any_batch(tmp_path: Path) -> None:
    report = export_model(digits_run(), to="compiled", out=tmp_path / "pt2")
    assert sorted(path.name for path in (tmp_path / "pt2").iterdir()) == [
        "README.md",
        "config.json",
        "model.pt2",
    ]
    model, _ = load_bundle(digits_run() / "bundle")
    package = open_package(tmp_path / "pt2" / "model.pt2")
    for count in (1, 2, 9):
        batch = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            torch.testing.assert_close(package(batch), model(batch), atol=1e-4, rtol=0)
    assert report.mapping()["outputs"] == ["logits"]


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"), [(1, 1, 1, 1), (2, 1, 1, 1), (3, 0, 2, 2), (2, 2, 1, 4)]
)
def test_the_gradient_of_a_convolution_is_that_of_autograd(
    stride: int, padding: int, dilation: int, groups: int
) -> None:
    """On images whose sides leave a rest at the stride."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(2, 4, 12, 9, generator=draw, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, 4 // groups, 3, 2, generator=draw, dtype=torch.float64)
    steps, edges, gaps = [stride, stride], [padding, padding], [dilation, dilation]
    given = torch.nn.functional.conv2d(images, weight, None, steps, edges, gaps, groups)
    gradient = torch.randn(given.shape, generator=draw, dtype=torch.float64)
    (wanted,) = torch.autograd.grad(given, images, gradient)

    def computed(wanted: list[bool]) -> torch.Tensor | None:
        return convolution_backward(
            gradient, images.detach(), weight, None, steps, edges, gaps, False, [0, 0], groups, wanted
        )[0]

    found = computed([True, False, False])
    assert found is not None
    torch.testing.assert_close(found, wanted)
    with pytest.raises(WeightsError, match="only the input's gradient"):
        computed([True, True, False])


@pytest.mark.parametrize("task", ["classify", "linear", "light", "mlp", "patch"])
def test_maps_of_a_graph_are_those_of_explain(task: str, tmp_path: Path) -> None:
    """At other sizes, in two engines; reference: ``explain`` with presence or gradient rollout, and rollout.

    OpenVINO takes a square weight for its transpose, and drops Abs where sizes are known, in some graphs.
    """
    fields: dict[str, Any] = {
        "num_classes": 4, "image_size": (8, 12), "channels": 1, "seed": 0, "width": 32, "depth": 2, "heads": 2
    }  # fmt: skip
    model: Any = (
        create_model("vit_nano", **fields)
        if task == "classify"
        else create_segmenter("vit_nano", decoder=task, **fields)
    )
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(1))
    spec = ImageSpec(height=8, width=12, channels=1, mean=(0.5,), std=(0.25,))
    info = describe(model.eval(), name="tiny", labels=list("abcd"), image=spec)
    write_bundle(tmp_path / "bundle", model, info)
    facts = write_graph(load_bundle(tmp_path / "bundle")[0], info, tmp_path / "model.onnx", with_map=True)
    assert facts.outputs == ("logits", "map", "rollout")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for size in ((8, 12), (12, 12), (6, 16)):
        images = torch.randn(3, 1, *size, generator=torch.Generator().manual_seed(size[0]))
        drawn = explain(model, images, method="presence" if task == "classify" else "gradient_rollout")
        walked = explain(model, images, method="rollout")
        with torch.no_grad():
            wanted = [model(images).numpy(), drawn.map[:, 0].numpy(), walked.map[:, 0].numpy()]
        for found in (
            session.run(None, {"images": images.numpy()}),
            openvino_outputs(tmp_path / "model.onnx", images.numpy()),
            openvino_outputs(tmp_path / "model.onnx", images.numpy(), shape=[-1, 1, *size]),
        ):
            for one, other in zip(found, wanted, strict=True):
                np.testing.assert_allclose(one, other, atol=1e-4)
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    scattered = {one.s for node in nodes for one in node.attribute if one.name == "reduction"}
    assert scattered <= {b"none"}  # engines add in parallel, without a lock


@pytest.mark.parametrize("name", ["segformer_b0", "resnet18_small"])
def test_maps_that_no_graph_can_give_are_refused_with_the_part(name: str) -> None:
    model = create_model(name, num_classes=2, image_size=32, seed=0)
    with pytest.raises(WeightsError, match=r"maps of a (Segformer|ResNet) cannot be exported") as caught:
        check_mappable(model)
    assert "--with-map" in caught.value.hint


def test_windows_fix_the_size_and_the_report_says_so(tmp_path: Path) -> None:
    model = create_model(
        "vit_nano",
        num_classes=2,
        image_size=8,
        channels=1,
        seed=0,
        width=32,
        depth=2,
        heads=2,
        attention="axial",
    )
    info = describe(model, name="axial", labels=["a", "b"], image=SPEC)
    facts = write_graph(model.eval(), info, tmp_path / "model.onnx")
    assert facts.step is None and "axial attention" in facts.fixed_because


def test_a_slower_int8_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The int8 graph is made slow by work that changes no result: its times are told beside fp32's."""
    write = int8.with_int8

    def slowed(graph: Any, *rest: Any, **options: Any) -> Any:
        from onnx import helper, numpy_helper

        copy = write(graph, *rest, **options)
        nodes = [node for node in copy.graph.node if "logits" in node.output]
        nodes[0].output[list(nodes[0].output).index("logits")] = "fast_logits"
        big = np.random.default_rng(0).standard_normal((700, 700)).astype(np.float32)
        copy.graph.initializer.append(numpy_helper.from_array(big, "big"))
        copy.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), "nothing"))
        for node in (
            helper.make_node("ReduceMax", ["fast_logits"], ["peak"], keepdims=0),
            helper.make_node("Mul", ["big", "peak"], ["scaled"]),
            helper.make_node("MatMul", ["scaled", "scaled"], ["product"]),
            helper.make_node("ReduceMax", ["product"], ["largest"], keepdims=0),
            helper.make_node("Mul", ["largest", "nothing"], ["zero"]),
            helper.make_node("Add", ["fast_logits", "zero"], ["logits"]),
        ):
            copy.graph.node.append(node)
        return copy

    monkeypatch.setattr(int8, "with_int8", slowed)
    options = ExportOptions(precision="int8", data=str(class_folders()))
    with pytest.raises(WeightsError, match=r"ms for a batch of 1 and onnxruntime fp32 \d") as caught:
        export_model(digits_run(), to="onnx", out=tmp_path / "out", options=options)
    assert "--force" in caught.value.hint and list(tmp_path.iterdir()) == []
    forced = ExportOptions(precision="int8", data=str(class_folders()), force=True)
    report = export_model(digits_run(), to="onnx", out=tmp_path / "out", options=forced)
    assert any("kept by --force" in remark for remark in report.mapping()["remarks"])
    assert "kept by --force" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_large_weights_lie_in_a_second_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is lowered here: size, digests, card and contract speak of both files."""
    monkeypatch.setattr(graph, "LARGEST_INSIDE", 0)
    monkeypatch.setattr(graph, "SMALLEST_OUTSIDE", 64)
    options = ExportOptions(precision="int8", data=str(class_folders()), force=True)
    report = export_model(digits_run(), to="onnx", out=tmp_path / "out", options=options)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
    assert sorted(sizes) == ["README.md", "config.json", "model.onnx", "model.onnx.data"]
    assert 15_000 < sizes["model.onnx.data"] < 60_000 and report.mapping()["bytes"] == sum(sizes.values())
    info = read_info(tmp_path / "out")
    assert sorted(info.digests) == ["model.onnx", "model.onnx.data"]
    row = info.provenance["contract"]["program"]
    assert row["bytes"] > sizes["model.onnx"] + sizes["model.onnx.data"] and row["memory"] > 1e7
    assert "`model.onnx.data`" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "model.onnx.data" not in (digits_onnx() / "README.md").read_text(encoding="utf-8")
    scores = evaluate_run(tmp_path / "out", data=str(class_folders()), split="val")
    assert scores["accuracy"] == pytest.approx(row["scores"]["accuracy"]) and scores["accuracy"] > 0.9


def test_openvino_reads_a_graph_of_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph in between has two files; what is kept is OpenVINO's own pair alone."""
    monkeypatch.setattr(graph, "LARGEST_INSIDE", 0)
    options = ExportOptions(precision="int8", data=str(class_folders()), force=True)
    export_model(digits_run(), to="openvino", out=tmp_path / "ov", options=options)
    files = sorted(path.name for path in (tmp_path / "ov").iterdir())
    assert files == ["README.md", "config.json", "openvino.bin", "openvino.xml"]
    row = read_info(tmp_path / "ov").provenance["contract"]["program"]
    assert row["agreement"] >= 0.99 and row["scores"]["accuracy"] > 0.9


def test_no_weight_is_cut_or_turned_when_a_graph_is_loaded() -> None:
    """Each such operator costs an engine a copy, and hides a layer from int8.

    11 layers of two blocks: patches, head, and qkv, projection and two of the MLP; the last block computes
    the query of the class token alone, from a part of qkv.
    """
    model = load_graph(digits_onnx() / "model.onnx")
    constants = {tensor.name for tensor in model.graph.initializer}
    views = [node for node in model.graph.node if node.op_type in graph.VIEWS]
    assert not [node.name for node in views if set(node.input) <= constants]
    assert len(find_layers(model)) == 14  # q, k and v each have their own


def test_data_of_other_classes_is_refused_by_name(tmp_path: Path) -> None:
    shutil.copytree(class_folders() / "one", tmp_path / "data" / "eleven")
    shutil.copytree(class_folders() / "two", tmp_path / "data" / "two")
    with pytest.raises(DataError, match="eleven"):
        export_model(
            digits_run(), to="onnx", out=tmp_path / "out", options=ExportOptions(data=str(tmp_path / "data"))
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        ("onnx", ExportOptions(precision="bf16"), "computes no bf16"),
        ("compiled", ExportOptions(precision="int8"), "has no int8"),
        ("compiled", ExportOptions(with_map=True), "has no maps"),
        ("onnx", ExportOptions(precision="int8"), "calibrated on real images"),
        ("hf", ExportOptions(precision="int8"), "no precision, maps or bounds"),
        ("timm", ExportOptions(data="x"), "needs no images"),
    ],
)
def test_options_that_a_format_lacks_are_refused_with_what_works(
    to: str, options: ExportOptions, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        export_model(digits_run(), to=to, out=tmp_path / "out", options=options)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_program_is_named(tmp_path: Path) -> None:
    from tesela.runtime.predictor import Predictor

    shutil.copytree(digits_onnx(), tmp_path / "copy")
    data = bytearray((tmp_path / "copy" / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "copy" / "model.onnx").write_bytes(data)
    with pytest.raises(WeightsError, match=r"model\.onnx is damaged"):
        Predictor(tmp_path / "copy")
