"""What a training needs by closed forms, against what is counted and measured here."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from tesela.core.errors import UnknownNameError, UsageError
from tesela.hardware.autocast import autocast
from tesela.hardware.memory import kept_bytes
from tesela.models import catalog
from tesela.models.factory import create_model
from tesela.training.planning.activations import activations
from tesela.training.planning.cluster import DEVICE_KINDS, GIB, Cluster, parse_devices
from tesela.training.planning.demand import (
    Workload,
    activations_of,
    demand,
    largest_batch,
    workload,
)

H100 = Cluster(nodes=1, each=8, kind=DEVICE_KINDS["h100"], network=50e9)
ONE = Cluster(nodes=1, each=1, kind=DEVICE_KINDS["h100"], network=50e9)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("vit_s16", 22_050_664),  # torchvision's and timm's counts with 1,000 classes
        ("vit_b16", 86_567_656),
        ("vit_l16", 304_326_632),
        ("vit_h14", 632_045_800),
    ],
)
def test_parameters_are_the_published_ones(name: str, published: int) -> None:
    assert workload(name, batch=8).parameters == published


@pytest.mark.parametrize("name", ["vit_ti16", "deit_ti", "resnet18", "vit_lite6_p4"])
def test_parameters_are_those_of_the_built_model(name: str) -> None:
    names = catalog.model_names()
    if name not in names:
        name = next(other for other in names if other.startswith(name))
    work = workload(name, batch=8, classes=7)
    with torch.device("meta"):
        model = create_model(work.config, num_classes=7)
    assert work.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"pool": "mean", "final_norm": False, "pooled_norm": True},
        {"pool": "mean", "mlp": "swiglu"},
        {"layer_scale": 1e-5},
        {"attention": "wide", "heads": 2, "pool": "class_mean"},
        {"dropout": 0.1},
        {"distillation": True},
    ],
    ids=str,
)
def test_activations_are_what_autograd_keeps(fields: dict[str, object], precision: str) -> None:
    fields = {"depth": 3, "width": 96, "heads": 3, "image_size": (64, 48), **fields}
    entry, config = catalog.find_model("vit_s16"), catalog.resolve("vit_s16", overrides=fields)
    model = create_model(config, num_classes=10).train()

    def counted(count: int) -> int:
        images = torch.randn(count, 3, 64, 48)

        def run() -> object:
            with autocast(torch.device("cpu"), precision):
                return F.cross_entropy(model(images).float(), torch.zeros(count, dtype=torch.int64))

        return kept_bytes(run, model)

    found = activations(entry, config, classes=10, precision=precision, on_cpu=True)
    assert not found.counted
    kept = found.kept - dict(found.layers)["images"]  # the input is not kept by autograd
    each = (counted(12) - counted(4)) / 8  # without copies of weights, which there are in half precision
    assert kept == pytest.approx(each, rel=0.02)


def test_checkpointed_blocks_keep_their_input() -> None:
    work = workload("vit_s16", batch=8, precision="fp32")
    found = activations_of(work, on_cpu=True)
    entering = 197 * 384 * 4
    blocks = dict(found.layers)
    ends = sum(size for name, size in blocks.items() if not name.startswith("block"))
    assert found.checkpointed == ends + 12 * entering + blocks["block00"]


def test_other_networks_are_counted() -> None:
    work = workload("resnet18", batch=8, image_size=64, classes=10, precision="fp32")
    found = activations_of(work, on_cpu=True)
    model = create_model(work.config, num_classes=10).train()
    images = torch.zeros(4, 3, 64, 64)
    counted = kept_bytes(lambda: F.cross_entropy(model(images), torch.zeros(4, dtype=torch.int64)), model)
    assert found.counted
    assert 4 * dict(found.layers)["network"] == pytest.approx(counted, rel=0.02)


MEASURE = """
import re, sys, torch
from torch.nn import functional as F
from tesela.models.factory import create_model
torch.set_num_threads(1)

def status(name):
    return int(re.search(rf"^{name}:\\s*(\\d+) kB", open("/proc/self/status").read(), re.M).group(1)) * 1024

def train(size, batch, **fields):
    model = create_model("vit_s16", num_classes=10, image_size=size, **fields).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(2):
        images = torch.randn(batch, 3, size, size)
        F.cross_entropy(model(images), torch.zeros(batch, dtype=torch.int64)).backward()
        optimizer.step()
        optimizer.zero_grad()

train(32, 2, depth=1)
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
train(*map(int, sys.argv[1:3]), depth=int(sys.argv[3]))
print(status("VmHWM") - before)
"""


@pytest.mark.parametrize(("size", "batch", "depth"), [(64, 64, 6), (32, 8, 6)])
def test_peak_memory_is_within_15_percent_of_what_a_run_takes(size: int, batch: int, depth: int) -> None:
    command = [sys.executable, "-c", MEASURE, str(size), str(batch), str(depth)]
    measured = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    work = workload(
        "vit_s16", batch=batch, classes=10, image_size=size, precision="fp32", overrides={"depth": depth}
    )
    found = demand(work, ONE, "ddp", activations_of(work, on_cpu=True))
    assert found.peak == pytest.approx(measured, rel=0.15)


def test_ranks_share_the_state_and_send_what_a_ring_sends() -> None:
    work = workload("vit_l16", batch=1024, precision="fp32")
    kept, size = activations_of(work, on_cpu=False), 4 * 304_326_632
    ddp, fsdp = (demand(work, H100, way, kept) for way in ("ddp", "fsdp"))
    assert (ddp.weights, ddp.gradients, ddp.optimizer) == (size, size, 2 * size)
    assert (fsdp.weights, fsdp.gradients, fsdp.optimizer) == (size // 8, size // 8, size // 4)
    assert ddp.sent == round(2 * 7 / 8 * size)
    assert fsdp.sent == round(3 * 7 / 8 * size)
    block = 4 * (12 * 1024**2 + 13 * 1024)
    assert 4 * work.block_parameters == block
    assert fsdp.working - ddp.working == 3 * block
    assert ddp.activations == 128 * kept.kept


def test_accumulated_batches_gather_the_weights_again() -> None:
    work = workload("vit_s16", batch=64, accumulate=4, precision="fp32")
    kept, size = activations_of(work, on_cpu=False), 4 * 22_050_664
    assert demand(work, H100, "fsdp", kept).sent == round(9 * 7 / 8 * size)
    assert demand(work, H100, "ddp", kept).sent == round(2 * 7 / 8 * size)


def test_the_largest_batch_fits_and_the_next_does_not() -> None:
    work = workload("vit_b16", batch=8)
    kept = activations_of(work, on_cpu=False)
    most = largest_batch(work, H100, "ddp", kept)

    def peak(batch: int) -> int:
        return demand(replace(work, batch=batch), H100, "ddp", kept).peak

    assert peak(most) <= 0.9 * 80 * GIB < peak(most + 8)


def test_a_slow_network_makes_the_step_as_long_as_what_it_sends() -> None:
    work = workload("vit_l16", batch=16)
    slow = Cluster(nodes=2, each=8, kind=DEVICE_KINDS["h100"], network=1e9)
    found = demand(work, slow, "ddp", activations_of(work, on_cpu=False))
    assert found.communication == pytest.approx(found.sent / 1e9)
    assert found.step == pytest.approx(found.compute / 3 + found.communication)


def test_devices_are_read_as_nodes_times_devices_times_kind() -> None:
    cluster = parse_devices("4x8xH100", network=400)
    assert (cluster.nodes, cluster.each, cluster.kind.name, cluster.ranks) == (4, 8, "h100", 32)
    assert cluster.network == 50e9
    assert parse_devices("8xa100-40", network=100).ranks == 8
    assert parse_devices("h200", network=100).ranks == 1


@pytest.mark.parametrize("words", ["", "8", "0xh100", "8h100!", "2x3x4xh100", "-1xh100"])
def test_devices_that_cannot_be_read_are_refused(words: str) -> None:
    with pytest.raises(UsageError):
        parse_devices(words, network=400)


def test_an_unknown_device_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        parse_devices("8xh101", network=400)
    assert "h100" in caught.value.hint


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    work: Workload = workload("vit_s16", batch=100)
    with pytest.raises(UsageError) as caught:
        work.images(8)
    assert "--batch 96" in caught.value.hint
