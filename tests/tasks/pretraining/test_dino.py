"""DINO: loss, centre and teacher by their formulas, crops, and that computing has no effect."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tests.tasks.pretraining.embedders import SPEC, attached, batch_of, embedder, pixels
from torch.nn import functional as F

from tesela.core.errors import ConfigError
from tesela.imaging.color import LUMA
from tesela.tasks.objective import Draw
from tesela.tasks.pretraining.config import PretrainConfig
from tesela.tasks.pretraining.crops import random_crops, recolored
from tesela.tasks.pretraining.dino import small_size

TINY = {"method": "dino", "prototypes": 12, "projection_width": 8, "local_crops": 2}


def test_the_loss_is_that_of_every_pair_of_different_crops() -> None:
    """Reference: the loops of the authors' code."""
    objective = attached(embedder(), **TINY)
    objective.center = torch.randn(12, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(0)
    told, taught = torch.randn(16, 12, generator=generator), torch.randn(8, 12, generator=generator)
    teachers = ((taught - objective.center) / 0.04).softmax(1).chunk(2)
    students = (told / 0.1).chunk(4)
    terms = [
        -(teacher * F.log_softmax(student, 1)).sum(1).mean()
        for number, teacher in enumerate(teachers)
        for place, student in enumerate(students)
        if place != number
    ]
    assert len(terms) == 6
    assert float(objective.agreement(told, taught, 4)) == pytest.approx(float(sum(terms)) / 6, rel=1e-5)


def test_centre_and_teacher_move_after_the_step_alone() -> None:
    """Reference: c = 0.9 c + 0.1 mean, teacher = 0.996 teacher + 0.004 student."""
    model, batch = embedder(), batch_of(pixels())
    objective = attached(model, **TINY)
    before = copy.deepcopy(objective.state_dict())
    objective.loss(model, batch, Draw(0, 7))
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
    large, _ = objective.crops(batch, Draw(0, 0))
    mean = objective.teacher_head(objective.teacher(large)).mean(0).detach()
    objective.loss(model, batch, Draw(0, 0)).value.backward()
    with torch.no_grad():
        for parameter in [*model.parameters(), *objective.student_head.parameters()]:
            parameter += 0.5
    objective.after_step(model, step=1)
    torch.testing.assert_close(objective.center, 0.1 * mean)
    after = objective.state_dict()
    for name, student in model.named_parameters():
        wanted = 0.996 * before[f"teacher.{name}"] + 0.004 * student.detach()
        torch.testing.assert_close(after[f"teacher.{name}"], wanted)
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())


def test_a_crop_of_everything_is_the_image_or_its_mirror_image() -> None:
    """Where the draws change no colour; one image in five, at least."""
    square = torch.randint(0, 256, (60, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    images = batch_of(square[..., :24]).images[..., :24].repeat(1, 1, 1, 2)[..., :32]
    draw, indices = Draw(1, 2), torch.arange(60)
    whole = {"number": 3, "area": (1.0, 1.0), "size": (32, 32), "spec": SPEC}
    found = random_crops(images, indices, draw, **whole)  # type: ignore[arg-type]
    colors, mirrored = draw(indices, "color 3", 5), draw(indices, "mirror 3")[:, 0] < 0.5
    plain = (colors[:, 0] >= 0.8) & (colors[:, 4] >= 0.2)
    assert plain.sum() > 4 and (plain & mirrored).any() and (plain & ~mirrored).any()
    for row in torch.nonzero(plain).flatten().tolist():
        wanted = images[row].flip(2) if mirrored[row] else images[row]
        torch.testing.assert_close(found[row], wanted, rtol=1e-4, atol=1e-4)
    part = random_crops(images[[7]], indices[[7]], draw, **whole)  # type: ignore[arg-type]
    torch.testing.assert_close(part[0], found[7], rtol=1e-5, atol=1e-5)


def test_colours_change_as_one_after_the_other() -> None:
    """Reference: brightness, contrast, saturation and grey, each by its own formula, on colours 0..1."""
    values = pixels(6).double() / 255
    mean, std = (torch.tensor(part, dtype=torch.float64).view(-1, 1, 1) for part in (SPEC.mean, SPEC.std))
    draws = torch.rand(6, 5, generator=torch.Generator().manual_seed(0)).double()
    draws[:, 0] = torch.tensor([0.1, 0.1, 0.1, 0.9, 0.9, 0.1])
    draws[:, 4] = torch.tensor([0.9, 0.1, 0.9, 0.9, 0.1, 0.1])
    found = recolored((values - mean) / std, draws, SPEC) * std + mean
    weights = torch.tensor(LUMA, dtype=torch.float64).view(3, 1, 1)
    for row in range(6):
        image, (_, bright, contrast, saturation, _) = values[row], draws[row].tolist()
        if draws[row, 0] < 0.8:
            image = image * (1 + 0.4 * (2 * bright - 1))
            factor = 1 + 0.4 * (2 * contrast - 1)
            image = factor * image + (1 - factor) * (image * weights).sum(0).mean()
            factor = 1 + 0.2 * (2 * saturation - 1)
            image = factor * image + (1 - factor) * (image * weights).sum(0)
        if draws[row, 4] < 0.2:
            image = (image * weights).sum(0).expand(3, -1, -1)
        torch.testing.assert_close(found[row], image, rtol=1e-5, atol=1e-5)


def test_crops_have_their_sizes_and_shares() -> None:
    objective = attached(embedder(), **TINY)
    large, small = objective.crops(batch_of(pixels()), Draw(0, 0))
    assert large.shape == (8, 3, 32, 24)
    assert small is not None and small.shape == (8, 3, 16, 8), "3/7 of 4 x 3 patches, rounded"


@pytest.mark.parametrize("side", [12, 32])
def test_small_crops_of_part_patches_are_refused(side: int) -> None:
    """12 pixels are one and a half patches, 32 are more than the image is wide."""
    with pytest.raises(ConfigError, match="not whole patches"):
        small_size(embedder(), SPEC, PretrainConfig(method="dino", local_size=side))


def test_it_learns_to_tell_images_apart() -> None:
    """Images of few colours: the loss falls, and the teacher uses many prototypes."""
    colors = torch.randint(0, 256, (16, 3, 1, 1), generator=torch.Generator().manual_seed(0))
    noise = torch.randint(-30, 31, (16, 3, 32, 24), generator=torch.Generator().manual_seed(1))
    model, batch = embedder(), batch_of((colors + noise).clamp(0, 255))
    objective = attached(model, **{**TINY, "teacher_momentum": 0.9})
    optimizer = torch.optim.AdamW([*model.parameters(), *objective.student_head.parameters()], lr=3e-3)
    losses = []
    for step in range(80):
        optimizer.zero_grad()
        loss = objective.loss(model, batch, Draw(0, step))
        loss.value.backward()
        optimizer.step()
        objective.after_step(model, step=step + 1)
        losses.append(float(loss.value.detach()))
    assert np.mean(losses[-10:]) < losses[0] - 0.3
    assert float(loss.logs["teacher_entropy"]) > 1.0


def test_pictures_show_where_it_looks() -> None:
    model = embedder().eval()
    with torch.inference_mode():
        outputs = attached(model, **TINY).outputs(model, batch_of(pixels()))
    picture = outputs.draw([1])[0]
    assert picture.shape == (32, 48, 3) and outputs.losses is None
    assert np.array_equal(picture[:, :24], pixels()[1].permute(1, 2, 0).numpy())
    brightest = (picture[:, 24:] == picture[:, :24]).all(axis=2).reshape(4, 8, 3, 8).all(axis=(1, 3))
    assert brightest.any(), "the patch with the most attention keeps its colours"
