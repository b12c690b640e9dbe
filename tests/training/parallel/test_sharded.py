"""Weights that are shared out (FSDP2), against those that every process has (DDP) and one process's."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.parallel.together import largest_difference, plain, together, trained
from torch.nn import functional as F

from tesela.core.errors import ConfigError
from tesela.hardware.distributed import joined
from tesela.hardware.launch import launched
from tesela.runs.folder import Run
from tesela.training.parallel.sharded import check_shardable
from tesela.training.run import train

#: Both are the mean of the same numbers, added in another order.
CLOSE = 1e-6


def test_the_curve_is_that_of_whole_weights_and_of_one_process(tmp_path: Path) -> None:
    """With MixUp, accumulation, a moving average, clipping, and the best epoch shipped."""
    runs = {name: Run(tmp_path / name) for name in ("one", "ddp", "fsdp")}
    settings = {"keep": "best"}
    train(plain(runs["one"].path, **settings))
    assert trained(plain(runs["ddp"].path, **settings), 2) == [0, 0]
    assert trained(plain(runs["fsdp"].path, shard="full", **settings), 2) == [0, 0]
    assert largest_difference(runs["one"], runs["fsdp"]) <= CLOSE
    assert largest_difference(runs["ddp"], runs["fsdp"]) <= CLOSE
    from tesela import load

    images = torch.randn(4, 1, 8, 8)
    first, second = (load(runs[name].path)(images) for name in ("one", "fsdp"))
    assert torch.allclose(first, second, atol=1e-4)


def test_a_checkpoint_loads_on_another_number_of_processes_shared_out_or_not(tmp_path: Path) -> None:
    alone, run = Run(tmp_path / "alone"), Run(tmp_path / "run")
    train(plain(alone.path))
    codes = trained(plain(run.path, shard="full"), 4, TESELA_FAILPOINT="loop.after_step=kill@17")
    assert set(codes) == {-9}
    codes = trained(plain(run.path), 2, resume=True, TESELA_FAILPOINT="loop.after_step=kill@13")
    assert set(codes) == {-9}
    codes = trained(plain(run.path, shard="full"), 2, resume=True, TESELA_FAILPOINT="loop.after_step=kill@13")
    assert set(codes) == {-9}
    train(plain(run.path), resume=True)
    assert largest_difference(alone, run) <= CLOSE


@pytest.mark.parametrize(
    ("change", "precision"),
    [({"tune": "lora"}, "fp32"), ({"precision": "auto"}, "fp16"), ({"optim": {"name": "muon"}}, "bf16")],
)
def test_what_cannot_be_shared_out_is_refused(
    change: dict[str, object], precision: str, tmp_path: Path
) -> None:
    """Reference: whatever was asked for, fp16 may have been chosen on the machine."""
    with pytest.raises(ConfigError) as caught:
        check_shardable(plain(tmp_path / "run", **change), precision)
    assert "--shard none" in caught.value.hint


def resident(name: str) -> int:
    """Bytes of this process, now (VmRSS) or at most (VmHWM)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(rf"^{name}:\s*(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found.group(1)) * 1024


def test_a_rank_has_its_share_of_weights_and_moments(tmp_path: Path) -> None:
    """Reference: the bytes of the tensors, and the process's own, after steps of a deep model."""
    from tesela.models.factory import create_model
    from tesela.training.optim.optimizer import OptimConfig, build_optimizers
    from tesela.training.parallel.sharded import shard

    def measured(sharded: bool) -> list[int]:
        def one(rank: int) -> None:
            with joined(launched(), cuda=False):
                torch.set_num_threads(1)
                libc = ctypes.CDLL(None)
                libc.mallopt(-3, 65536)  # M_MMAP_THRESHOLD: what is freed goes back at once
                before = resident("VmRSS")
                model = create_model("vit_s16", num_classes=10, image_size=32, depth=24, seed=0)
                root: Any = shard(model) if sharded else None
                optimizers = build_optimizers(model, OptimConfig())
                for _ in range(2):
                    images = torch.randn(1, 3, 32, 32)
                    logits = root(lambda: model(images)) if sharded else model(images)  # noqa: B023
                    F.cross_entropy(logits, torch.tensor([1])).backward()
                    optimizers.parts[0].step()
                    optimizers.zero_grad()
                libc.malloc_trim(0)
                (tmp_path / f"{sharded}-{rank}").write_text(str(resident("VmRSS") - before))

        assert together(2, one) == [0, 0]
        return [int((tmp_path / f"{sharded}-{rank}").read_text()) for rank in range(2)]

    whole, parts = measured(False), measured(True)
    assert max(parts) <= 0.6 * min(whole)
