"""Distillation: losses from their formulas, crops, classes by name, kept outputs, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.batches import batch_of
from tests.evaluation.test_evaluate import DIGITS, SPEC, write_run
from torch.nn import functional as F

import tesela as ts
from tesela.core.errors import ConfigError, DataError, TeselaError, UsageError, WeightsError
from tesela.data.config import AugmentConfig
from tesela.data.loader import Loader
from tesela.data.open import open_source
from tesela.data.source import Selection
from tesela.data.targets import LabelTargets
from tesela.imaging.color import LUMA
from tesela.imaging.spec import ImageSpec
from tesela.models.bundle import describe, load_bundle, write_bundle
from tesela.models.classifier import Classifier
from tesela.models.factory import create_model, create_segmenter
from tesela.models.model import Model
from tesela.tasks.catalog import find_task
from tesela.tasks.classification.config import ClassificationConfig
from tesela.tasks.distillation.objective import Distillation
from tesela.tasks.distillation.teacher import Teacher, seen_by
from tesela.tasks.objective import Draw

NO_DRAW = Draw(0, 0)


def student(name: str = "vit_nano", **options: Any) -> Classifier:
    """A small classifier of ten classes of 8 x 8 grey images, its head not zero."""
    model = create_model(name, num_classes=10, image_size=8, channels=1, seed=1, **options)
    with torch.no_grad():
        for index, parameter in enumerate(model.head.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
    assert isinstance(model, Classifier)
    return model.eval()


def distillation(run: Path, model: Model, **settings: Any) -> Distillation:
    """The objective of a student of the run's model."""
    config = ClassificationConfig(teacher=str(run), **settings)
    found = find_task("classify").objective(config, LabelTargets(DIGITS))
    assert isinstance(found, Distillation)
    found.attach(model, SPEC, seed=0)
    return found


def images_and_targets(count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, 1, 8, 8, generator=generator), torch.arange(count) % 10


@pytest.mark.parametrize(("share", "heat"), [(None, 2.0), (0.3, 1.0), (1.0, 4.0), (0.0, 2.0)])
def test_soft_loss_equals_its_formula(tmp_path: Path, share: float | None, heat: float) -> None:
    """Reference: T^2 KL(teacher || student) and the cross-entropy, summed by hand in float64."""
    teacher, model = write_run(tmp_path), student()
    images, targets = images_and_targets()
    loss = distillation(tmp_path, model, teacher_share=share, distill_temperature=heat).loss(
        model, batch_of(images, targets), NO_DRAW
    )
    with torch.no_grad():
        z, t = model(images).double(), teacher(images).double()
    p, q = (t / heat).softmax(1), (z / heat).softmax(1)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    nll = -z.log_softmax(1)[torch.arange(6), targets].mean()
    weight = 0.9 if share is None else share
    assert loss.value.item() == pytest.approx(
        float((1 - weight) * nll + weight * heat**2 * divergence), rel=1e-5
    )
    agreement = (z.argmax(1) == t.argmax(1)).double().mean()
    assert float(loss.logs["teacher_agreement"]) == pytest.approx(float(agreement))


def test_hard_loss_equals_its_formula(tmp_path: Path) -> None:
    """Reference: DeiT's equation 3, with mixed labels."""
    teacher, model = write_run(tmp_path), student()
    images, targets = images_and_targets()
    mixed = 0.7 * F.one_hot(targets, 10) + 0.3 * F.one_hot(targets.flip(0), 10)
    loss = distillation(tmp_path, model, distillation="hard").loss(model, batch_of(images, mixed), NO_DRAW)
    with torch.no_grad():
        z, t = model(images), teacher(images)
    expected = 0.5 * F.cross_entropy(z, mixed) + 0.5 * F.cross_entropy(z, t.argmax(1))
    assert loss.value.item() == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("distill", ["hard", "soft"])
def test_the_distillation_token_learns_from_the_teacher_alone(tmp_path: Path, distill: str) -> None:
    """Reference: gradients of the two heads, of the label's loss and of the teacher's."""
    write_run(tmp_path)
    model = student("deit_ti16", patch_size=(4, 4), depth=2)
    images, targets = images_and_targets()
    objective = distillation(tmp_path, model, distillation=distill)
    objective.loss(model, batch_of(images, targets), NO_DRAW).value.backward()
    share = 0.9 if distill == "soft" else 0.5
    head: Any = model.head
    by_label, by_teacher = (layer.weight.grad.clone() for layer in (head.linear, head.distillation))
    model.zero_grad()
    logits, taught = head.both(model.pooled(images))
    ((1 - share) * F.cross_entropy(logits, targets)).backward(retain_graph=True)
    torch.testing.assert_close(by_label, head.linear.weight.grad)
    model.zero_grad()
    teacher = load_bundle(tmp_path / "bundle")[0](images).detach()
    if distill == "hard":
        value = share * F.cross_entropy(taught, teacher.argmax(1))
    else:
        value = (
            share
            * 4
            * ((teacher / 2).softmax(1) * ((teacher / 2).log_softmax(1) - (taught / 2).log_softmax(1)))
            .sum(1)
            .mean()
        )
    value.backward()
    torch.testing.assert_close(by_teacher, head.distillation.weight.grad, rtol=1e-4, atol=1e-6)


def test_a_teacher_with_its_classes_in_another_order_is_matched_by_name(tmp_path: Path) -> None:
    """Reference: the same network with its outputs in the order of the data's classes."""
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    model = write_run(tmp_path, labels=[DIGITS[place] for place in order])
    images, _ = images_and_targets()
    found = Teacher(str(tmp_path), DIGITS).logits(images, SPEC)
    with torch.no_grad():
        plain = model(images)
    for column, place in enumerate(order):
        torch.testing.assert_close(found[:, place], plain[:, column])


def test_a_teacher_may_know_more_classes_and_not_fewer(tmp_path: Path) -> None:
    write_run(tmp_path / "more", labels=[*DIGITS, "ten"])
    images, _ = images_and_targets()
    assert Teacher(str(tmp_path / "more"), DIGITS).logits(images, SPEC).shape == (6, 10)
    write_run(tmp_path / "fewer", labels=DIGITS[:9])
    with pytest.raises(DataError, match="does not know 1 of the data's 10 classes: '9'"):
        Teacher(str(tmp_path / "fewer"), DIGITS)
    write_run(tmp_path / "other", labels=[f"class {index}" for index in range(10)])
    with pytest.raises(DataError, match="does not know 10 of the data's 10") as raised:
        Teacher(str(tmp_path / "other"), DIGITS)
    assert "class 0, class 1" in raised.value.hint


def test_teachers_without_a_trained_classifier_are_refused(tmp_path: Path) -> None:
    from transformers import ViTModel

    write_run(tmp_path / "run")
    ts.export(tmp_path / "run", to="hf", out=tmp_path / "hf")
    ViTModel.from_pretrained(tmp_path / "hf", add_pooling_layer=False).save_pretrained(tmp_path / "body")
    with pytest.raises(UsageError, match="no trained head"):
        Teacher(str(tmp_path / "body"), ["class 0"])
    segmenter = create_segmenter("vit_nano", num_classes=10, image_size=8, channels=1)
    info = describe(segmenter, name="x", task="segment", labels=DIGITS, image=SPEC)
    write_bundle(tmp_path / "seg", segmenter, info)
    with pytest.raises(UsageError, match="no classifier"):
        Teacher(str(tmp_path / "seg"), DIGITS)
    with pytest.raises(UsageError, match="there is no run, bundle or checkpoint"):
        Teacher(str(tmp_path / "nothing"), DIGITS)


@pytest.mark.parametrize("name", ["resnet18", "vit_nano"])
def test_both_see_the_same_crop(tmp_path: Path, name: str) -> None:
    """Reference: the student's pixels in 0..1, resized and normalised for the teacher by hand; CNNs too."""
    own = create_model(name, num_classes=10, image_size=32, channels=3, seed=3)
    with torch.no_grad():
        for parameter in own.head.parameters():
            parameter.normal_()
    image = ImageSpec(
        height=32, width=32, channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), resize="crop"
    )
    write_bundle(tmp_path, own, describe(own, name=name, labels=DIGITS, image=image))
    pixels = torch.rand(4, 1, 8, 8)
    found = Teacher(str(tmp_path), DIGITS).logits((pixels - 0.3) / 0.4, SPEC)
    large = F.interpolate(pixels, size=(32, 32), mode="bilinear", antialias=True).expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (image.mean, image.std))
    with torch.no_grad():
        torch.testing.assert_close(found, own.eval()((large - mean) / std), rtol=1e-3, atol=1e-4)


def test_views_of_another_model() -> None:
    """Reference: grey by weights; an equal view is passed on as it is, to the bit."""
    colour = ImageSpec(height=8, width=8, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    pixels = torch.rand(2, 3, 8, 8)
    images = (pixels - 0.5) / 0.5
    grey = (pixels * torch.tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(seen_by(images, colour, SPEC), (grey - 0.3) / 0.4)
    assert seen_by(images, colour, colour) is images


def loader(augment: AugmentConfig | None, *, spec: ImageSpec = SPEC) -> Loader:
    """Batches of 40 digits."""
    items = Selection(open_source("digits").splits["train"], np.arange(40))
    targets = LabelTargets(DIGITS)
    return Loader(items, spec, batch_size=16, augment=augment, seed=5, shuffle=True, targets=targets)


@pytest.mark.parametrize(
    ("augment", "asked"),
    [
        (None, 0),
        (AugmentConfig(hflip=0.5), 0),
        (AugmentConfig(hflip=0.5, vflip=0.5), 0),
        (AugmentConfig(crop_padding=1), 120),
        (AugmentConfig(mixup=0.5), 120),
    ],
)
def test_kept_outputs_are_those_of_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augment: AugmentConfig | None, asked: int
) -> None:
    """Reference: the teacher asked for each batch; how many images it is shown after it has begun."""
    teacher, model = write_run(tmp_path), student()
    objective, batches = distillation(tmp_path, model), loader(augment)
    objective.begin(batches, console=None)
    shown: list[int] = []
    ask = Teacher.logits

    def counted(self: Teacher, images: torch.Tensor, spec: ImageSpec) -> torch.Tensor:
        shown.append(len(images))
        return ask(self, images, spec)

    monkeypatch.setattr(Teacher, "logits", counted)
    for epoch in range(3):
        for batch in batches.epoch(epoch):
            with torch.no_grad():
                expected = teacher(batch.images)
            torch.testing.assert_close(objective.teacher_logits(batch), expected, rtol=1e-4, atol=1e-5)
    assert sum(shown) == asked


def test_images_unlike_every_view_are_shown_to_the_teacher(tmp_path: Path) -> None:
    """Reference: the teacher's outputs, of a batch in which two images are not the kept ones."""
    teacher, model = write_run(tmp_path), student()
    objective, batches = distillation(tmp_path, model), loader(AugmentConfig(hflip=0.5))
    objective.begin(batches, console=None)
    batch = next(batches.epoch(0))
    batch.images[[1, 4]] += 1.0
    with torch.no_grad():
        torch.testing.assert_close(
            objective.teacher_logits(batch), teacher(batch.images), rtol=1e-4, atol=1e-5
        )


def test_state_holds_a_digest_and_no_weights_of_the_teacher(tmp_path: Path) -> None:
    """Reference: another teacher refuses the state; the same one takes it."""
    model = student()
    write_run(tmp_path / "one")
    write_run(tmp_path / "two", labels=DIGITS[::-1])
    one, two = (distillation(tmp_path / name, model) for name in ("one", "two"))
    state = one.state_dict()
    assert not [name for name, value in state.items() if isinstance(value, torch.Tensor)]
    assert list(one.parameters()) == []
    distillation(tmp_path / "one", model).load_state_dict(state)
    with pytest.raises(WeightsError, match="teacher has changed"):
        two.load_state_dict(state)


@pytest.mark.parametrize(
    "settings",
    [{"teacher_share": 1.5}, {"teacher_share": -0.1}, {"distill_temperature": 0.0}, {"distillation": "firm"}],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        ts.train("digits", teacher="x", out=tmp_path / "run", quiet=True, **settings)


def test_a_head_on_kept_features_cannot_have_a_teacher(tmp_path: Path) -> None:
    write_run(tmp_path / "teacher")
    options: dict[str, Any] = {"from_": str(tmp_path / "teacher"), "tune": "head", "epochs": 1, "quiet": True}
    with pytest.raises(TeselaError, match="features of a frozen body") as raised:
        ts.train("digits", teacher=str(tmp_path / "teacher"), out=tmp_path / "run", **options)
    assert "--tune-cache none" in raised.value.hint
