"""Requirements of a training on named devices: what ``tesela plan`` and ``ts.plan`` answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tesela.core.config import convert_value
from tesela.core.errors import UsageError
from tesela.training.planning.activations import Activations
from tesela.training.planning.cluster import CPU, Cluster, parse_devices
from tesela.training.planning.demand import (
    Demand,
    Sharding,
    Workload,
    activations_of,
    demand,
    largest_batch,
    workload,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirements:
    """What a training needs; bytes and seconds.

    Attributes:
        work: model, batch and number format.
        cluster: the devices.
        activations: of one image, by layer.
        demand: memory of a rank, bytes sent and seconds of a step, for each way to share the weights.
        largest: the largest batch of a step that fits, 0 where none does, for each way.
        steps: of the whole run; None where the number of images was not said.
    """

    work: Workload
    cluster: Cluster
    activations: Activations
    demand: dict[Sharding, Demand]
    largest: dict[Sharding, int]
    steps: int | None

    def mapping(self) -> dict[str, Any]:
        """As plain values."""
        kept, steps = self.activations, self.steps
        return {
            "model": self.work.name,
            "batch": self.work.batch,
            "devices": self.cluster.text(),
            "ranks": self.cluster.ranks,
            "steps": steps,
            "device_memory": self.cluster.kind.memory,
            "precision": self.work.precision,
            "checkpointed": kept.checkpointed,
            "parameters": self.work.parameters,
            "activations_of_image": kept.kept,
            "layers": dict(kept.layers),
            "counted": kept.counted,
            "demand": {
                way: one.mapping()
                | {"largest_batch": self.largest[way], "seconds": None if steps is None else steps * one.step}
                for way, one in self.demand.items()
            },
        }


def training_requirements(
    model: str,
    *,
    batch: int = 256,
    devices: str = "cpu",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    image_size: int | str | tuple[int, int] | None = None,
    num_classes: int | None = None,
    accumulate: int = 1,
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw",
    ema: bool = False,
    checkpointing: bool = False,
    images: int | None = None,
    epochs: int = 1,
    utilization: float | None = None,
    network: float = 400.0,
) -> Requirements:
    """Work out what a training needs; no model is built.

    Args:
        model: a name in the catalogue.
        batch: images of a step, over all devices.
        devices: number and kind, such as h100, 8xh100, or 4x8xh100 for four nodes; cpu is this machine.
        precision: number format of the matrix products; auto is fp32 on cpu and bf16 elsewhere.
        image_size: side, or height and width; the model's own if None.
        num_classes: of the head; those of the published sizes if None.
        accumulate: batches that a device makes a step of.
        optimizer: what remembers moments of each weight.
        ema: keep a moving average of the weights.
        checkpointing: keep the input of each block only.
        images: training images, for the time of the whole run.
        epochs: passes over them.
        utilization: share of the devices' matrix products that a step reaches; 0.7 on cpu, else 0.4 if None.
        network: Gbit/s that a node sends to others.

    Raises:
        UnknownNameError: no such model.
        UsageError: no such devices, or a number that makes no sense.
        ConfigError: a batch that the devices cannot share evenly.
    """
    if (images is not None and images < 1) or epochs < 1:
        raise UsageError(
            "images and epochs must be 1 or more", hint="tesela plan MODEL --images 1281167 --epochs 90"
        )
    size = None if image_size is None else convert_value(tuple[int, int], image_size, "image_size")
    cluster = parse_devices(devices, network=network)
    on_cpu = cluster.kind.name == CPU
    chosen = ("fp32" if on_cpu else "bf16") if precision == "auto" else precision
    work = workload(
        model,
        batch=batch,
        classes=num_classes,
        image_size=size,
        precision=chosen,
        accumulate=accumulate,
        optimizer=optimizer,
        average=ema,
        checkpointing=checkpointing,
    )
    work.images(cluster.ranks)  # refuses before anything is counted
    kept = activations_of(work, on_cpu=on_cpu)
    ways: tuple[Sharding, ...] = ("ddp", "fsdp") if cluster.ranks > 1 else ("ddp",)
    reached = (0.7 if on_cpu else 0.4) if utilization is None else utilization
    return Requirements(
        work=work,
        cluster=cluster,
        activations=kept,
        demand={way: demand(work, cluster, way, kept, utilization=reached) for way in ways},
        largest={way: largest_batch(work, cluster, way, kept) for way in ways},
        steps=None if images is None else epochs * max(1, images // batch),
    )
