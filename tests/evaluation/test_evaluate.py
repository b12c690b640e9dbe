"""Evaluation of bundles and runs: scores against a loop over single images, labels by name, files, other
data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tesela.core.config import to_yaml
from tesela.core.errors import DataError, UnknownNameError, UsageError
from tesela.data.config import DataConfig
from tesela.data.loader import Loader
from tesela.data.open import open_source
from tesela.data.targets import LabelTargets, match_labels
from tesela.evaluation.evaluate import evaluate_run, recorded_precision
from tesela.evaluation.rows import RowSpool
from tesela.evaluation.scoring import evaluate_model
from tesela.imaging.preprocess import preprocess
from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import describe, load_bundle, write_bundle
from tesela.models.classifier import Classifier
from tesela.models.factory import create_model
from tesela.reports.report import write_report
from tesela.runs.folder import Run
from tesela.tasks.catalog import find_task
from tesela.training.config import TrainConfig

SPEC = ImageSpec(height=8, width=8, channels=1, mean=(0.3,), std=(0.4,))
DIGITS = [str(digit) for digit in range(10)]


def write_run(folder: Path, *, labels: list[str] = DIGITS, source: str = "digits") -> Classifier:
    """A run folder with an untrained, not quite constant network; returns the network."""
    model = create_model("vit_nano", num_classes=len(labels), image_size=8, channels=1, seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    write_bundle(folder / "bundle", model, describe(model, name="vit_nano", labels=labels, image=SPEC))
    (folder / "config.yaml").write_text(
        to_yaml(TrainConfig(data=DataConfig(source=source), model="vit_nano"))
    )
    return model.eval()


def one_by_one(model: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and targets of the digits' test split, image by image, without a loader."""
    items = open_source("digits").splits["test"]
    rows = []
    with torch.no_grad():
        for index in range(len(items)):
            rows.append(
                model(torch.from_numpy(preprocess([items.read(index)], SPEC)))[0].double().softmax(0).numpy()
            )
    return np.stack(rows), items.targets


def test_scores_equal_a_loop_over_single_images(tmp_path: Path) -> None:
    """Reference: the model called on one preprocessed image at a time; accuracy, log loss and top-3 counted
    here."""
    model = write_run(tmp_path)
    scores = evaluate_run(tmp_path, top=3, batch_size=50, device="cpu")
    probabilities, targets = one_by_one(model)
    order = np.argsort(-probabilities, axis=1)
    assert scores["images"] == len(targets) == 179
    assert scores["accuracy"] == pytest.approx((order[:, 0] == targets).mean())
    assert scores["top3"] == pytest.approx((order[:, :3] == targets[:, None]).any(1).mean())
    assert scores["nll"] == pytest.approx(-np.log(probabilities[np.arange(179), targets]).mean(), rel=1e-5)
    with np.load(tmp_path / "predictions.npz") as stored:
        assert np.abs(stored["probabilities"] - probabilities[stored["indices"]]).max() < 1e-6
        assert (stored["targets"] == targets[stored["indices"]]).all()
        assert sorted(stored["indices"].tolist()) == list(range(179))


def test_files_hold_what_was_returned(tmp_path: Path) -> None:
    """Reference: the JSON file read back, thumbnails compared with the images of the split."""
    write_run(tmp_path)
    scores = evaluate_run(tmp_path, device="cpu")
    assert scores.pop("folder") == tmp_path
    assert json.loads((tmp_path / "evaluation.json").read_text()) == scores
    items = open_source("digits").splits["test"]
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as stored:
        places = stored["indices"][stored["sample"]]
        assert len(places) == 64
        assert all(
            (image == items.read(int(place))).all()
            for image, place in zip(stored["sample_images"], places, strict=True)
        )
        assert stored["sample_names"].tolist() == [items.name(int(place)) for place in places]
        wrong = stored["probabilities"].argmax(1) != stored["targets"]
        assert wrong[stored["mistakes"]].all()
        assert stored["shown_images"].shape == (8, 8, 8, 1)


def test_batch_size_changes_nothing_that_counts(tmp_path: Path) -> None:
    """Reference: the same evaluation in one batch; probabilities agree to rounding."""
    write_run(tmp_path)
    found = []
    for batch_size in (179, 7):
        evaluate_run(tmp_path, batch_size=batch_size, device="cpu")
        with np.load(tmp_path / "predictions.npz") as stored:
            found.append(stored["probabilities"])
    assert np.abs(found[0] - found[1]).max() < 1e-6


def test_report_of_an_evaluated_run(tmp_path: Path) -> None:
    """Reference: the accuracy of evaluation.json is on the page, and the page is made without the data."""
    write_run(tmp_path)
    scores = evaluate_run(tmp_path, device="cpu")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert f"{scores['correct']} of 179 images of the test split" in page
    assert page.count("<figure") > 64


def write_folder(path: Path, labels: list[str]) -> Path:
    """Class folders train/LABEL and test/LABEL with three and two grey images of the digit that the label's
    last letter is."""
    source = open_source("digits")
    for split, count in (("train", 3), ("test", 2)):
        items = source.splits[split]
        for label in labels:
            chosen = np.flatnonzero(items.targets == int(label[-1]))[:count]
            for index in chosen:
                file = path / split / label / f"{index}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(items.read(int(index))[..., 0]).save(file)
    return path


def test_other_data_is_matched_by_name(tmp_path: Path) -> None:
    """Reference: a folder with three of the ten classes, in whose own numbering "7" is class 2; its images
    scored one by one."""
    model = write_run(tmp_path / "run")
    data = write_folder(tmp_path / "few", ["1", "3", "7"])
    scores = evaluate_run(tmp_path / "run", data=str(data), device="cpu")
    right = 0
    for file in sorted((data / "test").rglob("*.png")):
        with torch.no_grad():
            right += int(model(torch.from_numpy(preprocess([file], SPEC))).argmax()) == int(file.parent.name)
    assert scores["images"] == 6
    assert scores["correct"] == right
    assert {row["label"]: row["support"] for row in scores["per_class"] if row["support"]} == {
        "1": 2,
        "3": 2,
        "7": 2,
    }
    assert scores["folder"] == tmp_path / "run" / "evaluations" / "few-test"
    assert (scores["folder"] / "predictions.npz").is_file()
    assert not (tmp_path / "run" / "evaluation.json").exists()


def test_unreadable_images_are_listed_and_not_scored(tmp_path: Path) -> None:
    """Reference: one file of six cut short by hand; above any share, for the others can be scored."""
    write_run(tmp_path / "run")
    data = write_folder(tmp_path / "few", ["1", "3", "7"])
    broken = sorted((data / "test").rglob("*.png"))[2]
    broken.write_bytes(broken.read_bytes()[:40])
    scores = evaluate_run(tmp_path / "run", data=str(data), device="cpu")
    assert scores["images"] == 5
    assert [Path(image["name"]).name for image in scores["unreadable"]] == [broken.name]


def test_unknown_classes_are_named(tmp_path: Path) -> None:
    """Reference: the message holds the class that the model does not know, the hint the nearest it does."""
    write_run(tmp_path / "run", labels=[f"digit {digit}" for digit in range(10)])
    data = write_folder(tmp_path / "few", ["digit 1", "digjt 2"])
    with pytest.raises(DataError, match="'digjt 2'") as caught:
        evaluate_run(tmp_path / "run", data=str(data), device="cpu")
    assert "digit 2" in caught.value.hint


def test_match_labels_by_hand() -> None:
    """Reference: places in the model's list by hand; equal lists need no map."""
    assert match_labels(["c", "a"], ["a", "b", "c"]).tolist() == [2, 0]
    same = LabelTargets(("a", "b"))
    assert same.matched(["a", "b"]) is same


def test_refusals(tmp_path: Path) -> None:
    """Reference: the error classes that the command line turns into exit codes."""
    model = write_run(tmp_path / "run")
    with pytest.raises(UsageError, match="no run or bundle"):
        evaluate_run(tmp_path / "missing")
    with pytest.raises(UnknownNameError, match="unknown split 'tset'"):
        evaluate_run(tmp_path / "run", split="tset", device="cpu")
    write_bundle(tmp_path / "bare", model, describe(model, name="vit_nano", labels=DIGITS, image=SPEC))
    with pytest.raises(UsageError, match="does not say what it was trained on"):
        evaluate_run(tmp_path / "bare", device="cpu")
    before = sorted(tmp_path.joinpath("bare").iterdir())
    assert evaluate_run(tmp_path / "bare", data="digits", device="cpu")["folder"] is None
    assert sorted(tmp_path.joinpath("bare").iterdir()) == before


def test_data_that_moved_is_said_to_be_the_runs_own(tmp_path: Path) -> None:
    """Reference: the message names the data's old place, the hint how to give the new one."""
    write_run(tmp_path / "run", source=str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="gone") as caught:
        evaluate_run(tmp_path / "run", device="cpu")
    assert "tesela evaluate RUN DATA" in caught.value.hint


def test_precision_as_recorded(tmp_path: Path) -> None:
    """Reference: choices.json by hand; fp16 is for GPUs only."""
    run = Run(tmp_path)
    assert recorded_precision(run, "cpu") == "fp32"
    run.choices.write_text('{"precision": "bf16"}')
    assert recorded_precision(run, "cpu") == "bf16"
    run.choices.write_text('{"precision": "fp16"}')
    assert (recorded_precision(run, "cpu"), recorded_precision(run, "cuda")) == ("fp32", "fp16")


def test_model_is_left_as_it_was(tmp_path: Path) -> None:
    """Reference: training flags, kernels and gradients noted before; also when the loader fails in the
    middle."""
    write_run(tmp_path)
    model, info = load_bundle(tmp_path / "bundle")
    model.train()
    model.head.eval()
    items = open_source("digits").splits["val"]
    loader = Loader(
        items,
        SPEC,
        batch_size=64,
        augment=None,
        seed=0,
        workers=0,
        cache="none",
        shuffle=False,
    )
    before = [(module.training, getattr(module, "kernel", None)) for module in model.modules()]
    task = find_task("classify")
    with RowSpool() as spool:
        evaluation = evaluate_model(
            model, loader, task, task.scorer(info.labels), spool=spool, kernel="matmul", precision="bf16"
        )
        probabilities = np.array(spool.arrays()["probabilities"])
    assert [(module.training, getattr(module, "kernel", None)) for module in model.modules()] == before
    assert all(parameter.grad is None for parameter in model.parameters())
    assert probabilities.sum(1) == pytest.approx(np.ones(len(items)), abs=1e-6)
    assert evaluation.scores["images"] == len(items) == len(evaluation.indices)

    class Broken:
        def __len__(self) -> int:
            return 1

        def epoch(self, number: int) -> object:
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        evaluate_model(model, Broken(), task, task.scorer(info.labels))  # type: ignore[arg-type]
    assert [(module.training, getattr(module, "kernel", None)) for module in model.modules()] == before
