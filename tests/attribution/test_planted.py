"""Models whose answer is known.

The answer is checked by taking the patch away, and the default method finds it.
"""

from __future__ import annotations

import pytest
import torch
from tests.attribution.planted import hits, planted

from tesela.attribution.capture.call import undisturbed
from tesela.attribution.capture.dropping import partial_logits
from tesela.attribution.methods.table import BEST


@pytest.mark.parametrize("hops", [1, 2])
def test_the_truth_is_the_truth(hops: int) -> None:
    """Reference: intervention.

    Of all patches, the true one's absence lowers its class's logit most; the two classes win.
    """
    case = planted(hops=hops, seed=0, images=6, grid=(4, 5))
    every = torch.arange(20)
    kept = torch.stack([every[every != place] for place in range(20)]).expand(6, -1, -1)
    with undisturbed(case.model):
        without = partial_logits(case.model, case.images, kept, case.grid)
        whole = case.model(case.images)
    assert torch.equal(whole.topk(2).indices.sort().values, case.targets.sort().values)
    for place in range(2):
        lowered = without.gather(2, case.targets[:, None, place : place + 1].expand(-1, 20, -1))[..., 0]
        assert torch.equal(lowered.argmin(1), case.truth[:, place])


@pytest.mark.parametrize(("hops", "least"), [(1, 120), (2, 118)])
def test_the_default_method_finds_the_patch(hops: int, least: int) -> None:
    """120 of 120 in one hop, 99 % in two; rollout, which knows no class, cannot tell the two apart."""
    cases = [planted(hops=hops, seed=100 + seed) for seed in range(3)]
    assert sum(hits(case, BEST)[0] for case in cases) >= least
    assert sum(hits(case, "rollout")[0] for case in cases) <= 60
