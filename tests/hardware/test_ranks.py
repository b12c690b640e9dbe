"""What several processes say to one another, and sums over a batch that lies on all of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from tests.training.parallel.together import together

from tesela.core.errors import DataError, UsageError
from tesela.hardware.distributed import joined, sharing, total
from tesela.hardware.launch import Launch, first_host, launched
from tesela.hardware.ranks import ALONE, PeerLostError, Ranks
from tesela.layers.norm import BatchNorm
from tesela.tasks.segmentation.config import SegmentationConfig
from tesela.tasks.segmentation.objective import MaskLoss, dice_loss


def check(name: str, condition: bool) -> None:
    if not condition:
        sys.stdout.write(f"wrong: {name}\n")
        sys.stdout.flush()
        os._exit(9)


def gradient(of: torch.Tensor) -> torch.Tensor:
    assert of.grad is not None
    return of.grad


def test_spans_are_even_and_lose_nothing() -> None:
    for images in range(1, 40):
        for count in range(1, 8):
            spans = [Ranks(rank, count).span(images) for rank in range(count)]
            rows = [row for begin, end in spans for row in range(begin, end)]
            sizes = [end - begin for begin, end in spans]
            assert rows == list(range(images)) and max(sizes) - min(sizes) <= 1


def test_ranks_tell_gather_sum_and_agree() -> None:
    def one(rank: int) -> None:
        with joined(launched(), cuda=False) as ranks:
            check("sum", ranks.sums([1.0, rank]) == [3.0, 3.0])
            check("text", ranks.text(f"from {rank}: Ärger") == "from 0: Ärger")
            check("empty", ranks.first(lambda: "") == "")
            whole = torch.arange(14.0).view(7, 2)
            begin, end = ranks.span(7)
            found = ranks.gathered(whole[begin:end], 7)
            check("gathered", (found is None) == (rank > 0) and (found is None or torch.equal(found, whole)))
            ranks.agree("nothing", "same", hint="-")
            try:
                ranks.agree("the weather", "rain" if rank == 2 else "sun", hint="look out")
                check("refused", False)
            except DataError as error:
                check("names", error.message == "rank 0 and rank 2 disagree on the weather")
            try:
                ranks.first(lambda: str(1 // 0))
                check("failed", False)
            except ZeroDivisionError:
                check("at rank 0", rank == 0)
            except PeerLostError:
                check("elsewhere", rank > 0)

    assert together(3, one) == [0, 0, 0]


def test_a_norm_and_the_losses_of_masks_are_those_of_the_whole_batch() -> None:
    """Values, gradients and running statistics, with parts of different size."""
    draw = torch.Generator().manual_seed(0)
    maps = torch.randn(5, 3, 6, 4, generator=draw)
    masks = torch.randint(0, 3, (5, 6, 4), generator=draw)
    masks[0, :4], masks[3] = 255, 255
    config = SegmentationConfig(cross_entropy=1.0, dice=0.7, focal=0.5)
    loss = MaskLoss(config, [0.5, 1.5, 1.0])

    def value(norm: BatchNorm, images: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        logits = norm(images)
        return loss._value(logits, wanted, wanted != 255)

    plain = torch.nn.BatchNorm2d(3)
    inputs = maps.clone().requires_grad_()
    logits = plain(inputs)
    wanted = loss._value(logits, masks, masks != 255)
    wanted.backward()
    assert float(dice_loss(logits.detach(), masks, masks != 255)) > 0

    def one(rank: int) -> None:
        with joined(launched(), cuda=False) as ranks, sharing(ranks):
            begin, end = ranks.span(5)
            norm, part = BatchNorm(3), maps[begin:end].clone().requires_grad_()
            found = value(norm, part, masks[begin:end])
            share = (end - begin) / 5  # as a step weights the losses of its ranks
            (found * share).backward()
            check("loss", torch.allclose(found, wanted, atol=1e-6))
            weight = gradient(norm.weight).clone()
            torch.distributed.all_reduce(weight)
            check("input", torch.allclose(gradient(part), gradient(inputs)[begin:end], atol=1e-7))
            check("weight", torch.allclose(weight, gradient(plain.weight), atol=1e-6))
            for name in ("running_mean", "running_var"):
                check(name, torch.allclose(getattr(norm, name), getattr(plain, name), atol=1e-6))

    assert together(2, one) == [0, 0]


def test_a_rank_that_dies_is_noticed_by_the_others() -> None:
    def one(rank: int) -> None:
        with joined(launched(), cuda=False) as ranks:
            ranks.sums([1.0])
            if rank == 1:
                os._exit(7)
            ranks.sums([1.0])

    assert together(2, one) == [1, 7]


def test_a_single_process_changes_nothing() -> None:
    values = torch.randn(3)
    assert total(values) is values
    assert ALONE.sums([2.0]) == [2.0] and ALONE.first(lambda: "a") == "a" and ALONE.span(7) == (0, 7)


def test_the_place_is_read_from_torchrun_and_slurm() -> None:
    assert launched({}) == Launch()
    torchrun = {
        "RANK": "3",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "123",
        "TORCHELASTIC_RESTART_COUNT": "2",
    }
    assert launched(torchrun) == Launch(rank=3, ranks=8, local=1, address="10.0.0.1", port=123, restarts=2)
    slurm = {
        "SLURM_PROCID": "5",
        "SLURM_STEP_NUM_TASKS": "16",
        "SLURM_LOCALID": "1",
        "SLURM_JOB_ID": "70123",
        "SLURM_STEP_NODELIST": "gpu[007-009,12],cpu1",
    }
    assert launched(slurm) == Launch(rank=5, ranks=16, local=1, address="gpu007", port=30123)
    assert first_host("alpha,beta") == "alpha"
    # a batch script that starts one process has these, and no step
    assert launched({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}) == Launch()


@pytest.mark.parametrize("said", [{"RANK": "4", "WORLD_SIZE": "4"}, {"RANK": "x", "WORLD_SIZE": "4"}])
def test_a_place_that_cannot_be_is_refused(said: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        launched(said)


def test_several_processes_need_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tesela.training.config import layered
    from tesela.training.run import train

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError) as caught:
        train(layered({"data": {"source": "digits"}}))
    assert "--out" in caught.value.hint
