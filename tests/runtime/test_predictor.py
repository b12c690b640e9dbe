"""The predictor against the network called by hand, torch against onnxruntime, and life without torch."""

from __future__ import annotations

import dataclasses
import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.runtime.bundles import LABELS, SPEC, digits, digits_onnx, digits_run, held_out, png

from tesela.core.errors import UnknownNameError, UsageError, WeightsError
from tesela.models.bundle import BundleInfo, load_bundle, read_info, write_info
from tesela.runtime.predictor import Predictor

ROOT = Path(__file__).resolve().parents[2]


def test_equals_the_network_called_by_hand() -> None:
    """Reference: pixels / 255, minus mean, divided by std, through the loaded nn.Module and torch's own
    softmax."""
    images, _ = digits()
    model, _ = load_bundle(digits_run() / "bundle")
    batch = (
        torch.from_numpy(images[1500:1520].transpose(0, 3, 1, 2).copy()).float() / 255 - SPEC.mean[0]
    ) / SPEC.std[0]
    with torch.no_grad():
        wanted = model(batch).softmax(1).numpy()
    found = Predictor(digits_run()).predict([png(image) for image in images[1500:1520]], top=10)
    for row, prediction in zip(wanted, found, strict=True):
        assert [score.index for score in prediction.scores] == np.argsort(-row, kind="stable").tolist()
        assert [score.label for score in prediction.scores] == [
            LABELS[score.index] for score in prediction.scores
        ]
        for score in prediction.scores:
            assert score.probability == pytest.approx(row[score.index], abs=1e-6)


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_knows_digits_it_was_not_trained_on(backend: str) -> None:
    """Held-out labels: at least 80 of 100, so the labels are in the right order in either backend."""
    images, targets = held_out(100)
    found = Predictor(digits_run() if backend == "torch" else digits_onnx(), backend=backend).predict(
        images, top=1
    )
    assert (
        sum(prediction.scores[0].index == target for prediction, target in zip(found, targets, strict=True))
        >= 80
    )


def test_torch_and_onnxruntime_agree_on_mnist(shared: Path) -> None:
    """200 MNIST test images (28 x 28, resized by the model's spec): same label, probabilities to 1e-4."""
    raw = gzip.decompress((shared / "data/mnist/t10k-images-idx3-ubyte.gz").read_bytes())
    images = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28, 1)[:200]
    torch_side = Predictor(digits_run(), backend="torch").predict([png(image) for image in images], top=10)
    onnx_side = Predictor(digits_onnx(), backend="onnxruntime").predict(
        [png(image) for image in images], top=10
    )
    for left, right in zip(torch_side, onnx_side, strict=True):
        assert left.scores[0].label == right.scores[0].label
        assert probabilities(left.scores) == pytest.approx(probabilities(right.scores), abs=1e-4)


def probabilities(scores: object) -> list[float]:
    return [score.probability for score in sorted(scores, key=lambda score: score.index)]  # type: ignore[call-overload]


@pytest.mark.parametrize("place", [digits_run, digits_onnx])
def test_batch_size_and_repetition_change_nothing(place: object) -> None:
    """Batches of 1, 7 and 32 give the same to 1e-6; the same call twice gives the same bits."""
    predictor = Predictor(place())  # type: ignore[operator]
    images, _ = held_out(20)
    whole = predictor.predict(images, top=3)
    assert predictor.predict(images, top=3) == whole
    for batch in (1, 7):
        for one, other in zip(whole, predictor.predict(images, top=3, batch=batch), strict=True):
            assert [score.label for score in one.scores] == [score.label for score in other.scores]
            assert [score.probability for score in one.scores] == pytest.approx(
                [score.probability for score in other.scores], abs=1e-6
            )


def test_files_arrays_and_bytes_are_the_same_image(tmp_path: Path) -> None:
    """One image in all three forms."""
    images, _ = digits()
    path = tmp_path / "digit.png"
    path.write_bytes(png(images[1500]))
    found = Predictor(digits_run()).predict([path, path.read_bytes(), images[1500]])
    assert found[0].scores == found[1].scores == found[2].scores
    assert found[0].source == str(path)


def test_unreadable_images_do_not_disturb_their_neighbours(tmp_path: Path) -> None:
    """Failures carry the decoder's code; the others are what they are alone."""
    images, _ = held_out(2)
    predictor = Predictor(digits_run())
    found = predictor.predict(
        [images[0], b"", images[1], b"no image", images[0][:60], tmp_path / "absent.png"]
    )
    alone = predictor.predict(images)
    codes = [prediction.failure.code if prediction.failure else "" for prediction in found]
    assert codes == ["", "empty", "", "not_an_image", "truncated", "unreadable_file"]
    for prediction, reference in ((found[0], alone[0]), (found[2], alone[1])):
        assert [score.label for score in prediction.scores] == [score.label for score in reference.scores]
        assert [score.probability for score in prediction.scores] == pytest.approx(
            [s.probability for s in reference.scores], abs=1e-6
        )
    assert found[1].to_mapping()["error"]["code"] == "empty"
    assert predictor.predict([b"", b""])[1].failure is not None


def test_a_size_that_the_model_does_not_take_is_a_failure_not_a_crash(tmp_path: Path) -> None:
    """With resize "none" an image of another size fails alone, by a code of its own."""
    shutil.copytree(digits_run() / "bundle", tmp_path / "b")
    info = read_info(tmp_path / "b")
    write_info(tmp_path / "b", replaced_resize(info))
    found = Predictor(tmp_path / "b").predict([png(np.zeros((9, 9, 1), np.uint8)), held_out(1)[0][0]])
    assert found[0].failure is not None
    assert found[0].failure.code == "wrong_size"
    assert found[1].best is not None


def replaced_resize(info: BundleInfo) -> BundleInfo:
    return dataclasses.replace(info, image=dataclasses.replace(info.image, resize="none"))


def test_auto_takes_what_is_there() -> None:
    assert Predictor(digits_run()).backend.name == "torch"
    assert Predictor(digits_onnx()).backend.name == "onnxruntime"


def test_bf16_is_close_to_fp32() -> None:
    """bf16 has 8 bits of mantissa.

    Probabilities of a sharp model stay within 0.05 and 98 of 100 labels agree.
    """
    images, _ = held_out(100)
    exact = Predictor(digits_run()).predict(images, top=1)
    rough = Predictor(digits_run(), backend="torch", precision="bf16").predict(images, top=1)
    assert (
        sum(
            left.best.label == right.best.label
            for left, right in zip(exact, rough, strict=True)
            if left.best and right.best
        )
        >= 98
    )


WITHOUT_TORCH = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "kornia", "transformers", "sklearn", "pyarrow"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

if sys.argv[1] == "blocked":
    sys.meta_path.insert(0, Blocker())
import json
from pathlib import Path
from tesela.runtime.predictor import Predictor
found = Predictor(sys.argv[2]).predict([Path(name) for name in sys.argv[3:]], top=10)
rows = [prediction.to_mapping() for prediction in found]
print(json.dumps({"torch": "torch" in sys.modules, "rows": rows}))
"""


@pytest.mark.parametrize("mode", ["free", "blocked"])
def test_an_onnx_bundle_predicts_without_torch(mode: str, tmp_path: Path) -> None:
    """In a fresh process torch is never imported, and is not missed where importing it is impossible.

    Results equal torch's to 1e-4.
    """
    images, _ = held_out(4)
    for index, image in enumerate(images):
        (tmp_path / f"{index}.png").write_bytes(image)
    paths = sorted(tmp_path.iterdir())
    command = [sys.executable, "-c", WITHOUT_TORCH, mode, str(digits_onnx()), *map(str, paths)]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)
    assert answer["torch"] is False
    for row, wanted in zip(
        answer["rows"], Predictor(digits_run(), backend="torch").predict(paths, top=10), strict=True
    ):
        assert row["label"] == wanted.scores[0].label
        assert {one["label"]: one["probability"] for one in row["top"]} == pytest.approx(
            {score.label: score.probability for score in wanted.scores}, abs=1e-4
        )


def test_the_cli_predicts_without_torch(tmp_path: Path) -> None:
    """``tesela predict`` on an ONNX bundle in a process in which torch cannot be imported."""
    (tmp_path / "a.png").write_bytes(held_out(1)[0][0])
    code = WITHOUT_TORCH.partition("import json")[0] + "from tesela.cli.main import main; main(sys.argv[2:])"
    command = [
        sys.executable,
        "-c",
        code,
        "blocked",
        "predict",
        str(digits_onnx()),
        str(tmp_path / "a.png"),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] in LABELS


def test_a_torch_bundle_without_torch_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(held_out(1)[0][0])
    code = WITHOUT_TORCH.partition("import json")[0] + "from tesela.cli.main import main; main(sys.argv[2:])"
    command = [sys.executable, "-c", code, "blocked", "predict", str(digits_run()), str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert 'hint: pip install "tesela[train]"' in done.stderr
    assert len(done.stderr.splitlines()) == 2


def damaged(tmp_path: Path) -> Path:
    shutil.copytree(digits_onnx(), tmp_path / "onnx")
    return tmp_path / "onnx"


def test_a_flipped_bit_in_the_graph_is_named(tmp_path: Path) -> None:
    bundle = damaged(tmp_path)
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.onnx is damaged"):
        Predictor(bundle)


def test_a_bundle_without_a_model_is_refused(tmp_path: Path) -> None:
    bundle = damaged(tmp_path)
    (bundle / "model.onnx").unlink()
    with pytest.raises(WeightsError, match="neither"):
        Predictor(bundle)


def test_a_graph_that_does_not_fit_its_config_is_refused(tmp_path: Path) -> None:
    bundle = damaged(tmp_path)
    info = read_info(bundle)
    colour = dataclasses.replace(info.image, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    write_info(bundle, dataclasses.replace(info, image=colour))
    with pytest.raises(WeightsError, match=r"config\.json says"):
        Predictor(bundle)


def test_wrong_words_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown backend 'onyxruntime'"):
        Predictor(digits_run(), backend="onyxruntime")
    with pytest.raises(UsageError, match="there is no run"):
        Predictor(tmp_path / "absent")
    with pytest.raises(UsageError, match="top and batch"):
        Predictor(digits_run()).predict([], top=0)
    with pytest.raises(WeightsError, match=r"no model\.onnx"):
        Predictor(digits_run(), backend="onnxruntime")


def test_the_logits_of_a_batch_are_the_networks_own() -> None:
    """Reference: the module itself."""
    batch: NDArray[np.float32] = np.random.default_rng(0).standard_normal((3, 1, 8, 8), dtype=np.float32)
    model, _ = load_bundle(digits_run() / "bundle")
    with torch.no_grad():
        wanted = model(torch.from_numpy(batch)).numpy()
    np.testing.assert_array_equal(Predictor(digits_run()).backend.logits(batch), wanted)
    np.testing.assert_allclose(Predictor(digits_onnx()).backend.logits(batch), wanted, atol=1e-4)
