"""``tesela plan``: memory, time and communication of a training, worked out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.table import Table

    from tesela.training.planning.cluster import Cluster
    from tesela.training.planning.demand import Demand

PARTS = ("weights", "gradients", "optimizer", "average", "activations", "working", "peak")


def plan(
    model: str,
    /,
    *,
    batch: int = 256,
    devices: str = "cpu",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    image_size: str | None = None,
    num_classes: int | None = None,
    accumulate: int = 1,
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw",
    ema: bool = False,
    checkpointing: bool = False,
    images: int | None = None,
    epochs: int = 1,
    utilization: float | None = None,
    network: float = 400.0,
    layers: bool = False,
    json: bool = False,
) -> None:
    """Work out what a training needs on one device or on many: no model is built, nothing is rented.

    Args:
        model: A name of ``tesela models``.
        batch: Images of a step, over all devices.
        devices: Number and kind, such as h100, 8xh100, or 4x8xh100 for four nodes; cpu is this machine.
        precision: Number format of the matrix products; auto is fp32 on cpu and bf16 elsewhere.
        image_size: Side, or height and width as HxW; the model's own if not given.
        num_classes: Classes of the head; those of the published sizes if not given.
        accumulate: Batches that a device makes a step of.
        optimizer: What remembers moments of each weight.
        ema: Keep a moving average of the weights.
        checkpointing: Keep the input of each block only, and compute the rest again in the backward pass.
        images: Training images, for the time of the whole run.
        epochs: Passes over them.
        utilization: Share of the devices' matrix products that a step reaches; 0.7 on cpu and 0.4
            elsewhere if not given, which ``tesela bench`` measures.
        network: Gbit/s that a node sends to others.
        layers: List the activations of one image by layer.
        json: Print one JSON object as the last line.
    """
    from tesela.cli import output
    from tesela.training.planning.requirements import training_requirements

    output.use_json(json)
    found = training_requirements(
        model,
        batch=batch,
        devices=devices,
        precision=precision,
        image_size=image_size,
        num_classes=num_classes,
        accumulate=accumulate,
        optimizer=optimizer,
        ema=ema,
        checkpointing=checkpointing,
        images=images,
        epochs=epochs,
        utilization=utilization,
        network=network,
    )
    work, cluster = found.work, found.cluster
    output.say(
        f"{model}: {work.parameters:,} parameters, images of {'x'.join(map(str, work.config.image_size))}, "
        f"{batch:,} a step on {cluster.text()}, {work.images(cluster.ranks):,} at a time on each, "
        f"{work.precision}"
    )
    if layers:
        output.say(layer_table(found.activations.layers))
    output.say(demand_table(found.demand, cluster, most=found.largest, steps=found.steps))
    if found.activations.counted:
        output.say("activations were counted on two empty images here; other figures are closed forms")
    output.result(found.mapping(), json)


def layer_table(layers: tuple[tuple[str, int], ...]) -> Table:
    """Activations of one image by layer."""
    from rich.table import Table

    from tesela.core.format import byte_size

    table = Table(box=None, header_style="bold")
    table.add_column("layer")
    table.add_column("activations of an image", justify="right")
    for name, size in layers:
        table.add_row(name, byte_size(size))
    return table


def demand_table(
    found: dict[Any, Demand], cluster: Cluster, *, most: dict[Any, int], steps: int | None
) -> Table:
    """Memory of a rank by part, communication and time; a column for each way to share the weights."""
    from rich.table import Table

    from tesela.core.format import byte_size, duration
    from tesela.training.planning.cluster import CPU

    room = cluster.kind.memory // (cluster.each if cluster.kind.name == CPU else 1)
    table = Table(box=None, header_style="bold")
    table.add_column("of each rank" if cluster.ranks > 1 else "of the device")
    for way in found:
        table.add_column(str(way) if len(found) > 1 else "", justify="right")

    def row(name: str, cells: list[str]) -> None:
        table.add_row(name, *cells)

    every = list(found.values())
    for name in PARTS:
        if any(getattr(one, name) for one in every):
            row(name, [byte_size(getattr(one, name)) for one in every])
    row(
        f"of {byte_size(room)} memory",
        ["does not fit" if one.peak > room else f"{one.peak / max(room, 1):.0%}" for one in every],
    )
    row("largest batch", [f"{most[way]:,}" if most[way] else "none" for way in found])
    if cluster.ranks > 1:
        row("sent in a step", [byte_size(one.sent) for one in every])
        row("communication", [_time(one.communication) for one in every])
    row("arithmetic", [_time(one.compute) for one in every])
    row("step", [_time(one.step) for one in every])
    if steps is not None:
        row(f"{steps:,} steps", [duration(steps * one.step) for one in every])
    return table


def _time(seconds: float) -> str:
    """Milliseconds below a second."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
