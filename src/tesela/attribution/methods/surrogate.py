"""Linear surrogate of the log-odds over halves of the patches, with presence as its prior.

Presence is a derivative where nothing is missing. Where an image has few patches, one of them is no small
change, and a network that is sure of its answer hardly moves at first whichever it loses. Here patches are
taken away for good: each of ``PAIRS`` draws splits them into two halves, and the difference of the score
between the halves is explained by a value per patch (a linear surrogate, as in LIME, Ribeiro et al. 2016,
arXiv 1602.04938):

    s(half) - s(other half) = sum over patches of +-w_j

The values are those of ridge regression around the multiple of presence that fits best, so that few draws
suffice. A value is the log-odds that the patch adds beside half of the others, with its sign.

Odd: what two patches do together, and the same of both halves, cancels in the difference. The score is the
log-odds of the class against all others, from logits, so that it does not saturate as a probability does; the
difference of two logits where a class is explained against another.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tesela.attribution.capture.dropping import partial_logits
from tesela.attribution.capture.partial import Partial
from tesela.attribution.methods.presence import presence
from tesela.attribution.question import Question
from tesela.attribution.request import LogitsAndMaps, Request
from tesela.core.errors import UsageError

PAIRS = 16
#: Penalty of the ridge regression, as a share of the number of pairs.
PENALTY = 0.25


def surrogate(request: Request) -> LogitsAndMaps:
    """(B, T, Hp, Wp), how much log-odds each patch adds; nothing is said of prefix tokens."""
    prior, mass = presence(request)
    partial = Partial.of(request)
    patches = partial.grid[0] * partial.grid[1]
    if partial.grid != request.capture.grid:
        raise UsageError(
            f"surrogate takes patches away one by one, and {request.capture.grid} are too many to paint over",
            hint="use presence",
        )
    if patches == 1:
        return prior, mass
    pairs = -(-(request.settings.samples or 2 * PAIRS) // 2)
    kept = split_halves(pairs, patches, request.settings.seed).to(request.capture.images.device)
    scores = torch.unflatten(_scores(partial, kept.flatten(0, 1)), 1, (pairs, 2))
    differences = (scores[:, :, 0] - scores[:, :, 1]).mT  # (B, T, pairs)
    signs = torch.zeros(pairs, patches, dtype=torch.float64, device=kept.device)
    signs.scatter_(1, kept[:, 0], 1.0).scatter_(1, kept[:, 1], -1.0)
    values = around(prior.flatten(2).double(), signs, differences)
    return torch.unflatten(values, 2, partial.grid).float(), mass


def split_halves(pairs: int, patches: int, seed: int) -> Tensor:
    """(pairs, 2, k): numbers of two halves of the patches each; of an odd number, one is in neither."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(pairs, patches, generator=generator).argsort(dim=1)
    half = patches // 2
    return torch.stack([order[:, :half], order[:, half : 2 * half]], dim=1)


def _scores(partial: Partial, kept: Tensor) -> Tensor:
    """(B, S, T), log-odds with the patches ``kept`` (S, k) alone; of a segmenter, the mean logit."""
    question = partial.request.question
    if question.pixels is not None:
        return torch.cat(list(partial.scores(kept)), dim=1).double()
    rows = kept.expand(len(partial.images), -1, -1)
    return log_odds(question, partial_logits(partial.model, partial.images, rows, partial.grid).double())


def log_odds(question: Question, logits: Tensor) -> Tensor:
    """(B, S, T) from logits (B, S, K): each class against all others, or against its contrast."""
    targets = question.targets[:, None].expand(-1, logits.shape[1], -1)
    own = logits.gather(2, targets)
    if question.contrast is not None:
        return own - logits.gather(2, question.contrast[:, None].expand_as(targets))
    if logits.shape[2] == 1:
        return own
    others = [
        logits.scatter(2, targets[..., index : index + 1], -torch.inf).logsumexp(2)
        for index in range(targets.shape[2])
    ]
    return own - torch.stack(others, dim=2)


def around(prior: Tensor, signs: Tensor, differences: Tensor) -> Tensor:
    """Ridge regression around the best multiple of a prior.

    Args:
        prior: (B, T, n).
        signs: (pairs, n).
        differences: (B, T, pairs), to be explained.

    Returns:
        (B, T, n).
    """
    expected = prior @ signs.mT
    size = expected.square().sum(-1, keepdim=True)
    share = (expected * differences).sum(-1, keepdim=True) / size.masked_fill(size == 0, 1.0)
    start = share.clamp(min=0.0) * prior  # one that points the other way is left out
    inner = signs @ signs.mT + PENALTY * len(signs) * torch.eye(
        len(signs), dtype=signs.dtype, device=signs.device
    )
    weights: Tensor = torch.linalg.solve(inner, (differences - start @ signs.mT).mT)
    return start + weights.mT @ signs
