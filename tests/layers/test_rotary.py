"""Rotary positions against complex numbers, one patch at a time, and against what they promise.

Only offsets matter.
"""

from __future__ import annotations

import cmath

import torch

from tesela.layers.position.rotary import angles, turn
from tesela.layers.token_layout import TokenLayout


def test_turning_is_a_complex_product() -> None:
    """Pair i of the row's half is the number a + b j with a = x[i], b = x[i + d/4].

    It is multiplied by exp(j row 100^(-4 i / d)).
    """
    grid, width, prefix = (3, 4), 8, 2
    tokens = torch.randn(1, 1, prefix + 12, width, dtype=torch.float64)
    found = turn(tokens, TokenLayout(grid, prefix))
    assert torch.equal(found[:, :, :prefix], tokens[:, :, :prefix])
    for patch in range(12):
        for axis, place in enumerate(divmod(patch, 4)):
            for pair in range(2):
                start = axis * 4 + pair
                before = tokens[0, 0, prefix + patch]
                number = complex(before[start], before[start + 2]) * cmath.exp(
                    1j * place * 100 ** (-pair / 2)
                )
                after = found[0, 0, prefix + patch]
                torch.testing.assert_close(
                    after[[start, start + 2]],
                    torch.tensor([number.real, number.imag]).double(),
                    rtol=1e-5,
                    atol=1e-6,
                )


def test_logits_depend_on_offsets_only() -> None:
    """The same query and key content at every place.

    Logits of pairs with the same offset are equal, of others not.
    """
    grid = (4, 5)
    q, k = (torch.randn(1, 1, 1, 8).expand(-1, -1, 20, -1) for _ in range(2))
    logits = (turn(q, TokenLayout(grid, 0)) @ turn(k, TokenLayout(grid, 0)).mT)[0, 0].view(4, 5, 4, 5)
    torch.testing.assert_close(logits[0, 0, 1, 2], logits[2, 1, 3, 3])
    torch.testing.assert_close(logits[:-1, :-1, :-1, :-1], logits[1:, 1:, 1:, 1:])
    assert (logits[0, 0, 1, 2] - logits[0, 0, 2, 1]).abs() > 1e-3


def test_a_choice_of_patches_keeps_its_places() -> None:
    kept = torch.tensor([[0, 3, 5], [1, 2, 4]])
    tokens = torch.randn(2, 2, 1 + 6, 4)
    whole = turn(tokens, TokenLayout((2, 3), 1))
    for image in range(2):
        chosen = torch.cat([torch.zeros(1, dtype=torch.long), kept[image] + 1])
        part = turn(tokens[image : image + 1, :, chosen], TokenLayout((2, 3), 1, kept[image : image + 1]))
        torch.testing.assert_close(part, whole[image : image + 1, :, chosen])


def test_angles_of_a_larger_grid_contain_those_of_a_smaller() -> None:
    """No table and no interpolation: places are counted in tokens."""
    small, large = (
        angles((2, 3), 8, device=torch.device("cpu")),
        angles((4, 7), 8, device=torch.device("cpu")),
    )
    assert torch.equal(large.view(4, 7, 2, 2)[:2, :3], small.view(2, 3, 2, 2))
