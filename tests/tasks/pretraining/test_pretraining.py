"""The task as a whole: data without labels, runs that resume exactly, bundles to fine-tune from, refusals."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from tests.tasks.pretraining.embedders import QUICK

from tesela.core.config import read_yaml
from tesela.core.errors import ConfigError, DataError
from tesela.data.config import DataConfig
from tesela.layers.attention.kernels import KERNELS
from tesela.models.bundle import load_bundle
from tesela.runtime.predictor import Predictor
from tesela.tasks.opening import open_for_task
from tesela.training.config import layered
from tesela.training.run import train


def paint(folder: Path, count: int, *, size: tuple[int, int] = (12, 10), start: int = 0) -> None:
    """Images of noise, each different."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masked patches of digits, two epochs."""
    out = tmp_path_factory.mktemp("pretrained") / "run"
    found = train(layered(QUICK, {"out": str(out), "report": True, "objective": {"method": "masked"}}))
    assert found.task == "pretrain" and found.probe_accuracy is not None
    return out


def test_a_run_writes_scores_pictures_and_a_bundle_without_decoder(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [row for row in rows if row["kind"] == "epoch"]
    assert len(epochs) == 2
    names = ("val_loss", "val_probe_accuracy", "val_knn_accuracy", "val_embedding_rank")
    assert all(isinstance(row[name], float) for row in epochs for name in names)
    page = (run / "report.html").read_text()
    for title in ("Pictures over the epochs", "Attention", "Rank of the embeddings", "Linear probe"):
        assert title in page
    assert "<h2>Collapse" not in page
    stored = load_file(run / "bundle" / "model.safetensors")
    known = load_bundle(run / "bundle")[0].state_dict()
    assert stored.keys() == {name.removeprefix("backbone.") for name in known}
    assert not [name for name in stored if name.startswith(("head", "mask"))]
    assert "0 classes" not in (run / "bundle" / "README.md").read_text()


def test_a_bundle_is_a_start_for_fine_tuning(run: Path, tmp_path: Path) -> None:
    """The body is that of the bundle, bit for bit, and the new head tells digits."""
    from tesela.tasks.classification.task import Classification
    from tesela.training.start import start

    kept = {name: QUICK[name] for name in QUICK if name not in ("task", "model", "net")}
    changes = {"from": str(run), "out": str(tmp_path / "tuned"), "epochs": 6, "optim": {"lr": 3e-3}}
    config = layered(kept, changes)
    source = open_for_task("auto", config.data)
    began = start(config, source, Classification(), source.labels)
    known = load_bundle(run / "bundle")[0].state_dict()
    own = began.model.state_dict()
    body = [name for name in own if name.startswith("backbone.")]
    assert body and all(torch.equal(own[name], known[name]) for name in body)
    found = train(config)
    assert found.task == "classify" and (found.accuracy or 0) > 0.2


def test_an_embedder_predicts_embeddings(run: Path) -> None:
    """Reference: the model called by hand."""
    image = np.full((8, 8), 9, np.uint8)
    model, info = load_bundle(run / "bundle")
    from tesela.imaging.preprocess import preprocess

    with torch.inference_mode():
        wanted = model(torch.from_numpy(preprocess([image[..., None]], info.image)))[0]
    result = Predictor(run / "bundle").predict([image])[0]
    np.testing.assert_allclose(result.answer()["embedding"], wanted.numpy(), rtol=1e-5, atol=1e-6)


def test_training_goes_on_without_labels(tmp_path: Path) -> None:
    """Nested folders, mixed sizes, no labels: the last weights are kept and nothing is probed."""
    for place, count, size in (("photos/a", 9, (12, 10)), ("photos", 9, (20, 30)), (".", 6, (9, 9))):
        paint(tmp_path / "images" / place, count, size=size, start=count * len(place))
    data = {"source": str(tmp_path / "images"), "workers": 0}
    out = tmp_path / "run"
    quick = {**QUICK, "data": data, "out": str(out), "image_size": 8, "resize": "squash", "report": True}
    found = train(layered(quick))
    assert found.probe_accuracy is None and (found.embedding_rank or 0) > 1
    info = load_bundle(out / "bundle")[1]
    assert info.labels == [] and info.provenance["best_step"] == info.provenance["steps"]
    assert "Learned without labels" in (out / "report.html").read_text()


def test_folders_of_images(tmp_path: Path) -> None:
    paint(tmp_path / "photos" / "x" / "train", 5)
    paint(tmp_path / "photos" / "x" / "test", 3, start=10)
    paint(tmp_path / "photos" / "x" / "extra", 2, start=20)
    paint(tmp_path / "photos" / "x" / "masks", 5, start=30)
    paint(tmp_path / "photos" / "x", 1, start=40)
    config = DataConfig(source=str(tmp_path / "photos"), val_fraction=0.0, test_fraction=0.0)
    source = open_for_task("pretrain", config)
    names = {
        split: sorted(items.name(place) for place in range(len(items)))
        for split, items in source.splits.items()
        if len(items)
    }
    assert names["test"] == [f"x/test/{number:03d}.png" for number in (10, 11, 12)]
    folders = [name.split("/")[-2] for name in names["train"]]
    assert folders == ["x", "extra", "extra", "train", "train", "train", "train", "train"]
    assert any("masks" in note for note in source.notes)


def test_images_outside_of_class_folders_are_used_without_a_class(tmp_path: Path) -> None:
    for label, start in (("a/b", 0), ("c", 20)):
        paint(tmp_path / label, 5, start=start)
    paint(tmp_path, 3, start=40)
    source = open_for_task("pretrain", DataConfig(source=str(tmp_path), val_fraction=0.0, test_fraction=0.0))
    found = source.splits["train"]
    rows = {found.name(place): int(found.targets[place]) for place in range(len(found))}
    assert len(rows) == 13 and rows["a/b/000.png"] == 0 and rows["c/020.png"] == 1 and rows["040.png"] == -1


def test_splits_are_those_of_a_training_with_labels(tmp_path: Path) -> None:
    """No test image of a later fine-tuning is seen, and images in a folder ``unlabeled`` are."""
    paint(tmp_path / "cat", 20)
    paint(tmp_path / "dog", 15, start=50)
    config = DataConfig(source=str(tmp_path))
    labelled, plain = (open_for_task(task, config) for task in ("classify", "pretrain"))
    for split in ("train", "val", "test"):
        first, second = (
            [source.splits[split].name(place) for place in range(len(source.splits[split]))]
            for source in (labelled, plain)
        )
        assert first == second and len(first) > 1


def test_unlabelled_images_beside_splits_are_used(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            paint(tmp_path / split / label, 4)
    paint(tmp_path / "unlabeled", 6, start=90)
    source = open_for_task("pretrain", DataConfig(source=str(tmp_path), val_fraction=0.0))
    train_items = source.splits["train"]
    assert len(train_items) == 14 and (train_items.targets == -1).sum() == 6
    assert len(open_for_task("classify", DataConfig(source=str(tmp_path))).splits["test"]) == 8


def test_an_unlabelled_folder_is_refused_for_a_supervised_task(tmp_path: Path) -> None:
    paint(tmp_path, 5)
    for task in ("auto", "classify"):
        with pytest.raises(DataError, match="no class folders") as caught:
            open_for_task(task, DataConfig(source=str(tmp_path)))
        assert "--task pretrain" in (caught.value.hint or "")
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"{number:03d}.png\n" for number in range(5)))
    with pytest.raises(DataError, match="no labels") as caught:
        open_for_task("classify", DataConfig(source=str(tmp_path / "list.csv")))
    assert "--task pretrain" in (caught.value.hint or "")
    assert len(open_for_task("pretrain", DataConfig(source=str(tmp_path / "list.csv"))).splits["train"]) >= 3


def test_one_image_is_refused(tmp_path: Path) -> None:
    paint(tmp_path, 1)
    with pytest.raises(DataError, match="one training image"):
        open_for_task("pretrain", DataConfig(source=str(tmp_path)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"augment": {"mixup": 0.2}}, "pre-training learns none"),
        ({"objective": {"mask_ratio": 1.0}}, "mask_ratio must lie"),
        ({"model": "cct_7_3x2_32", "image_size": 32, "net": {}}, "tokens are not patches"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        train(layered(QUICK, change, {"out": str(tmp_path / "run")}))


def test_a_frozen_body_is_refused(run: Path, tmp_path: Path) -> None:
    settings = {name: QUICK[name] for name in QUICK if name not in ("model", "net")}
    with pytest.raises(ConfigError, match="all of it is frozen"):
        train(layered(settings, {"from": str(run), "tune": "head", "out": str(tmp_path / "run")}))


def test_the_automatic_model_has_patches() -> None:
    from tesela.tasks.catalog import find_task
    from tesela.training.start import ImageStats, choose_model

    looks = ImageStats(size=(32, 32), channels=3)
    assert choose_model(layered({}), looks, find_task("pretrain"))[0] == "vit_lite7_p4"
    assert choose_model(layered({}), looks, find_task("classify"))[0] == "cct_7_3x2_32"


def test_an_embedder_has_no_class_to_explain(run: Path) -> None:
    """Attention is the same for all classes, so it can be shown; a class's evidence cannot."""
    from tesela.attribution.explain import explain
    from tesela.core.errors import UsageError

    model, _ = load_bundle(run / "bundle")
    image = torch.zeros(1, 1, 8, 8)
    for method in ("auto", "gradcam"):
        with pytest.raises(UsageError, match="knows no classes"):
            explain(model, image, method=method)
    assert explain(model, image, method="rollout").map.shape == (1, 1, 8, 8)


def test_an_embedder_is_exported(run: Path, tmp_path: Path) -> None:
    """Reference: the embeddings that torch computes."""
    pytest.importorskip("onnxruntime")
    from tesela.cli.main import run as run_command

    assert run_command(["export", str(run), "--to", "onnx", "--out", str(tmp_path / "onnx")]) == 0
    image = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    vectors = [
        Predictor(place).predict([image])[0].answer()["embedding"]
        for place in (run / "bundle", tmp_path / "onnx")
    ]
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", ["mae", "dino"])
def test_the_objective_s_own_layers_use_the_measured_kernel(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder or teacher with another kernel than the encoder's takes up to twice the time of a step."""
    run, fused = tmp_path / "run", KERNELS["fused"]
    known: list[bool] = []

    def counted(*given: Any) -> torch.Tensor:
        known.append((run / "choices.json").is_file())
        return fused(*given)

    monkeypatch.setitem(KERNELS, "fused", counted)
    changes = {"out": str(run), "epochs": 1, "attention": "matmul", "report": False}
    train(layered(QUICK, {**changes, "objective": {"method": method}}))
    assert known and not any(known)  # counting the memory of a step, before anything is measured


@pytest.mark.parametrize(
    ("settings", "pool"),
    [
        ({"objective.method": "mae"}, "mean"),
        ({"objective.method": "masked", "recipe": "pretrain_masked"}, "mean"),
        ({"objective.method": "mae", "net.pool": "class"}, "class"),
        ({"objective.method": "dino"}, "class"),
    ],
)
def test_a_new_network_reads_what_the_objective_teaches(
    settings: dict[str, Any], pool: str, tmp_path: Path
) -> None:
    """Hidden patches teach a class token nothing, and a fine-tuning would read it."""
    run, text = tmp_path / "run", io.StringIO()
    train(layered(QUICK, {"out": str(run), "epochs": 1}, settings), console=Console(file=text, width=200))
    model, info = load_bundle(run / "bundle")
    assert info.model["pool"] == pool == read_yaml(run / "config.yaml")["net"].get("pool", "class")
    assert model.backbone.config.prefix == (pool == "class")
    assert ("--net.pool class" in text.getvalue()) == (pool == "mean")
    untaught = pool == "class" and settings["objective.method"] != "dino"
    assert ("the class token, which hidden patches teach nothing" in text.getvalue()) == untaught
