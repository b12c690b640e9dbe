"""Place of this process in a training by several, as torchrun or SLURM tell it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tesela.core.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """One process of a training.

    Attributes:
        rank: its number, from 0.
        ranks: how many there are.
        local: its number on its machine, by which it takes a GPU.
        address: where rank 0 listens.
        port: on which port.
        restarts: how often the launcher began again after one of them died.
    """

    rank: int = 0
    ranks: int = 1
    local: int = 0
    address: str = ""
    port: int = 0
    restarts: int = 0


def launched(environment: Mapping[str, str] | None = None) -> Launch:
    """The place that the environment tells; rank 0 of 1 where nothing launched several processes.

    Args:
        environment: variables of torchrun (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) or of
            ``srun`` (SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_LOCALID); this process's if None.

    Raises:
        UsageError: they are no numbers, or do not go together.
    """
    said = os.environ if environment is None else environment
    if "RANK" in said and "WORLD_SIZE" in said:
        found = Launch(
            rank=_number(said, "RANK"),
            ranks=_number(said, "WORLD_SIZE"),
            local=_number(said, "LOCAL_RANK", 0),
            address=said.get("MASTER_ADDR", "127.0.0.1"),
            port=_number(said, "MASTER_PORT", 29500),
            restarts=_number(said, "TORCHELASTIC_RESTART_COUNT", 0),
        )
    elif "SLURM_PROCID" in said and "SLURM_STEP_NUM_TASKS" in said:
        found = Launch(
            rank=_number(said, "SLURM_PROCID"),
            ranks=_number(said, "SLURM_STEP_NUM_TASKS"),
            local=_number(said, "SLURM_LOCALID", 0),
            address=said.get("MASTER_ADDR") or first_host(said.get("SLURM_STEP_NODELIST", "")),
            port=_number(said, "MASTER_PORT", 20000 + _number(said, "SLURM_JOB_ID", 0) % 20000),
            restarts=_number(said, "SLURM_RESTART_COUNT", 0),
        )
    else:
        return Launch()
    if not 0 <= found.rank < found.ranks:
        raise UsageError(
            f"rank {found.rank} of {found.ranks} processes does not exist",
            hint="start all of them with one torchrun or srun, or unset RANK and WORLD_SIZE",
        )
    return found


def first_host(nodes: str) -> str:
    """The first host of SLURM's list, such as ``gpu[007-009,12],cpu1``: ``gpu007``."""
    found = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\])?", nodes)
    return f"{found.group(1)}{found.group(2) or ''}" if found else "127.0.0.1"


def _number(said: Mapping[str, str], name: str, otherwise: int | None = None) -> int:
    text = said.get(name)
    if text is None and otherwise is not None:
        return otherwise
    try:
        return int(text or "")
    except ValueError:
        raise UsageError(
            f"{name} is no number: {text!r}",
            hint="start all processes with one torchrun or srun, or unset the variable",
        ) from None
