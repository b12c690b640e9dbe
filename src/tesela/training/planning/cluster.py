"""Devices of a cluster: memory, speed and links of each kind, and how many are asked for.

Speeds are the dense ones of the makers' data sheets (NVIDIA: L4, T4, V100, A100, L40S, H100, H200, B200,
GeForce RTX 4090), without sparsity; links are of one direction. The processor of this machine is measured
instead of looked up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tesela.core.errors import UnknownNameError, UsageError
from tesela.hardware.machine import memory

GIB = 2**30
#: Word for the processors of this machine.
CPU = "cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceKind:
    """One kind of device.

    Attributes:
        name: such as ``h100``.
        memory: bytes of one device.
        fp32: operations per second of matrix products in fp32 (TF32 where there is one).
        bf16: the same in bf16; fp16 where there is no bf16.
        link: bytes per second from one device to another of the same node, one direction.
    """

    name: str
    memory: int
    fp32: float
    bf16: float
    link: float


def _kind(name: str, gibibytes: int, fp32: float, bf16: float, link: float) -> DeviceKind:
    """A row of the data sheets: GiB, TFLOP/s twice, GB/s."""
    return DeviceKind(name=name, memory=gibibytes * GIB, fp32=fp32 * 1e12, bf16=bf16 * 1e12, link=link * 1e9)


DEVICE_KINDS = {
    kind.name: kind
    for kind in (
        _kind("t4", 16, 8.1, 65, 16),
        _kind("l4", 24, 60, 121, 32),
        _kind("l40s", 48, 183, 362, 32),
        _kind("rtx4090", 24, 82.6, 165, 32),
        _kind("v100", 32, 15.7, 125, 150),
        _kind("a100", 80, 156, 312, 300),
        _kind("a100-40", 40, 156, 312, 300),
        _kind("h100", 80, 494, 989, 450),
        _kind("h200", 141, 494, 989, 450),
        _kind("b200", 180, 1125, 2250, 900),
    )
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Devices that train together, one rank each.

    Attributes:
        nodes: machines.
        each: devices of a machine.
        kind: of all devices.
        network: bytes per second that a node sends to the others.
    """

    nodes: int
    each: int
    kind: DeviceKind
    network: float

    @property
    def ranks(self) -> int:
        """Devices in all."""
        return self.nodes * self.each

    @property
    def bandwidth(self) -> float:
        """Bytes per second that a rank sends in a ring over all: the slower of link and network.

        The ring enters and leaves each node once, so that its network carries one ring.
        """
        return self.kind.link if self.nodes == 1 else min(self.kind.link, self.network)

    def text(self) -> str:
        """As it is asked for: ``2x8xh100``."""
        nodes = f"{self.nodes}x" if self.nodes > 1 else ""
        each = f"{self.each}x" if self.ranks > 1 else ""
        return f"{nodes}{each}{self.kind.name}"


def parse_devices(words: str, *, network: float) -> Cluster:
    """The cluster of ``cpu``, ``h100``, ``8xh100`` or ``4x8xh100`` (nodes, devices of each, kind).

    Args:
        words: what was asked for.
        network: Gbit/s of a node.

    Raises:
        UsageError: it is not of that form, or the network has no speed.
        UnknownNameError: no such kind of device.
    """
    found = re.fullmatch(r"(?:(\d+)x)?(?:(\d+)x)?([a-z][a-z0-9-]*)", words.strip().lower())
    counts = [int(count) for count in found.groups()[:2] if count] if found else []
    if found is None or 0 in counts:
        raise UsageError(
            f"{words!r} is no number and kind of devices",
            hint="tesela plan MODEL --devices 8xh100, or 4x8xh100 for nodes",
        )
    if not network > 0:
        raise UsageError(
            f"a network needs a speed above 0, not {network:g}", hint="tesela plan MODEL --network 100"
        )
    name = found.group(3)
    if name != CPU and name not in DEVICE_KINDS:
        raise UnknownNameError("device", name, [CPU, *DEVICE_KINDS])
    nodes, each = (counts if len(counts) == 2 else [1, *counts, 1])[:2]
    kind = this_processor() if name == CPU else DEVICE_KINDS[name]
    return Cluster(nodes=nodes, each=each, kind=kind, network=network * 1e9 / 8)


def this_processor() -> DeviceKind:
    """The processor of this machine, its matrix products measured.

    Ranks on one machine share its memory and its cores: the figures are of the whole machine.
    """
    from tesela.hardware.speed import matrix_rate

    fp32, bf16 = (matrix_rate(precision, size=768, seconds=0.2) for precision in ("fp32", "bf16"))
    return DeviceKind(name=CPU, memory=memory()["total"] or 0, fp32=fp32, bf16=bf16, link=5e9)
