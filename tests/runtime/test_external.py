"""Programs with weights in a second file: the same answers; damage, other files and links are told apart."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.runtime.bundles import digits_onnx
from tests.runtime.test_engines import needs_openvino, real_batch

from tesela.core.errors import WeightsError
from tesela.core.files import sha256_file
from tesela.exporters import graph
from tesela.models.bundle import read_info, write_info
from tesela.runtime.backends.base import open_backend
from tesela.runtime.backends.external import FIELDS, external_files
from tesela.runtime.footprint import resident_bytes
from tesela.runtime.predictor import Predictor

ENGINES = ["onnxruntime", pytest.param("openvino", marks=needs_openvino)]
GRAPH, DATA = "model.onnx", "model.onnx.data"


def digested(bundle: Path) -> Path:
    """The bundle, whose config.json gives the digests of the files that are there."""
    sums = {name: sha256_file(bundle / name) for name in (GRAPH, DATA) if (bundle / name).is_file()}
    write_info(bundle, dataclasses.replace(read_info(bundle), digests=sums))
    return bundle


def parted_copy(bundle: Path, target: Path) -> Path:
    """A copy of a bundle whose graph has its weights in a second file, as a large model's has."""
    shutil.copytree(bundle, target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "LARGEST_INSIDE", 0)
        patch.setattr(graph, "SMALLEST_OUTSIDE", 64)
        graph.save_model(onnx_ir.load(bundle / GRAPH), target / GRAPH)
    return digested(target)


@pytest.fixture
def parted(tmp_path: Path) -> Path:
    return parted_copy(digits_onnx(), tmp_path / "parted")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_answers_wherever_the_folder_lies(engine: str, parted: Path, tmp_path: Path) -> None:
    assert (parted / GRAPH).stat().st_size + (parted / DATA).stat().st_size > 100_000
    assert (parted / DATA).stat().st_size > 0.8 * (digits_onnx() / GRAPH).stat().st_size - 60_000
    assert (parted / DATA).stat().st_mode == (parted / GRAPH).stat().st_mode
    moved = Path(shutil.move(parted, tmp_path / "elsewhere" / "moved"))
    images = real_batch(5)
    wanted = open_backend(engine, digits_onnx(), read_info(digits_onnx())).logits(images)
    backend = open_backend(engine, moved, read_info(moved))
    np.testing.assert_allclose(backend.logits(images), wanted, atol=1e-6)
    larger = np.repeat(images, 2, axis=3)
    one_file = open_backend(engine, digits_onnx(), read_info(digits_onnx())).logits(larger)
    np.testing.assert_allclose(backend.logits(larger), one_file, atol=1e-6)


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swapped(path: Path) -> None:
    """The weights of another model of the same shapes: as many bytes, others."""
    values = np.frombuffer(path.read_bytes(), np.uint8)
    path.write_bytes(values[::-1].tobytes())


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (flipped, r"model\.onnx\.data is damaged"),
        (swapped, r"model\.onnx\.data is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), r"model\.onnx\.data is damaged"),
        (Path.unlink, r"model\.onnx\.data is missing"),
    ],
    ids=["flipped", "swapped", "truncated", "missing"],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_damage_of_the_second_file_is_named(
    engine: str, harm: Callable[[Path], object], message: str, parted: Path
) -> None:
    harm(parted / DATA)
    with pytest.raises(WeightsError, match=message) as caught:
        Predictor(parted, backend=engine)
    assert "export the model again" in caught.value.hint


def test_a_second_file_without_a_digest_is_refused(parted: Path) -> None:
    info = read_info(parted)
    write_info(parted, dataclasses.replace(info, digests={GRAPH: info.digests[GRAPH]}))
    with pytest.raises(WeightsError, match=r"gives no digest for model\.onnx\.data"):
        Predictor(parted, backend="onnxruntime")
    (parted / DATA).unlink()
    with pytest.raises(WeightsError, match=r"reads weights from model\.onnx\.data, which is missing"):
        Predictor(parted, backend="onnxruntime")


def outside(name: str) -> Any:
    """A tensor whose values lie in the file of that name."""
    tensor = numpy_helper.from_array(np.zeros(16, np.float32), "outer")
    onnx.external_data_helper.set_external_data(tensor, name, 0, 64)
    tensor.ClearField("raw_data")
    return tensor


def in_an_initializer(model: Any, name: str) -> None:
    model.graph.initializer.append(outside(name))
    model.graph.node.append(helper.make_node("Identity", ["outer"], ["unused"]))


def in_a_constant(model: Any, name: str) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=outside(name)))


def in_a_branch(model: Any, name: str) -> None:
    node = helper.make_node("Constant", [], ["deep"], value=outside(name))
    value = helper.make_tensor_value_info("deep", TensorProto.FLOAT, [16])
    branch = helper.make_graph([node], "branch", [], [value])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    model.graph.node.append(
        helper.make_node("If", ["always"], ["unused"], then_branch=branch, else_branch=branch)
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("place", "name"),
    [
        (in_an_initializer, "../secret.bin"),
        (in_an_initializer, "sub/../model.onnx.data"),
        (in_an_initializer, "config.json"),
        (in_an_initializer, "*/_ORT_MEM_ADDR_/*"),
        (in_a_constant, "/etc/hostname"),
        (in_a_branch, "../secret.bin"),
    ],
)
def test_weights_in_any_other_file_are_refused(
    engine: str, place: Callable[[Any, str], None], name: str, parted: Path
) -> None:
    """A changed graph with a digest that fits; every place of a graph that holds tensors is looked at."""
    (parted.parent / "secret.bin").write_bytes(bytes(64))
    model = onnx.load(parted / GRAPH, load_external_data=False)
    place(model, name)
    (parted / GRAPH).write_bytes(model.SerializeToString())
    digested(parted)
    assert external_files(parted / GRAPH) == {DATA, name}
    with pytest.raises(WeightsError, match="not covered by its digests") as caught:
        Predictor(parted, backend=engine)
    assert repr(name) in str(caught.value) and "beside it alone" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"no graph at all", b"\x3a\xff\xff\x7f", b"\x80" * 40])
def test_what_is_no_graph_is_refused(content: bytes, parted: Path) -> None:
    (parted / GRAPH).write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.onnx is damaged or no ONNX graph"):
        Predictor(digested(parted), backend="onnxruntime")


def test_all_ways_from_a_model_to_its_tensors_are_known() -> None:
    """Reference: the description of the format in the onnx package."""
    messages: dict[str, Any] = {}
    todo = [onnx.ModelProto.DESCRIPTOR]
    while todo:
        message = todo.pop()
        if message.name not in messages:
            messages[message.name] = message
            todo += [field.message_type for field in message.fields if field.message_type]
    edges = {
        name: {field.number: field.message_type.name for field in message.fields if field.message_type}
        for name, message in messages.items()
    }
    holders = {"TensorProto"}
    while found := {name for name, inside in edges.items() if holders & set(inside.values())} - holders:
        holders |= found
    wanted = {
        name: {number: kind for number, kind in edges[name].items() if kind in holders} for name in holders
    }
    (entry,) = (field for field in onnx.TensorProto.DESCRIPTOR.fields if field.name == "external_data")
    wanted["TensorProto"] = {entry.number: entry.message_type.name}
    assert wanted == FIELDS


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege there")
def test_links_into_a_store_of_files(parted: Path, tmp_path: Path) -> None:
    """As the cache of a model hub keeps them; engines take no weights from outside of the graph's folder."""
    images = real_batch(3)
    wanted = open_backend("onnxruntime", parted, read_info(parted)).logits(images)
    store, linked = tmp_path / "store", tmp_path / "linked"
    store.mkdir()
    linked.mkdir()
    for number, name in enumerate((GRAPH, DATA, "config.json")):
        shutil.copy(parted / name, store / str(number))
        (linked / name).symlink_to(store / str(number))
    np.testing.assert_array_equal(
        open_backend("onnxruntime", linked, read_info(linked)).logits(images), wanted
    )
    shutil.copy(parted / GRAPH, store / GRAPH)
    (linked / GRAPH).unlink()
    shutil.copy(parted / GRAPH, linked / GRAPH)
    np.testing.assert_array_equal(
        open_backend("onnxruntime", linked, read_info(linked)).logits(images), wanted
    )


@needs_openvino
@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege there")
def test_openvino_says_that_it_takes_no_links(parted: Path) -> None:
    shutil.move(parted / DATA, parted.parent / "far.data")
    (parted / DATA).symlink_to(parted.parent / "far.data")
    with pytest.raises(WeightsError, match="its weights are a symbolic link") as caught:
        Predictor(parted, backend="openvino")
    assert "cp -rL" in caught.value.hint


@pytest.mark.skipif(os.name != "posix", reason="names are text there")
def test_a_folder_whose_name_is_no_utf8(parted: Path, tmp_path: Path) -> None:
    images = real_batch(3)
    wanted = open_backend("onnxruntime", parted, read_info(parted)).logits(images)
    odd = tmp_path / os.fsdecode(b"n\xff")
    try:
        shutil.move(parted, odd)
    except OSError:
        pytest.skip("the file system takes no such name")
    np.testing.assert_array_equal(open_backend("onnxruntime", odd, read_info(odd)).logits(images), wanted)


def test_a_second_file_saves_memory(tmp_path: Path) -> None:
    """52 MB of weights in fp32: mapped, a process never holds a copy of them beside the arranged ones."""
    bundle = shutil.copytree(digits_onnx(), tmp_path / "one")
    draw, sides = np.random.default_rng(0), (64, *[1000] * 13, 10)
    weights = [
        numpy_helper.from_array(draw.standard_normal(pair, np.float32) / 32, f"w{number}")
        for number, pair in enumerate(itertools.pairwise(sides))
    ]
    names = ["pixels", *(f"hidden{number}" for number in range(13)), "logits"]
    weights.append(numpy_helper.from_array(np.array([0, 64], np.int64), "flat"))
    nodes = [
        helper.make_node("Reshape", ["images", "flat"], ["pixels"]),
        *(
            helper.make_node("MatMul", [names[number], f"w{number}"], [names[number + 1]])
            for number in range(14)
        ),
    ]
    ends = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 8, 8]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10]),
    ]
    drawn = helper.make_graph(nodes, "wide", ends[:1], ends[1:], weights)
    model = helper.make_model(drawn, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, bundle / GRAPH)
    digested(bundle)
    parted = parted_copy(bundle, tmp_path / "two")
    one, two = (resident_bytes(place, "onnxruntime", "fp32", [1], threads=1)[0] for place in (bundle, parted))
    assert one is not None and two is not None and two < one - 5_000_000, (one, two)
