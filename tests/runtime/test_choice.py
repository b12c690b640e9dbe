"""Choice of backend and precision: what is taken, when it agrees, where it is kept, what is measured."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.runtime.bundles import digits, digits_run

from tesela.core.errors import UsageError
from tesela.models.bundle import BundleInfo, read_info
from tesela.runtime import choice
from tesela.runtime.backends.base import Precision
from tesela.runtime.choice import Way, agreement, choose_way, places, random_batch, shares, ways
from tesela.runtime.predictor import Predictor


@dataclasses.dataclass
class Engine:
    """A backend of known speed and answers."""

    name: str
    precision: Precision
    seconds: float
    change: Callable[[NDArray[np.float32]], NDArray[np.float32]]

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.change(images.reshape(len(images), -1)[:, :10] * 3)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle and caches of its own."""
    monkeypatch.setattr(choice, "computes_bf16", lambda: True)
    monkeypatch.setenv("TESELA_HOME", str(tmp_path / "home"))
    shutil.copytree(digits_run() / "bundle", tmp_path / "models" / "bundle")
    return tmp_path / "models" / "bundle"


def same(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return logits


def engines(
    monkeypatch: pytest.MonkeyPatch, *, fast: float, change: Callable[..., NDArray[np.float32]] = same
) -> list[str]:
    """torch in fp32 takes 10 ms an image, in bf16 ``fast``; what was opened is listed."""
    opened = []

    def open_engine(name: str, _bundle: Path, _info: BundleInfo, **options: object) -> Engine:
        opened.append(f"{name} {options['precision']}")
        if options["precision"] == "fp32":
            return Engine(name, "fp32", 0.01, same)
        return Engine(name, "bf16", fast, change)

    def timing(engine: Engine, images: NDArray[np.float32]) -> tuple[float, NDArray[np.float32]]:
        return engine.seconds * len(images), engine.logits(images)

    monkeypatch.setattr(choice, "open_backend", open_engine)
    monkeypatch.setattr(choice, "_timing", timing)
    return opened


def test_the_faster_way_is_taken_where_it_agrees(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 at a fifth of the time: taken, with both figures, and said in one line."""
    engines(monkeypatch, fast=0.002)
    found, backend = choose_way(bundle, read_info(bundle))
    assert found.way == Way(backend="torch", precision="bf16")
    assert backend.precision == "bf16"
    first, second = found.timed
    assert first.single == pytest.approx(0.01)
    assert second.batched == pytest.approx(0.002)
    assert (second.difference, second.same_label) == (0.0, 1.0)
    line = found.line()
    assert line.startswith("torch bf16: ")
    assert "5.0x as fast as torch fp32; on 8 random images 0.0e+00 off in a probability" in line


@pytest.mark.parametrize(
    ("fast", "change"),
    [
        (0.0095, same),  # within the noise
        (0.002, lambda logits: logits[:, ::-1]),  # other labels
        (0.002, lambda logits: logits * 1.5),  # same labels, other probabilities
        (0.002, lambda logits: logits * np.float32("nan")),
        (0.002, lambda logits: logits[:, :9]),
    ],
)
def test_the_plain_way_stays_otherwise(
    fast: float,
    change: Callable[..., NDArray[np.float32]],
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engines(monkeypatch, fast=fast, change=change)
    assert choose_way(bundle, read_info(bundle))[0].way == Way(backend="torch", precision="fp32")


def test_a_choice_is_kept_until_something_changes(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the bundle; the next time only the chosen one is opened; other weights are measured anew."""
    opened = engines(monkeypatch, fast=0.002)
    info = read_info(bundle)
    kept = choose_way(bundle, info)[0].kept
    assert kept == bundle.parent / ".bundle.speed.json"
    assert opened == ["torch fp32", "torch bf16"]
    again = choose_way(bundle, info)[0]
    assert opened[2:] == ["torch bf16"]
    assert again.remembered
    assert again.line().endswith("(measured earlier)")
    changed = dataclasses.replace(info, digests={**info.digests, "head.linear.bias": "0" * 64})
    assert not choose_way(bundle, changed)[0].remembered
    assert not choose_way(bundle, changed, threads=1)[0].remembered


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format": "tesela-speed/1", "key": "x"}', "\xff"])
def test_a_damaged_file_is_measured_over(content: str, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines(monkeypatch, fast=0.002)
    path = bundle.parent / ".bundle.speed.json"
    path.write_text(content, encoding="latin-1")
    assert not choose_way(bundle, read_info(bundle))[0].remembered
    assert json.loads(path.read_text(encoding="utf-8"))["way"] == {"backend": "torch", "precision": "bf16"}


def test_a_folder_that_cannot_be_written(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice goes to the caches; where these cannot be written either, it is measured each time."""
    engines(monkeypatch, fast=0.002)
    (bundle.parent / ".bundle.speed.json").mkdir()  # root may write anywhere, but not over a folder
    found = choose_way(bundle, read_info(bundle))[0]
    assert found.kept is not None
    assert found.kept.parent.name == "speed"
    assert choose_way(bundle, read_info(bundle))[0].remembered
    shutil.rmtree(found.kept.parent)
    found.kept.parent.write_text("a file", encoding="utf-8")
    assert choose_way(bundle, read_info(bundle))[0].kept is None


def test_an_engine_that_fails_is_no_candidate(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(logits: NDArray[np.float32]) -> NDArray[np.float32]:
        raise RuntimeError("no such instruction")

    engines(monkeypatch, fast=0.002, change=broken)
    assert choose_way(bundle, read_info(bundle))[0].way.precision == "fp32"


def test_the_time_is_bounded(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no time left is not opened, and the plain way answers."""
    opened = engines(monkeypatch, fast=0.002)
    monkeypatch.setattr(choice, "SECONDS", 0.0)
    assert choose_way(bundle, read_info(bundle))[0].way.precision == "fp32"
    assert opened == ["torch fp32"]


def test_a_small_model_is_not_measured(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits of 8 x 8 answer at once: fp32, no line, no file."""
    predictor = Predictor(bundle, precision="auto")
    assert predictor.backend.precision == "fp32"
    assert predictor.choice is not None
    assert predictor.choice.line() == ""
    assert not any(path.exists() for path in places(bundle, "x"))


def test_real_images_are_compared_where_there_are_some(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines(monkeypatch, fast=0.002)
    images = list(digits()[0][1500:1510])
    predictor = Predictor(bundle, precision="auto", sample=[b"no image", *images])
    assert predictor.choice is not None
    assert predictor.choice.images == "real"
    assert predictor.choice.batch == 7  # of the first eight, one cannot be read


def test_only_what_was_asked_for_is_considered(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = engines(monkeypatch, fast=0.002)
    assert choose_way(bundle, read_info(bundle), precision="bf16")[0].way.precision == "bf16"
    assert opened == ["torch bf16"]
    with pytest.raises(UsageError, match=r"computes .* in int8") as raised:
        choose_way(bundle, read_info(bundle), precision="int8")
    assert "torch fp32, torch bf16" in str(raised.value.hint)


def test_ways_of_bundles(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fp32 first, as what the others are compared with; a program of another format in its own alone."""
    monkeypatch.setattr(choice, "computes_bf16", lambda: True)
    monkeypatch.setattr(choice, "usable", lambda _: ["onnxruntime", "openvino"])
    info = read_info(bundle)
    found = list(map(str, ways(bundle, info)))
    assert found == ["onnxruntime fp32", "openvino bf16", "openvino fp32"]
    whole = dataclasses.replace(info, program={"format": "onnx", "precision": "int8"})
    assert list(map(str, ways(bundle, whole))) == ["onnxruntime int8", "openvino int8"]
    monkeypatch.setattr(choice, "computes_bf16", lambda: False)
    assert list(map(str, ways(bundle, info))) == ["onnxruntime fp32", "openvino fp32"]


def test_agreement() -> None:
    """Probabilities of images, and of pixels, where single ones may be off; ties count as equal."""
    wanted = shares(np.array([[4.0, 0.0], [0.001, 0.0]], np.float32))
    assert agreement(wanted, wanted) == (0.0, 1.0)
    turned = wanted[:, ::-1]
    assert agreement(turned, wanted)[1] == 0.5  # the second image is a tie
    masks = shares(np.random.default_rng(0).standard_normal((1, 3, 50, 50), dtype=np.float32))
    assert masks.shape == (1, 50, 50, 3)
    other = masks.copy()
    other[0, 0, 0] = other[0, 0, 0, ::-1]
    difference, share = agreement(other, masks)
    assert difference == 0.0
    assert share >= 1 - 1 / 2500
    assert agreement(masks[:, :2], masks) == (float("inf"), 0.0)


def test_random_images_look_normalised() -> None:
    """The same at each call, of the model's size, in the range of normalised pixels."""
    info = read_info(digits_run() / "bundle")
    found = random_batch(info)
    assert found.shape == (8, 1, 8, 8)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, random_batch(info))
    assert abs(float(found.mean())) < 0.2
    assert 0.5 < float(found.std()) < 1.5


def test_the_fastest_of_several_calls_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of its own: the first call warms up, others take 2 or 10 ms, for a quarter of a second."""
    now, calls = 0.0, 0
    monkeypatch.setattr(choice, "time", SimpleNamespace(perf_counter=lambda: now))

    class Engine:
        def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            nonlocal now, calls
            now += 0.05 if not calls else (0.002, 0.01)[calls % 2]
            calls += 1
            return images

    seconds, outputs = choice._timing(Engine(), np.ones((2, 3), np.float32))  # type: ignore[arg-type]
    assert seconds == pytest.approx(0.002)
    assert 0.2 < now <= choice.EACH + 0.01
    assert outputs.shape == (2, 3)
