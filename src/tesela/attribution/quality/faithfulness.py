"""Does a map name what the model uses? Measured on the model itself, by taking patches away.

* Deletion (Petsiuk et al. 2018, arXiv 1806.07421): the class's probability while the highest patches go
  first; the area under the curve is low for a good map. Insertion: while they come first; high. Patches are
  left out (``tesela.attribution.capture.dropping``), not painted over.
* Lead: the probability with the highest quarter of the patches alone, minus that with the lowest quarter
  alone. Its percentile among random maps says whether the map is better than chance. A map that is not is
  reported as not faithful.
* Rank correlation with the map of the same network whose weights were initialised again
  (``tesela.attribution.quality.randomised``); near 0 is good.

A random map's lead needs its top and its bottom quarter only, and a random partition of the patches into four
quarters holds twelve such pairs. Two partitions, at the price of two forward passes, are 24 random maps.

Odd: curves run from one patch to all, for a mean over no patch does not exist; the area is divided by that
range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tesela.attribution.capture.call import call, computing_type, undisturbed, unwrapped
from tesela.attribution.capture.dropping import How, masking_mode, partial_logits
from tesela.attribution.explain import Explanation, explain
from tesela.attribution.quality.randomised import randomised, rank_correlation
from tesela.core.errors import ConfigError, UsageError
from tesela.layers.grid import Grid

QUARTERS = 4
Probability = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class FaithfulnessOptions:
    """How thoroughly a map is measured."""

    shares: tuple[float, ...] = (0.25, 0.5)
    """Shares of the patches at which the curves are measured, beside one patch and all."""
    random_maps: int = 24
    """Number of random maps, at least; 12 cost about one forward pass."""
    level: float = 0.95
    """Share of the random maps that a faithful map must lead."""
    seed: int = 0
    """Of the random maps and random weights."""
    weights: bool = True
    """Whether the map is compared with that of randomised weights."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.shares or any(not 0.0 < share < 1.0 for share in self.shares):
            raise ConfigError(
                f"shares cannot be {self.shares}", hint="give shares between 0 and 1, such as 0.25,0.5,0.75"
            )
        if self.random_maps < 20:
            raise ConfigError(
                f"random_maps cannot be {self.random_maps}", hint="a percentile needs 20 or more"
            )
        if not 0.5 <= self.level < 1.0:
            raise ConfigError(f"level cannot be {self.level}", hint="0.95 is usual; 0.5 is chance")


@dataclass(frozen=True, kw_only=True, slots=True)
class Faithfulness:
    """Figures of B images' maps for K classes each.

    Attributes:
        deletion: (B, K), area under the curve; low is good.
        insertion: (B, K), area under the curve; high is good.
        lead: (B, K), probability with the highest quarter alone minus that with the lowest alone, -1 to 1.
        percentile: (B, K), share of the random maps with a smaller lead; NaN where there are too few patches.
        weights: (B, K), rank correlation with the map of randomised weights; NaN where a map is flat or it
            was not asked for.
        faithful: (B, K), whether the percentile reaches the level.
        how: whether patches were dropped, or filled with the mean colour.
    """

    deletion: Tensor
    insertion: Tensor
    lead: Tensor
    percentile: Tensor
    weights: Tensor
    faithful: Tensor
    how: How

    def figures(self, image: int, place: int) -> dict[str, Any]:
        """One map's figures for a file; None stands for NaN."""
        names = ("deletion", "insertion", "lead", "percentile", "weights")
        values = {name: float(getattr(self, name)[image, place]) for name in names}
        found: dict[str, Any] = {
            name: None if value != value else round(value, 6) for name, value in values.items()
        }
        return {**found, "faithful": bool(self.faithful[image, place]), "how": self.how}


def class_probabilities(logits: Tensor) -> Tensor:
    """Probabilities of classes that exclude one another."""
    return logits.softmax(-1)


def measure_faithfulness(
    model: nn.Module,
    images: Tensor,
    found: Explanation,
    *,
    options: FaithfulnessOptions | None = None,
    how: Mapping[str, Any] | None = None,
    probability: Probability = class_probabilities,
    twin: nn.Module | None = None,
) -> Faithfulness:
    """Measure the maps that ``explain`` gave for these images.

    Args:
        model: the classifier that was explained.
        images: (B, C, H, W), as given to ``explain``.
        found: its result.
        options: how thoroughly.
        how: options of ``explain`` besides target and method, to repeat it with randomised weights.
        probability: from logits (..., K) to probabilities; sigmoid for classes that do not exclude one
            another.
        twin: ``randomised(model, seed=options.seed)`` where it was made before; it takes longer to make than
            to explain one image.

    Raises:
        UsageError: the model is no classifier.
    """
    chosen = options or FaithfulnessOptions()
    network = unwrapped(model)
    with undisturbed(network):
        batch = _as_weights(network, images)
        deletion, insertion, lead = _curves(network, batch, found, chosen, probability)
        chance = _random_leads(network, batch, found, chosen, probability)
    own = lead[..., None]
    below = (
        ((chance < own).double() + (chance == own).double() / 2)
        .mean(-1)
        .masked_fill(chance.isnan().any(-1), torch.nan)
    )
    blank = torch.full_like(lead, torch.nan)
    return Faithfulness(
        deletion=deletion,
        insertion=insertion,
        lead=lead,
        percentile=below,
        weights=_weights(twin or randomised(network, seed=chosen.seed), batch, found, how or {})
        if chosen.weights
        else blank,
        faithful=below >= chosen.level,
        how=masking_mode(network),
    )


def area(counts: list[int], values: Tensor) -> Tensor:
    """Area under values (..., points) over the counts of patches, divided by their range; by trapezoids."""
    x = torch.tensor(counts, dtype=values.dtype, device=values.device)
    if len(counts) == 1:
        return values[..., 0]
    return torch.trapezoid(values, x) / (x[-1] - x[0])


def _curves(
    model: nn.Module,
    images: Tensor,
    found: Explanation,
    options: FaithfulnessOptions,
    probability: Probability,
) -> tuple[Tensor, Tensor, Tensor]:
    """Deletion, insertion and lead, (B, K) each."""
    grid = _grid(found)
    patches, quarter = grid[0] * grid[1], max(1, grid[0] * grid[1] // QUARTERS)
    order = found.tokens.flatten(2).to(images.device).argsort(dim=-1, descending=True, stable=True)
    counts = sorted({1, quarter, patches, *(max(1, round(share * patches)) for share in options.shares)})
    columns: list[Tensor] = []
    lead = torch.zeros(found.targets.shape)
    for count in counts:
        if count == patches and count > 1:
            whole = _of_all(model, images, found, probability)
            high, low = whole, whole
        else:
            choices = torch.cat([order[..., :count], order[..., patches - count :]], dim=1)
            high, low = _of_targets(
                probability(partial_logits(model, images, choices, grid)), found.targets
            ).chunk(2, dim=1)
        columns.append(torch.stack([low, high]))
        if count == quarter:
            lead = high - low
    curves = torch.stack(columns, dim=-1)
    deletion, insertion = area(counts, curves)
    return deletion, insertion, lead


def _of_all(model: nn.Module, images: Tensor, found: Explanation, probability: Probability) -> Tensor:
    """The classes' probabilities when all patches are seen, (B, K).

    Known already where they are softmax's.
    """
    if probability is class_probabilities:
        return found.probabilities.cpu()
    with torch.no_grad():
        return probability(call(model, images).float()).gather(1, found.targets.to(images.device)).cpu()


def _of_targets(values: Tensor, targets: Tensor) -> Tensor:
    """Each choice's probability of its class: (B, m K, classes) for the K targets m times over, (B, m K)."""
    if values.ndim != 3:
        raise UsageError(
            "faithfulness is measured for classifiers, whose output is (B, K)",
            hint="leave it out with --no-faithfulness",
        )
    repeated = targets.to(values.device).repeat(1, values.shape[1] // targets.shape[1])
    return values.gather(2, repeated[..., None])[..., 0].cpu()


def _random_leads(
    model: nn.Module,
    images: Tensor,
    found: Explanation,
    options: FaithfulnessOptions,
    probability: Probability,
) -> Tensor:
    """(B, K, maps), the leads of random maps; the same maps for every image.

    NaN where one patch is all there is.
    """
    grid = _grid(found)
    patches = grid[0] * grid[1]
    size = max(1, patches // QUARTERS)
    groups = min(QUARTERS, patches // size)
    if groups < 2:
        return torch.full((*found.targets.shape, 1), torch.nan)
    partitions = -(-options.random_maps // (groups * (groups - 1)))
    generator = torch.Generator().manual_seed(options.seed)
    draws = [
        torch.randperm(patches, generator=generator)[: groups * size].view(groups, size)
        for _ in range(partitions)
    ]
    choices = torch.cat(draws).to(images.device).expand(len(images), -1, -1)
    values = probability(partial_logits(model, images, choices, grid)).cpu()
    targets = found.targets.cpu()[:, None].expand(-1, values.shape[1], -1)
    one = torch.unflatten(values.gather(2, targets).transpose(1, 2), 2, (partitions, groups))
    pairs = one[..., :, None] - one[..., None, :]
    distinct = ~torch.eye(groups, dtype=torch.bool)
    leads: Tensor = pairs[..., distinct].flatten(2)
    return leads


def _weights(twin: nn.Module, images: Tensor, found: Explanation, how: Mapping[str, Any]) -> Tensor:
    """Rank correlation with the maps of randomised weights, (B, K).

    Images of the same classes go together.
    """
    result = torch.full(found.targets.shape, torch.nan)
    rows: dict[tuple[int, ...], list[int]] = {}
    for index, targets in enumerate(found.targets.tolist()):
        rows.setdefault(tuple(targets), []).append(index)
    for classes, chosen in rows.items():
        again = explain(twin, images[chosen], list(classes), found.method, **how)
        result[chosen] = rank_correlation(
            again.tokens.flatten(2).cpu(), found.tokens[chosen].flatten(2).cpu()
        ).float()
    return result


def _grid(found: Explanation) -> Grid:
    return found.tokens.shape[2], found.tokens.shape[3]


def _as_weights(model: nn.Module, images: Tensor) -> Tensor:
    """The images on the device and in the floating type of the weights."""
    device = next((one.device for one in model.parameters()), images.device)
    return images.to(device=device, dtype=computing_type(model) or images.dtype)
