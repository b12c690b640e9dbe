"""Rollout against ``oracle``.

The same definition as explicit float64 matrices, over random cases and hand-made ones.

``TESELA_ROLLOUT_CASES`` sets the number of random cases (2,000).
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from tests.attribution import oracle
from torch import Tensor

from tesela.attribution.capture.rows import attention_rows
from tesela.attribution.methods.rollout import AttentionRows, RolloutOptions, discard_smallest, roll, step
from tesela.core.errors import ConfigError
from tesela.layers.trace import AttentionRecord

CASES = int(os.environ.get("TESELA_ROLLOUT_CASES", "2000"))
PARTS = 8


def given(matrices: Tensor) -> AttentionRows:
    """A layer whose attention (B, heads, N, N) is known."""
    return lambda begin, end: matrices[:, :, begin:end]


def backwards(layers: list[Tensor]) -> list[AttentionRows]:
    """The layers, last first."""
    return [given(matrices) for matrices in reversed(layers)]


def random_attention(generator: torch.Generator, *shape: int, sharpness: float = 2.0) -> Tensor:
    """Rows of softmax over normal logits, float64."""
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) * sharpness).softmax(-1)


@pytest.mark.parametrize("part", range(PARTS))
def test_equals_the_oracle_from_queries_and_keys(part: int) -> None:
    """Reference: oracle.py.

    Random layers, heads, fusion, discard, residual, P in 0/1/2/5, grids to 13x29, batch 1/3.
    """
    draw = np.random.default_rng(part)
    worst = 0.0
    for case in range(CASES // PARTS):
        large = case % 50 == 49
        prefix, batch = int(draw.choice([0, 1, 2, 5])), int(draw.choice([1, 3]))
        grid = (
            (int(draw.integers(1, 14)), int(draw.integers(1, 30)))
            if large
            else (int(draw.integers(1, 6)), int(draw.integers(1, 8)))
        )
        tokens = prefix + grid[0] * grid[1]
        layers, heads, width = (
            int(draw.integers(1, 4 if large else 5)),
            int(draw.integers(1, 5)),
            int(draw.choice([4, 16])),
        )
        options = RolloutOptions(
            head_fusion=str(draw.choice(["mean", "max", "min"])),  # type: ignore[arg-type]
            discard=float(draw.choice([0.0, 0.0, 0.1, 0.5, 0.9, 0.99, draw.random()])),
            residual=float(draw.choice([0.5, 0.5, 0.5, draw.random()])),
            literature=bool(draw.random() < 0.2),
        )
        q, k = (
            torch.from_numpy(draw.normal(size=(layers, batch, heads, tokens, width)).astype(np.float32))
            for _ in range(2)
        )
        start = torch.from_numpy(draw.dirichlet(np.ones(tokens), size=(batch, 2)))
        records = [
            AttentionRecord(name=f"block{i:02d}", q=q[i], k=k[i], v=k[i], out=k[i], scale=width**-0.5)
            for i in reversed(range(layers))
        ]
        rows = [attention_rows(record, precise=options.delicate) for record in records]
        ours = roll(rows, start, prefix=prefix, options=options, block=int(draw.integers(1, 64))).numpy()
        assert np.abs(ours.sum(-1) - 1).max() < 1e-6
        for image in range(batch):
            maps = [
                oracle.attention(q[i, image].double().numpy(), k[i, image].double().numpy(), width**-0.5)
                for i in range(layers)
            ]
            for one in range(2):
                expected = oracle.rollout(
                    maps,
                    start[image, one].numpy(),
                    how=options.head_fusion,
                    share=options.discard,
                    residual=options.residual,
                    prefix=prefix,
                    literature=options.literature,
                )
                worst = max(worst, float(np.abs(ours[image, one] - expected).max()))
                if one == 0 and case % 4:
                    break
    assert worst <= 1e-6


@pytest.mark.parametrize("literature", [False, True])
@pytest.mark.parametrize(("fusion", "share"), [("mean", 0.0), ("max", 0.7), ("min", 0.95)])
def test_rows_of_the_mixing_sum_to_one(fusion: str, share: float, literature: bool) -> None:
    """Walking the identity gives W itself: its rows sum to 1 and equal the oracle's."""
    heads = random_attention(torch.Generator().manual_seed(1), 2, 3, 19, 19)
    options = RolloutOptions(head_fusion=fusion, discard=share, literature=literature)  # type: ignore[arg-type]
    whole = step(
        torch.eye(19, dtype=torch.float64).expand(2, -1, -1), given(heads), prefix=2, options=options, block=7
    )
    torch.testing.assert_close(whole.sum(-1), torch.ones(2, 19, dtype=torch.float64), rtol=0, atol=1e-12)
    for image in range(2):
        expected = oracle.mixing(
            heads[image].numpy(), how=fusion, share=share, residual=0.5, prefix=2, literature=literature
        )
        np.testing.assert_allclose(whole[image].numpy(), expected, atol=1e-12)


def test_literature_is_the_same_only_for_mean_without_discard() -> None:
    """The two orders of adding the identity and normalising, per the definition."""
    heads = random_attention(torch.Generator().manual_seed(2), 1, 3, 11, 11)
    start = torch.eye(11, dtype=torch.float64)[:1].unsqueeze(0)

    def both(**options: object) -> tuple[Tensor, Tensor]:
        ours, theirs = (RolloutOptions(literature=flag, **options) for flag in (False, True))  # type: ignore[arg-type]
        return step(start, given(heads), prefix=1, options=ours), step(
            start, given(heads), prefix=1, options=theirs
        )

    torch.testing.assert_close(*both())
    for options in ({"head_fusion": "max"}, {"head_fusion": "min"}, {"discard": 0.5}):
        ours, theirs = both(**options)
        assert (ours - theirs).abs().max() > 1e-3


def test_discard_counts_ties_diagonal_and_prefix_by_hand() -> None:
    """Values worked out by hand: P = 1, n = 4, half discarded is two entries per row."""
    row = [0.01, 0.3, 0.1, 0.1, 0.1]
    matrix = torch.tensor([[row] * 5])
    result = discard_smallest(matrix, 0.5, diagonal=torch.arange(5), prefix=1)
    expected = torch.tensor(
        [
            [
                0.01,
                0.3,
                0.0,
                0.0,
                0.1,
            ],  # the class row is treated like the others; of equal entries the left ones go
            [0.01, 0.3, 0.0, 0.0, 0.1],
            [0.01, 0.3, 0.1, 0.0, 0.1],  # its own entry is among the two and stays; nothing goes in its place
            [0.01, 0.3, 0.0, 0.1, 0.1],
            [0.01, 0.3, 0.0, 0.0, 0.1],
        ]
    )
    torch.testing.assert_close(result[0], expected, rtol=0, atol=0)
    assert discard_smallest(matrix, 0.0, diagonal=torch.arange(5), prefix=1) is matrix
    largest = discard_smallest(matrix[:, :1], 0.9999, diagonal=torch.arange(1), prefix=1)
    # floor(3.9996) = 3 go, the largest stays
    assert largest[0, 0].tolist() == pytest.approx([0.01, 0.3, 0.0, 0.0, 0.0])


def test_a_row_of_zeros_becomes_the_unit_row() -> None:
    """Min fusion of two disjoint heads is all zeros: the token keeps everything."""
    heads = torch.zeros(1, 2, 3, 3)
    heads[0, 0, :, 0], heads[0, 1, :, 1] = 1.0, 1.0
    start = torch.tensor([[[0.2, 0.3, 0.5]]])
    for literature in (False, True):
        options = RolloutOptions(head_fusion="min", literature=literature, residual=1.0)
        torch.testing.assert_close(step(start, given(heads), prefix=0, options=options), start)


# Defects of the widely copied reference script, one test each; the others (hooks, fused attention) are in
# test_capture.


def test_defect_layers_are_not_reversed() -> None:
    """Token 0 reads 1 in the last layer and 1 reads 2 in the first: the mass must arrive at 2.

    Reversed, it stops at 1.
    """
    first, last = torch.eye(3), torch.eye(3)
    first[1], last[0] = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 0.0])
    layers = [layer.double()[None, None] for layer in (first, last)]
    start = torch.tensor([[[1.0, 0.0, 0.0]]])
    result = roll(backwards(layers), start, prefix=0, options=RolloutOptions(residual=1.0))
    assert result.flatten().tolist() == [0.0, 0.0, 1.0]


def test_defect_rows_not_columns_are_divided() -> None:
    """After discarding, each query's row sums to 1.

    Division along the other axis leaves rows with other sums.
    """
    heads = random_attention(torch.Generator().manual_seed(3), 1, 1, 9, 9, sharpness=4.0)
    whole = step(
        torch.eye(9, dtype=torch.float64)[None], given(heads), prefix=1, options=RolloutOptions(discard=0.6)
    )
    torch.testing.assert_close(whole.sum(-1), torch.ones(1, 9, dtype=torch.float64))
    assert (whole.sum(-2) - 1).abs().max() > 0.05


def test_defect_every_batch_item_is_discarded() -> None:
    """A batch gives what its items give alone."""
    heads = random_attention(torch.Generator().manual_seed(4), 4, 2, 10, 10)
    start = torch.full((4, 1, 10), 0.1, dtype=torch.float64)
    options = RolloutOptions(discard=0.8)
    together = step(start, given(heads), prefix=1, options=options)
    for item in range(4):
        alone = step(start[item : item + 1], given(heads[item : item + 1]), prefix=1, options=options)
        torch.testing.assert_close(together[item : item + 1], alone)
    assert (
        together[0] - step(start[:1], given(heads[:1]), prefix=1, options=RolloutOptions())[0]
    ).abs().max() > 1e-3


def test_defect_discard_is_per_row_and_leaves_the_class_row_its_entries() -> None:
    """The class token's row is far smaller than the others.

    A threshold over the whole matrix would empty it.
    """
    heads = torch.full((1, 1, 5, 5), 0.2, dtype=torch.float64)
    heads[0, 0, 0] = torch.tensor([0.96, 0.01, 0.01, 0.005, 0.015])
    result = step(
        torch.eye(5, dtype=torch.float64)[None], given(heads), prefix=1, options=RolloutOptions(discard=0.75)
    )
    expected = 0.5 * np.eye(5)[0] + 0.5 * np.array([0.96, 0, 0, 0, 0.015]) / 0.975
    np.testing.assert_allclose(result[0, 0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"head_fusion": "median"}, "head_fusion"),
        ({"discard": 1.0}, "discard"),
        ({"discard": -0.1}, "discard"),
        ({"residual": 1.5}, "residual"),
    ],
)
def test_refused_options_name_the_field(options: dict[str, object], word: str) -> None:
    """A field out of range is a configuration error that names it."""
    with pytest.raises(ConfigError, match=word):
        RolloutOptions(**options)  # type: ignore[arg-type]
