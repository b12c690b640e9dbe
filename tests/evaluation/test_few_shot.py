"""Few-shot accuracy of frozen models against scikit-learn on features taken image by image."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from tests.evaluation.test_evaluate import SPEC, write_run
from tests.pictures import make_pictures

import tesela as ts
from tesela.core.errors import ConfigError, DataError, UnknownNameError, UsageError
from tesela.data.open import open_source
from tesela.evaluation.few_shot import few_shot
from tesela.evaluation.shots import draw_shots
from tesela.imaging.preprocess import preprocess
from tesela.models.bundle import load_bundle
from tesela.models.classifier import Classifier


def features_one_by_one(run: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, D) and classes (N,) of the digits, each image on its own."""
    model = load_bundle(run / "bundle")[0]
    assert isinstance(model, Classifier)
    items = open_source("digits").splits[split]
    with torch.no_grad():
        rows = [
            model.pooled(torch.from_numpy(preprocess([items.read(index)], SPEC)))[0].numpy()
            for index in range(len(items))
        ]
    return np.stack(rows), items.targets


def test_accuracies_equal_scikit_learn_on_the_same_images(tmp_path: Path) -> None:
    """Reference: Ridge and LogisticRegression of standardised features, taken without loader and batches."""
    write_run(tmp_path)
    found = few_shot(tmp_path, shots=[10, 1, 3, 3], draws=3, seed=4, device="cpu", batch_size=50)
    features, targets = features_one_by_one(tmp_path, "train")
    tests, wanted = features_one_by_one(tmp_path, "test")
    draws = draw_shots(targets, [str(digit) for digit in range(10)], (1, 3, 10), draws=3, seed=4)
    assert [row["shots"] for row in found["few_shot"]] == [1, 3, 10]
    for row in found["few_shot"]:
        ridges, probes = [], []
        for draw in range(3):
            rows = draws.chosen(draw, row["shots"])
            scaler = StandardScaler().fit(features[rows].astype(np.float64))
            inputs, others = scaler.transform(features[rows]), scaler.transform(tests)
            codes = np.where(targets[rows][:, None] == np.arange(10), 1.0, -1.0)
            ridges.append((Ridge(alpha=10.0).fit(inputs, codes).predict(others).argmax(1) == wanted).mean())
            probe = LogisticRegression(tol=1e-10, max_iter=10000).fit(inputs, targets[rows])
            probes.append((probe.predict(others) == wanted).mean())
        for name, values in (("ridge", ridges), ("probe", probes)):
            assert row[name]["values"] == pytest.approx(values, abs=1.5 / 179)  # an image on a boundary
            assert row[name]["mean"] == pytest.approx(np.mean(row[name]["values"]))
            assert row[name]["deviation"] == pytest.approx(np.std(row[name]["values"], ddof=1))
    assert (found["images"], found["features"], found["classes"]) == (179, features.shape[1], 10)


def test_draws_are_balanced_nested_and_differ() -> None:
    targets = np.random.default_rng(0).integers(0, 4, 200)
    found = draw_shots(targets, list("abcd"), [5, 1, 20], draws=3, seed=0)
    for draw in range(3):
        for shots in (1, 5, 20):
            rows = found.chosen(draw, shots)
            assert np.bincount(targets[rows], minlength=4).tolist() == [shots] * 4
            assert len(set(rows.tolist())) == 4 * shots
        assert set(found.chosen(draw, 1)) < set(found.chosen(draw, 5)) < set(found.chosen(draw, 20))
    assert len({tuple(found.chosen(draw, 20)) for draw in range(3)}) == 3
    again = draw_shots(targets, list("abcd"), [20], draws=1, seed=0)
    assert (again.rows[0] == found.rows[0]).all()
    assert (draw_shots(targets, list("abcd"), [20], draws=1, seed=1).rows[0] != found.rows[0]).any()


def test_an_image_that_cannot_be_read_changes_no_other_draw() -> None:
    targets = np.arange(40) % 2
    plain = draw_shots(targets, "ab", [5], draws=2, seed=0)
    left = int(plain.rows[0][1, 2])
    found = draw_shots(targets, "ab", [5], draws=2, seed=0, without=[left])
    assert (found.rows[0][0] == plain.rows[0][0]).all()
    expected = [row for row in plain.rows[0][1] if row != left]
    assert found.rows[0][1, :4].tolist() == expected


def test_it_is_kept_in_the_run_and_leaves_its_scores_alone(tmp_path: Path) -> None:
    write_run(tmp_path)
    found = few_shot(tmp_path, shots=[1], draws=1, device="cpu")
    assert found.pop("folder") == tmp_path
    assert json.loads((tmp_path / "few_shot.json").read_text()) == found
    assert found["few_shot"][0]["ridge"]["deviation"] is None
    assert not (tmp_path / "evaluation.json").exists()
    other = few_shot(tmp_path, split="val", shots=[1], draws=1, device="cpu")
    assert other["folder"] == tmp_path / "evaluations" / "digits-val"
    assert few_shot(tmp_path / "bundle", data="digits", shots=[1], draws=1)["folder"] is None


def test_classes_need_not_be_the_models_and_batches_change_nothing(tmp_path: Path) -> None:
    """Reference: the same model with other labels, and other sizes of batches."""
    write_run(tmp_path / "ten")
    write_run(tmp_path / "two", labels=["cat", "dog"])
    shutil.copytree(tmp_path / "ten", tmp_path / "again")
    alike = [
        few_shot(tmp_path / name, shots=[2], draws=2, batch_size=size)["few_shot"]
        for name, size in (("ten", 256), ("again", 7), ("two", 256))
    ]
    assert alike[0] == alike[1]
    for name in ("ridge", "knn", "probe"):  # the weights below the head are those of another draw
        assert 0 < alike[2][0][name]["mean"] < 1


def test_checkpoints_without_a_head_and_loaded_models_are_taken(tmp_path: Path) -> None:
    """Reference: the run that the checkpoint was made of."""
    from transformers import ViTModel

    write_run(tmp_path / "run")
    expected = few_shot(tmp_path / "run", shots=[3], draws=2)["few_shot"]
    ts.export(tmp_path / "run", to="hf", out=tmp_path / "hf")
    assert few_shot(tmp_path / "hf", data="digits", shots=[3], draws=2)["few_shot"] == expected
    loaded = ts.load(tmp_path / "run")
    loaded.train()
    assert ts.few_shot(loaded, "digits", shots=[3], draws=2)["few_shot"] == expected
    assert loaded.training
    ViTModel.from_pretrained(tmp_path / "hf", add_pooling_layer=False).save_pretrained(tmp_path / "body")
    shutil.copy(tmp_path / "hf" / "preprocessor_config.json", tmp_path / "body")
    assert few_shot(tmp_path / "body", data="digits", shots=[3], draws=2)["few_shot"] == expected


def test_unreadable_images_are_replaced_and_named(tmp_path: Path) -> None:
    data = make_pictures(tmp_path / "data", {"train/a": 7, "train/b": 7, "test/a": 3, "test/b": 3})
    whole = few_shot_bundle(tmp_path)
    targets = open_source(data).splits["train"].targets
    drawn = draw_shots(targets, "ab", [3], draws=1, seed=0).rows[0]
    for row in drawn[0]:  # every image of class a that would be drawn
        (data / open_source(data).splits["train"].name(int(row))).write_bytes(b"no image")
    found = few_shot(whole, data=str(data), shots=[3], draws=1)
    assert len(found["unreadable"]) == 3
    assert found["images"] == 6
    with pytest.raises(DataError, match=r"class 'a' has 3 training images that can be read, fewer than 4"):
        few_shot(whole, data=str(data), shots=[4], draws=1)


def few_shot_bundle(folder: Path) -> Path:
    """A bundle of a network for 8 x 8 grey images."""
    write_run(folder / "model")
    return folder / "model" / "bundle"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"shots": [1, 300]}, DataError, "fewer than 300 shots"),
        ({"shots": [0, 5]}, ConfigError, "1 or more"),
        ({"shots": []}, ConfigError, "none is given"),
        ({"draws": 0}, ConfigError, "draws must be"),
        ({"split": "train"}, UsageError, "drawn from"),
        ({"split": "tset"}, UnknownNameError, "tset"),
        ({"batch_size": 0}, UsageError, "batch_size"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    tmp_path: Path, options: dict[str, object], error: type[Exception], words: str
) -> None:
    write_run(tmp_path)
    with pytest.raises(error, match=words):
        few_shot(tmp_path, **{"shots": [1], **options})  # type: ignore[arg-type]
    assert not (tmp_path / "few_shot.json").exists()


def test_images_without_labels_and_exported_graphs_are_refused(tmp_path: Path) -> None:
    bundle = few_shot_bundle(tmp_path)
    with pytest.raises(UsageError, match="does not say what it was trained on"):
        few_shot(bundle)
    ts.export(bundle, to="onnx", out=tmp_path / "onnx")
    (tmp_path / "onnx" / "model.safetensors").unlink(missing_ok=True)
    with pytest.raises(UsageError, match="no features"):
        few_shot(tmp_path / "onnx", data="digits", shots=[1])
