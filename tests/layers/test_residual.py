"""Residual bodies: the plan's numbers are those of the layers built from it, and units compute what their
order says."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from tesela.layers.convolution.residual import ResidualBody, ResidualStyle
from tesela.layers.convolution.residual_plan import ResidualPlan, halved

CHOICES: dict[str, list[Any]] = {
    "unit": ["bottleneck", "basic"],
    "order": ["post", "pre"],
    "root": ["large", "small"],
}
PLANS = [
    ResidualPlan(channels=2, stages=stages, width_factor=0.125, **dict(zip(CHOICES, chosen, strict=True)))
    for stages in [(), (2,), (1, 2, 1)]
    for chosen in itertools.product(*CHOICES.values())
]


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize(
    "plan", PLANS, ids=lambda plan: f"{plan.stages}-{plan.unit}-{plan.order}-{plan.root}"
)
def test_the_plan_counts_the_layers(plan: ResidualPlan, same: bool) -> None:
    """Parameters, grid, width, and products by PyTorch's own counter, for sizes that round."""
    body = ResidualBody(plan, ResidualStyle(norm="group", groups=4, same=same))
    assert plan.parameter_count() == sum(parameter.numel() for parameter in body.parameters())
    for size in ((16, 24), (13, 9)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            shape = body(torch.zeros(1, 2, *size))[-1].shape
        assert shape == (1, plan.width, *plan.grid(size)) and plan.grid(size) == halved(
            size, plan.reduction.bit_length() - 1
        )
        assert counter.get_total_flops() == 2 * plan.products(size)


@pytest.mark.parametrize("order", ["post", "pre"])
def test_a_unit_written_out(order: Literal["post", "pre"]) -> None:
    """The first unit of the second stage, whose shortcut has a convolution with stride two."""
    plan = ResidualPlan(channels=3, stages=(1, 1), width_factor=0.125, order=order)
    unit = ResidualBody(plan, ResidualStyle()).eval().get_submodule("stages.1.0")
    for index, parameter in enumerate(unit.parameters()):
        torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(index))
    images = torch.randn(2, 32, 6, 5, generator=torch.Generator().manual_seed(9))
    part = dict(unit.named_children())

    def conv(name: str, values: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight = part[name].get_parameter("weight")
        return F.conv2d(values, weight, stride=stride, padding=weight.shape[-1] // 2)

    if order == "post":
        branch = F.relu(part["norm1"](conv("conv1", images)))
        branch = part["norm3"](conv("conv3", F.relu(part["norm2"](conv("conv2", branch, 2)))))
        wanted = F.relu(branch + part["projection_norm"](conv("projection", images, 2)))
    else:
        first = F.relu(part["norm1"](images))
        branch = conv("conv2", F.relu(part["norm2"](conv("conv1", first))), 2)
        wanted = conv("conv3", F.relu(part["norm3"](branch))) + conv("projection", first, 2)
        assert "projection_norm" not in part or part["projection_norm"] is None
    torch.testing.assert_close(unit(images), wanted)
