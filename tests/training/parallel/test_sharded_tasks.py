"""Weights that are shared out (FSDP2) in every task and every family of networks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contracts import test_classifiers as classifiers
from tests.contracts import test_segmenters as segmenters
from tests.tasks.pretraining.embedders import attached, batch_of, embedder, pixels
from tests.training.parallel.together import largest_difference, plain, together, trained
from torch import Tensor, nn

from tesela import load
from tesela.hardware.distributed import joined, local_part, sharing, whole_tensor
from tesela.hardware.launch import launched
from tesela.hardware.ranks import Ranks
from tesela.runs.folder import Run
from tesela.tasks.objective import Draw
from tesela.training.parallel.sharded import shard
from tesela.training.run import resumed_config, train

#: Of losses and scores in fp32 over the steps of three epochs.
CLOSE = 2e-6
#: Two processes end at this point: one is killed, and the other one loses it.
LOST = [-9, 1]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A trained network of the digits."""
    path = tmp_path_factory.mktemp("parallel") / "teacher"
    train(plain(path, epochs=1))
    return str(path)


CASES: dict[str, Callable[[str], dict[str, Any]]] = {
    "masked": lambda _: {"task": "pretrain", "objective": {"method": "masked"}},
    "mae": lambda _: {"task": "pretrain", "objective": {"method": "mae"}, "few_shot": (1,)},
    "dino": lambda _: {
        "task": "pretrain",
        "objective": {
            "method": "dino",
            "prototypes": 31,
            "projection_width": 32,
            "local_crops": 2,
            "teacher_momentum": 0.8,
        },
    },
    "distillation token": lambda source: {
        "model": "deit_ti16",
        "image_size": 8,
        "net": {"width": 16, "depth": 2, "heads": 2, "patch_size": (2, 2)},
        "objective": {"teacher": source, "distillation": "hard"},
    },
    "frozen": lambda source: {
        "from_": source,
        "model": "auto",
        "net": {},
        "tune": "bias",
        "tune_unfreeze": 1,
        "few_shot": (1,),
    },
}


@pytest.mark.parametrize("case", CASES)
def test_every_task_has_the_curve_of_one_process_across_resumptions(
    case: str, teacher: str, tmp_path: Path
) -> None:
    """Two processes, then one, then two; both begin with a validation that a kill has left undone."""
    settings: dict[str, Any] = {
        "data": {"source": "digits", "workers": 0, "subset": 96},
        "epochs": 3,
        "batch_size": 12,
        "augment": {"mixup": 0.0},
        **CASES[case](teacher),
    }
    alone, run = Run(tmp_path / "alone"), Run(tmp_path / "run")
    train(plain(alone.path, **settings))
    shared = plain(run.path, shard="full", **settings)
    assert trained(shared, 2, TESELA_FAILPOINT="checkpoint.after_write=kill@1") == LOST
    one, both = (resumed_config(run.path, {"shard": kind}) for kind in ("none", "full"))
    assert trained(one, 1, resume=True, TESELA_FAILPOINT="checkpoint.after_write=kill@2") == [-9]
    assert trained(both, 2, resume=True) == [0, 0]
    assert largest_difference(alone, run) <= CLOSE
    images = torch.randn(4, 1, 8, 8)
    assert torch.allclose(load(alone.path)(images), load(run.path)(images), atol=1e-4)


def share_of(module: nn.Module) -> float:
    """What this process has of a module's weights."""
    parts = sum(local_part(one).numel() for one in module.parameters())
    return parts / sum(one.numel() for one in module.parameters())


def test_a_momentum_teacher_is_shared_out_and_moves_with_the_student() -> None:
    """Reference: the same step of whole weights."""

    def one(rank: int) -> None:
        with joined(launched(), cuda=False), sharing(Ranks(rank, 2)):
            model, batch = embedder(), batch_of(pixels())
            objective = attached(model, method="dino", prototypes=11, projection_width=8, local_crops=1)
            whole, reference = copy.deepcopy((model, objective))
            root: Any = shard(model, objective)
            root(lambda: objective.loss(model, batch, Draw(0, 0))).value.backward()
            reference.loss(whole, batch, Draw(0, 0)).value.backward()
            for single in (
                *model.parameters(),
                *objective.student_head.parameters(),
                *whole.parameters(),
                *reference.student_head.parameters(),
            ):
                with torch.no_grad():
                    single.sub_(single.grad, alpha=100.0)
            objective.after_step(model, step=1)
            reference.after_step(whole, step=1)
            moved = {name: whole_tensor(tensor) for name, tensor in objective.state_dict().items()}
            assert moved.keys() == reference.state_dict().keys()
            for name, tensor in reference.state_dict().items():
                torch.testing.assert_close(moved[name], tensor, rtol=1e-5, atol=1e-6)
            assert max(share_of(model), share_of(objective.teacher), share_of(objective.teacher_head)) < 0.56

    assert together(2, one) == [0, 0]


def test_every_family_has_the_gradients_of_whole_weights() -> None:
    """In a step, and its outputs in a validation before and after it."""
    made: list[tuple[Any, Tensor]] = [
        *((classifiers.make(config), classifiers.images(config)) for config in classifiers.FAMILIES.values()),
        *(
            (segmenters.make(backbone, decoder), classifiers.images(segmenters.BACKBONES[backbone]))
            for backbone, decoder in (("vit", "light"), ("resnet", "mlp"), ("unet", "unet"), ("cct", "patch"))
        ),
    ]

    def one(rank: int) -> None:
        del rank
        with joined(launched(), cuda=False):
            for model, images in made:
                wanted = model(images)
                wanted.square().mean().backward()
                gradients = {name: one.grad for name, one in model.named_parameters()}
                model.zero_grad()
                root: Any = shard(model)
                for _ in range(2):
                    root.unshard()
                    with torch.inference_mode():
                        torch.testing.assert_close(model(images), wanted.detach())
                    root.reshard()
                    model.zero_grad()
                    root(lambda: model(images).square().mean()).backward()  # noqa: B023 - called at once
                for name, parameter in model.named_parameters():
                    if gradients[name] is not None:
                        torch.testing.assert_close(whole_tensor(parameter.grad), gradients[name])

    assert together(2, one) == [0, 0]
