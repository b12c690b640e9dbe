"""Demand of a training on a cluster in closed form: memory, bytes sent, seconds.

P parameters, W ranks, all values of four bytes but for what half precision makes two of:

    memory           ddp                              fsdp
    weights          4 P                              4 P / W
    gradients        4 P                              4 P / W
    optimizer        8 P (adamw), 4 P (sgd)           1 / W of it
    average          4 P                              4 P / W
    gathered         0                                two blocks' weights and one block's gradients
    sent in a step   2 (W - 1) / W 4 P                (2 A + 1) (W - 1) / W 4 P, A batches accumulated

A ring all-reduce sends every gradient twice, by reduce-scatter and all-gather (Patarasuk and Yuan 2009). FSDP
gathers the weights for forward and backward and reduces the gradients once (Rajbhandari et al. 2020, arXiv
1910.02054). On one rank gradients are made while activations go, so that the larger of both counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from tesela.core.errors import ConfigError, UsageError
from tesela.models import catalog
from tesela.models.config import ModelConfig
from tesela.models.encoder.config import EncoderConfig
from tesela.training.planning.activations import VALUE_BYTES, Activations, activations
from tesela.training.planning.cluster import CPU, Cluster

Sharding = Literal["ddp", "fsdp"]
#: Values of four bytes that an optimizer remembers of each weight.
MOMENTS = {"adamw": 2, "adam": 2, "sgd": 1}
#: Operations of a backward pass, in forward passes.
BACKWARD = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """What is trained, and how.

    Attributes:
        name: of the model in the catalogue.
        config: of the model.
        classes: of its head.
        batch: images of a step, over all ranks and accumulated batches.
        accumulate: batches that a rank makes a step of.
        precision: fp32, bf16 or fp16.
        optimizer: adamw, adam or sgd with momentum.
        average: whether there is a moving average of the weights.
        checkpointing: whether blocks keep their input only.
    """

    name: str
    config: ModelConfig
    classes: int
    batch: int
    accumulate: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    average: bool = False
    checkpointing: bool = False

    @property
    def parameters(self) -> int:
        """Trainable values."""
        return catalog.find_model(self.name).parameter_count(self.config, self.classes)

    @property
    def block_parameters(self) -> int:
        """Values of one block: what FSDP gathers at a time; all of a network that has none."""
        config = self.config
        if not isinstance(config, EncoderConfig) or config.depth < 2 or config.needs_grid:
            return self.parameters
        return config.backbone_parameters() - replace(config, depth=config.depth - 1).backbone_parameters()

    def images(self, ranks: int) -> int:
        """Images that a rank computes at a time.

        Raises:
            UsageError: the batch cannot be shared evenly.
        """
        parts = ranks * self.accumulate
        if self.batch < 1 or self.accumulate < 1 or self.batch % parts:
            least = max(parts, self.batch // parts * parts)
            raise UsageError(
                f"{self.batch} images are no multiple of {ranks} devices x {self.accumulate} batches of each",
                hint=f"give a multiple: tesela plan {self.name} --batch {least}",
            )
        return self.batch // parts


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """Memory in bytes of one rank by part, bytes that it sends in a step, and seconds.

    Attributes:
        weights: the parameters, and their copies in half precision.
        gradients: of all of them.
        optimizer: its moments.
        average: the moving average.
        activations: kept for the backward pass.
        working: gradients of activations, and what FSDP gathers.
        peak: the most that lives at one time.
        sent: bytes that a rank sends in a step.
        compute: seconds of a step's arithmetic.
        communication: seconds of its communication, most of which passes beside the arithmetic.
        step: seconds of a step.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int
    working: int
    peak: int
    sent: int
    compute: float
    communication: float
    step: float

    @property
    def state(self) -> int:
        """Bytes of weights, gradients, optimizer and average."""
        return self.weights + self.gradients + self.optimizer + self.average

    def mapping(self) -> dict[str, Any]:
        """Everything by name, for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def activations_of(work: Workload, *, on_cpu: bool) -> Activations:
    """What one image of a workload keeps."""
    entry = catalog.find_model(work.name)
    return activations(entry, work.config, classes=work.classes, precision=work.precision, on_cpu=on_cpu)


def demand(
    work: Workload, cluster: Cluster, sharding: Sharding, kept: Activations, *, utilization: float = 0.4
) -> Demand:
    """What one rank needs.

    Args:
        work: what is trained.
        cluster: on what.
        sharding: ddp, or fsdp.
        kept: activations of one image.
        utilization: share of the devices' matrix products that a step reaches.

    Raises:
        UsageError: the batch cannot be shared evenly, or the share is not one.
    """
    if not 0 < utilization <= 1:
        raise UsageError(
            f"utilization is a share above 0 up to 1, not {utilization:g}", hint="0.4 is usual on a GPU"
        )
    ranks, images = cluster.ranks, work.images(cluster.ranks)
    parts = ranks if sharding == "fsdp" else 1
    values = 4 * work.parameters
    half = VALUE_BYTES[work.precision] * work.parameters if work.precision != "fp32" else 0
    block = 4 * work.block_parameters if parts > 1 else 0
    weights = -(-values // parts) + (half if parts == 1 else half * work.block_parameters // work.parameters)
    gradients, average = -(-values // parts), -(-values // parts) if work.average else 0
    optimizer = -(-values * MOMENTS[work.optimizer] // parts)
    active = images * (kept.checkpointed if work.checkpointing else kept.kept)
    working = images * kept.working + 3 * block
    lasting = ranks > 1 or work.accumulate > 1
    backward = active + working + gradients if lasting else max(active + working, gradients)
    share = (ranks - 1) / ranks
    rounds = 2 if parts == 1 else 2 * work.accumulate + 1
    sent = round(rounds * share * values)
    compute, communication = _seconds(work, cluster, sent, utilization)
    passes = 1 + BACKWARD + work.checkpointing
    beside = compute if parts > 1 else compute * BACKWARD / passes / work.accumulate
    return Demand(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        average=average,
        activations=active,
        working=working,
        peak=weights + optimizer + average + backward,
        sent=sent,
        compute=compute,
        communication=communication,
        step=compute + max(0.0, communication - beside),
    )


def _seconds(work: Workload, cluster: Cluster, sent: int, utilization: float) -> tuple[float, float]:
    """Seconds of a step's arithmetic and of its communication."""
    kind = cluster.kind
    rate = kind.fp32 if work.precision == "fp32" else kind.bf16
    if kind.name == CPU:  # one machine, whatever the number of its ranks
        rate /= cluster.each
    flops = catalog.find_model(work.name).flops(work.config, work.classes)
    passes = 1 + BACKWARD + work.checkpointing
    compute = passes * flops * work.batch / cluster.ranks / (utilization * rate)
    return compute, sent / cluster.bandwidth


def largest_batch(
    work: Workload, cluster: Cluster, sharding: Sharding, kept: Activations, *, room: float = 0.9
) -> int:
    """Most images of a step that fit into ``room`` of the memory, shared evenly; 0 if none."""
    parts = cluster.ranks * work.accumulate
    one = demand(replace(work, batch=parts), cluster, sharding, kept)
    two = demand(replace(work, batch=2 * parts), cluster, sharding, kept)
    room = room * cluster.kind.memory
    if cluster.kind.name == CPU:
        room /= cluster.each
    if one.peak > room:
        return 0
    each = max(two.activations + two.working - one.activations - one.working, 1)
    return parts * max(1, int((room - one.peak) // each) + 1)


def workload(
    model: str,
    *,
    batch: int,
    classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    overrides: Mapping[str, Any] | None = None,
    **options: Any,
) -> Workload:
    """The workload of a named model.

    Args:
        model: a name of the catalogue.
        batch: images of a step.
        classes: of the head; what the model's published sizes are for if None.
        image_size: side or (height, width); the model's own if None.
        overrides: fields of the family's configuration.
        **options: further fields of ``Workload``.

    Raises:
        UnknownNameError: no such model.
        ConfigError: a field does not fit.
    """
    if batch < 1:
        raise ConfigError(
            f"a batch has at least one image, not {batch}", hint=f"tesela plan {model} --batch 256"
        )
    entry = catalog.find_model(model)
    classes = entry.classes if classes is None else classes
    config = catalog.resolve(model, num_classes=classes, image_size=image_size, overrides=overrides)
    return Workload(name=model, config=config, classes=classes, batch=batch, **options)
