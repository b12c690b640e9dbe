"""Automatic mixed precision: the context in which a model computes in fp32, bf16 or fp16."""

from __future__ import annotations

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a model computes in fp32, bf16 or fp16."""
    return torch.autocast(
        device.type, dtype=DTYPES.get(precision, torch.bfloat16), enabled=precision != "fp32"
    )
