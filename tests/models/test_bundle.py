"""Bundles: what is written, and that every defect of R4 is found and named."""

from __future__ import annotations

import dataclasses
import errno
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tesela.core import files
from tesela.core.config import to_mapping
from tesela.core.errors import ConfigError, StorageError, TeselaError, UsageError, WeightsError
from tesela.core.files import sha256_bytes
from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import describe, load_bundle, locate_bundle, read_info, write_bundle, write_info
from tesela.models.classifier import Classifier
from tesela.models.factory import create_model

LABELS = ["cat", "dog.big", "t-shirt", "Größe"]
IMAGE = ImageSpec(height=8, width=8, channels=1, mean=(0.25,), std=(0.5,), resize="pad")


def tiny(**changes: Any) -> Classifier:
    fields: dict[str, Any] = {"width": 8, "depth": 1, "heads": 2, "seed": 0}
    model = create_model("vit_nano", num_classes=len(LABELS), **(fields | changes))
    return model.eval()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    info = describe(
        tiny(),
        name="tiny",
        labels=LABELS,
        image=IMAGE,
        license="MIT",
        metrics={"top.1": {"a-b": 0.5}},
        provenance={"seed": 3},
    )
    write_bundle(tmp_path / "bundle", tiny(), info)
    return tmp_path / "bundle"


def test_what_is_written_is_read_again(bundle: Path) -> None:
    model, info = load_bundle(bundle)
    assert sorted(path.name for path in bundle.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert model.info is info and not model.training and info == read_info(bundle)
    assert (info.labels, info.image, info.license, info.name) == (LABELS, IMAGE, "MIT", "tiny")
    assert info.metrics == {"top.1": {"a-b": 0.5}} and info.provenance == {"seed": 3}
    assert info.architecture == "vit" and info.model == to_mapping(tiny().config)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in tiny().state_dict().items())


def test_the_file_says_what_hubs_expect(bundle: Path) -> None:
    tree = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
    assert tree["format"] == "tesela-bundle/1"
    assert tree["id2label"] == {"0": "cat", "1": "dog.big", "2": "t-shirt", "3": "Größe"}
    assert tree["label2id"] == {label: index for index, label in enumerate(LABELS)}
    assert "tiny" in (bundle / "README.md").read_text()


def test_digests_are_those_of_the_bytes(bundle: Path) -> None:
    for name, tensor in load_file(bundle / "model.safetensors").items():
        assert read_info(bundle).digests[name] == sha256_bytes(tensor.numpy().tobytes())


def test_another_size_at_load_time(bundle: Path) -> None:
    model, info = load_bundle(bundle, image_size=(12, 6))
    same, _ = load_bundle(bundle)
    images = torch.randn(2, 1, 12, 6)
    assert info.image.size == model.config.image_size == (12, 6) and info.model["image_size"] == [12, 6]
    assert isinstance(model, Classifier) and isinstance(same, Classifier)
    torch.testing.assert_close(model.pooled(images), same.pooled(images))


def test_locate(bundle: Path, tmp_path: Path) -> None:
    assert locate_bundle(bundle) == bundle and locate_bundle(tmp_path) == bundle
    with pytest.raises(UsageError, match="no run or bundle at"):
        locate_bundle(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="neither a run nor a bundle"):
        locate_bundle(tmp_path / "empty")
    with pytest.raises(UsageError, match="no bundle"):
        read_info(tmp_path / "empty")


def change(path: Path, edit: Any) -> None:
    """Replace tensors in the weights file."""
    tensors = load_file(path / "model.safetensors")
    edit(tensors)
    save_file(tensors, path / "model.safetensors")


def swap(tensors: dict[str, torch.Tensor]) -> None:
    first, second = "blocks.0.norm1.bias", "norm.bias"
    tensors["norm.weight"], tensors["norm.bias"] = tensors["norm.bias"], tensors["norm.weight"]
    assert tensors[first].shape == tensors[second].shape


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors: tensors.pop("norm.bias"), "missing: norm.bias"),
        (lambda tensors: tensors.update(extra=torch.zeros(2)), "not of this model: extra"),
        (
            lambda tensors: tensors.update({"norm.bias": torch.zeros(9)}),
            r"another shape: norm.bias \(9 instead of 8\)",
        ),
        (
            lambda tensors: tensors.update({"norm.bias": torch.zeros(8, dtype=torch.int32)}),
            r"norm.bias \(8 int32 instead of 8\)",
        ),
        (swap, "damaged: norm.bias, norm.weight"),
        (lambda tensors: tensors["patches.weight"].view(-1)[5].mul_(1.0000002), "damaged: patches.weight"),
    ],
)
def test_defects_of_tensors_are_named(bundle: Path, edit: Any, message: str) -> None:
    change(bundle, edit)
    with pytest.raises(WeightsError, match=message) as caught:
        load_bundle(bundle)
    assert caught.value.exit_code == 1 and caught.value.hint


def test_truncation_at_many_places(bundle: Path) -> None:
    whole = (bundle / "model.safetensors").read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1]:
        (bundle / "model.safetensors").write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"model\.safetensors.*truncated"):
            load_bundle(bundle)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_every_flipped_bit_is_detected(bundle: Path, name: str) -> None:
    """200 random single-bit flips: an error, or a model with the same values in every tensor and field."""
    whole, before = (bundle / name).read_bytes(), read_info(bundle)
    chance = random.Random(0)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        (bundle / name).write_bytes(damaged)
        try:
            model, info = load_bundle(bundle)
        except WeightsError:
            continue
        assert info == before
        assert all(
            torch.equal(tensor, model.state_dict()[key]) for key, tensor in tiny().state_dict().items()
        )


def test_a_tensor_without_a_digest(bundle: Path) -> None:
    info = read_info(bundle)
    write_info(
        bundle,
        dataclasses.replace(
            info, digests={name: text for name, text in info.digests.items() if name != "norm.bias"}
        ),
    )
    with pytest.raises(WeightsError, match=r"without a digest: norm\.bias"):
        load_bundle(bundle)
    load_bundle(bundle, verify=False)


def test_missing_weights(bundle: Path) -> None:
    (bundle / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors is missing"):
        load_bundle(bundle)


def test_a_config_of_another_model(bundle: Path) -> None:
    """The weights are of one block, the config of two: the checkpoint of another model."""
    deeper = describe(tiny(depth=2), name="tiny", labels=LABELS, image=IMAGE)
    write_info(bundle, deeper)
    with pytest.raises(WeightsError, match=r"missing: blocks\.1"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged or no JSON"),
        ("[1]", "not of a tesela bundle"),
        ('{"model_type": "vit"}', "not of a tesela bundle"),
        ('{"format": "tesela-bundle/1"}', "checksum"),
    ],
)
def test_foreign_configs(bundle: Path, text: str, message: str) -> None:
    (bundle / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=message):
        read_info(bundle)


def test_an_edited_config_is_noticed_and_a_reformatted_one_is_not(bundle: Path) -> None:
    file = bundle / "config.json"
    tree = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(dict(reversed(tree.items()))))
    assert read_info(bundle).labels == LABELS
    file.write_text(json.dumps(tree | {"image": tree["image"] | {"mean": [0.26]}}))
    with pytest.raises(WeightsError, match="was edited"):
        read_info(bundle)


def test_a_newer_format_and_an_unknown_family(bundle: Path) -> None:
    info = read_info(bundle)
    write_info(bundle, dataclasses.replace(info, architecture="resnext"))
    with pytest.raises(WeightsError, match=r"cannot build.*resnext"):
        load_bundle(bundle)
    with pytest.raises(ConfigError, match="tesela-bundle/2"):
        dataclasses.replace(info, format="tesela-bundle/2")


def test_labels_must_fit() -> None:
    with pytest.raises(ConfigError, match="3 labels for 4 classes"):
        describe(tiny(), name="tiny", labels=LABELS[:3], image=IMAGE)
    with pytest.raises(ConfigError, match="'cat' stands for two"):
        describe(tiny(), name="tiny", labels=["cat", "dog", "cat", "cow"], image=IMAGE)


def test_every_failing_call_leaves_the_old_bundle(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th call to the operating system fails, for every n."""
    info, calls, broken = read_info(bundle), [0], [0]

    def count(operation: str) -> None:
        calls[0] += 1
        if calls[0] == broken[0]:
            raise OSError(errno.ENOSPC, f"No space left on device: {operation}")

    monkeypatch.setattr(files, "before_io", count)
    write_bundle(bundle, tiny(), info)
    total, before = calls[0], {path.name: path.read_bytes() for path in bundle.iterdir()}
    assert total >= 10
    for n in range(1, total + 1):
        calls[0], broken[0] = 0, n
        try:
            write_bundle(bundle, tiny(seed=5), info)
        except StorageError as error:
            assert "no space left" in error.message
        broken[0] = 0
        found = {path.name: path.read_bytes() for path in bundle.iterdir()}
        assert found == before or load_bundle(bundle)[0].state_dict().keys() == tiny().state_dict().keys()
        assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_errors_are_ours(bundle: Path) -> None:
    (bundle / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(TeselaError):
        load_bundle(bundle)
