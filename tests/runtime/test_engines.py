"""Backends against one another: packed bf16 layers, compiled weights, OpenVINO, further outputs of graphs."""

from __future__ import annotations

import copy
import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tests.runtime.bundles import digits, digits_onnx, digits_run

from tesela.core.errors import ConfigError, MissingExtraError, WeightsError
from tesela.core.files import sha256_file
from tesela.core.packages import installed
from tesela.hardware.torch_private import packed_weight
from tesela.imaging.preprocess import normalize
from tesela.models.bundle import load_bundle, read_info, write_info
from tesela.models.factory import create_model
from tesela.runtime.backends import base
from tesela.runtime.backends.base import open_backend
from tesela.runtime.backends.packed import PackedDense, pack_dense
from tesela.runtime.backends.torch import network_logits
from tesela.runtime.predictor import Predictor

COMPILED = """
import sys
import numpy as np
from tests.runtime.test_engines import real_batch
from tesela.runtime.predictor import Predictor

images = real_batch(5)
wanted = Predictor(sys.argv[1], backend="torch").backend.logits(images)
compiled = Predictor(sys.argv[1], backend="compiled").backend
assert (compiled.name, compiled.precision) == ("compiled", "fp32")
np.testing.assert_allclose(compiled.logits(images), wanted, atol=1e-4)
np.testing.assert_allclose(compiled.logits(images[:2]), wanted[:2], atol=1e-4)
"""
needs_openvino = pytest.mark.skipif(not installed("openvino"), reason="OpenVINO is not installed")
packs = packed_weight(torch.zeros(2, 2, dtype=torch.bfloat16), 1) is not None


def real_batch(count: int) -> NDArray[np.float32]:
    info = read_info(digits_run() / "bundle")
    return normalize(digits()[0][1500 : 1500 + count], info.image)


@pytest.mark.parametrize(
    "name", ["vit_nano", "deit_ti16", "cct_2_3x2_32", "r_vit_ti16", "resnet18", "segformer_b0"]
)
def test_packed_layers_compute_the_same(name: str) -> None:
    """Reference: the same network in bf16 with plain weights; both round to 8 bits in other orders."""
    config = {"depth": 2} if name.startswith(("vit", "deit")) else {}
    model = create_model(name, num_classes=5, seed=0, **config)
    torch.manual_seed(0)
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    size = model.config.image_size
    images = torch.randn(2, model.config.channels, *size)
    plain = copy.deepcopy(model).bfloat16().eval()
    packed = network_logits(copy.deepcopy(model), precision="bf16")(images.numpy())
    with torch.inference_mode():
        wanted, exact = plain(images.bfloat16()).float().numpy(), model.eval()(images).numpy()
    rounding = np.abs(wanted - exact).max()
    assert np.abs(packed - wanted).max() <= 2 * rounding
    assert np.abs(packed - exact).max() <= 2 * rounding


@pytest.mark.skipif(not packs, reason="this processor has no bf16 products")
def test_dense_layers_are_packed_and_subclasses_are_not() -> None:
    """Every plain layer is replaced; one that may do more than its weight says stays."""

    class Louder(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    model = torch.nn.Sequential(torch.nn.Linear(8, 8), Louder(8, 4)).bfloat16().eval()
    images = torch.randn(3, 8).bfloat16()
    with torch.inference_mode():
        wanted = model(images)
        pack_dense(model, rows=3)
        assert isinstance(model[0], PackedDense)
        assert isinstance(model[1], Louder)
        assert torch.equal(model(images), wanted)


def test_bf16_leaves_the_network_that_explains_in_fp32() -> None:
    """The computing network is another one, so that maps and gradients are those of the bundle."""
    predictor = Predictor(digits_run(), backend="torch", precision="bf16")
    network, _ = load_bundle(digits_run() / "bundle")
    images = torch.from_numpy(real_batch(3))
    with torch.inference_mode():
        torch.testing.assert_close(predictor.network(images), network(images), rtol=0, atol=1e-5)
    assert not np.array_equal(predictor.backend.logits(images.numpy()), network(images).detach().numpy())


@needs_openvino
def test_openvino_reads_the_onnx_graph() -> None:
    """1e-4 from onnxruntime in fp32, batches of any size; bf16 is another precision of the same graph."""
    images = real_batch(20)
    info = read_info(digits_onnx())
    wanted = open_backend("onnxruntime", digits_onnx(), info).logits(images)
    exact = open_backend("openvino", digits_onnx(), info, threads=1)
    np.testing.assert_allclose(exact.logits(images), wanted, atol=1e-4)
    np.testing.assert_allclose(exact.logits(images[:3]), wanted[:3], atol=1e-4)
    rough = open_backend("openvino", digits_onnx(), info, precision="bf16")
    assert rough.precision == "bf16"
    np.testing.assert_allclose(rough.logits(images), wanted, atol=0.5)


SIGNALLED = """
import os, signal, sys, threading
from pathlib import Path
from tests.runtime.test_engines import real_batch
from tesela.models.bundle import read_info
from tesela.runtime.backends.base import open_backend

bundle = Path(sys.argv[1])
handled = []
signal.signal(signal.SIGUSR1, lambda *_: handled.append(True))
backends = [open_backend("openvino", bundle, read_info(bundle), precision=name) for name in ("fp32", "bf16")]
for backend in backends:
    backend.logits(real_batch(2))
del backend, backends[0]
ending = threading.Thread(target=backends.clear)
ending.start()
ending.join()
os.kill(os.getpid(), signal.SIGUSR1)
assert handled
"""


@needs_openvino
def test_a_signal_after_openvino_is_handled() -> None:
    """Engines that end in any order, on any thread, leave the thread a signal stack that exists."""
    answer = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(digits_onnx())], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr


def test_onnxruntime_notes_nothing_about_its_user(tmp_path: Path) -> None:
    """It would keep a device id and events in the cache of whoever predicts, to send them."""
    code = (
        "import sys\nfrom tesela.runtime.predictor import Predictor\n"
        "from tests.runtime.test_engines import real_batch\n"
        "Predictor(sys.argv[1], backend='onnxruntime').backend.logits(real_batch(2))"
    )
    homes = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", code, str(digits_onnx())], env=environment | homes, check=True)
    assert not [
        path for path in tmp_path.rglob("*") if "onnxruntime" in path.name or "Microsoft" in path.name
    ]


@needs_openvino
def test_openvino_refuses_damage_and_other_precisions(tmp_path: Path) -> None:
    bundle = shutil.copytree(digits_onnx(), tmp_path / "onnx")
    with pytest.raises(ConfigError, match=r"the openvino backend cannot compute .* in int8"):
        open_backend("openvino", bundle, read_info(bundle), precision="int8")
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.onnx is damaged"):
        open_backend("openvino", bundle, read_info(bundle))


def with_sums(folder: Path) -> Path:
    """A copy of the digits' graph with a second output: the sum of each image's pixels."""
    bundle = shutil.copytree(digits_onnx(), folder / "sums")
    model = onnx.load(str(bundle / "model.onnx"))
    model.graph.node.append(helper.make_node("ReduceSum", ["images", "axes"], ["map"], keepdims=0))
    model.graph.initializer.append(helper.make_tensor("axes", TensorProto.INT64, [1], [1]))
    model.graph.output.append(helper.make_tensor_value_info("map", TensorProto.FLOAT, ["batch", 8, 8]))
    onnx.save(model, str(bundle / "model.onnx"))
    info = read_info(bundle)
    digest = {"model.onnx": sha256_file(bundle / "model.onnx")}
    program = {"format": "onnx", "precision": "fp32", "file": "model.onnx", "outputs": ["logits", "map"]}
    write_info(bundle, dataclasses.replace(info, digests=digest, program=program))
    return bundle


@pytest.mark.parametrize("engine", ["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
def test_further_outputs_of_a_graph(engine: str, tmp_path: Path) -> None:
    """Each output is asked for by its name, in any order; logits stay what they are without it."""
    bundle = with_sums(tmp_path)
    info = read_info(bundle)
    assert info.program["outputs"] == ["logits", "map"]
    backend: Any = open_backend(engine, bundle, info)
    images = real_batch(4)
    assert backend.outputs == ("logits", "map")
    np.testing.assert_allclose(backend.output("map", images), images.sum(1), rtol=1e-5)
    plain = open_backend("onnxruntime", digits_onnx(), read_info(digits_onnx())).logits(images)
    np.testing.assert_allclose(backend.logits(images), plain, atol=1e-4)


def test_a_graph_of_any_size_fits_its_bundle(tmp_path: Path) -> None:
    """Free dimensions are no contradiction; fixed ones that differ are (see test_predictor)."""
    bundle = with_sums(tmp_path)
    model = onnx.load(str(bundle / "model.onnx"))
    for place, name in ((2, "height"), (3, "width")):
        model.graph.input[0].type.tensor_type.shape.dim[place].dim_param = name
    onnx.save(model, str(bundle / "model.onnx"))
    info = read_info(bundle)
    digest = {"model.onnx": sha256_file(bundle / "model.onnx")}
    write_info(bundle, dataclasses.replace(info, digests=digest))
    assert Predictor(bundle, backend="onnxruntime").predict([digits()[0][1500]])[0].best is not None


def test_a_program_says_its_precision(tmp_path: Path) -> None:
    """An int8 graph is int8 for every engine: asking for another number format is refused, not ignored."""
    bundle = with_sums(tmp_path)
    info = read_info(bundle)
    write_info(bundle, dataclasses.replace(info, program={**info.program, "precision": "int8"}))
    assert Predictor(bundle, backend="onnxruntime").backend.precision == "int8"
    assert Predictor(bundle, backend="onnxruntime", precision="int8").backend.precision == "int8"
    with pytest.raises(ConfigError, match=r"cannot compute .* in fp32"):
        Predictor(bundle, backend="onnxruntime", precision="fp32")


def test_weights_compiled_here() -> None:
    """torch.compile with frozen weights: 1e-4 from the network itself, a batch of another size too.

    In a process of its own: what a compiler does to a process is not for the tests that come after it.
    """
    from tesela.hardware.machine import compiler

    if compiler() is None:
        with pytest.raises(Exception, match="no C"):
            Predictor(digits_run(), backend="compiled")
        return
    answer = subprocess.run(
        [sys.executable, "-c", COMPILED, str(digits_run())], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr


def test_a_package_of_another_machine_is_refused(tmp_path: Path) -> None:
    """A package that is none, under its right digest; and one whose digest is wrong."""
    bundle = tmp_path / "compiled"
    bundle.mkdir()
    (bundle / "model.pt2").write_bytes(b"no package")
    info = read_info(digits_run() / "bundle")
    program = {"format": "compiled", "precision": "fp32", "file": "model.pt2", "outputs": ["logits"]}
    info = dataclasses.replace(info, program=program, digests={"model.pt2": "0" * 64})
    write_info(bundle, info)
    with pytest.raises(WeightsError, match=r"model\.pt2 is damaged"):
        Predictor(bundle)
    write_info(bundle, dataclasses.replace(info, digests={"model.pt2": sha256_file(bundle / "model.pt2")}))
    with pytest.raises(WeightsError, match="compiled for another machine"):
        Predictor(bundle)


def test_an_engine_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "installed", lambda package: package != "openvino")
    with pytest.raises(MissingExtraError, match="openvino"):
        Predictor(digits_onnx(), backend="openvino")
