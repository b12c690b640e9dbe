"""A claim held against measured runs, and the table of such claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tesela.core.format import number, percent
from tesela.page.charts.figure import Chart, charts_row
from tesela.page.charts.intervals import Row, intervals_chart
from tesela.page.document import data_table
from tesela.page.section import Section
from tesela.studies.cell import Trial
from tesela.studies.interval import Estimate, above, alike, paired_difference, points_text, signed_text

#: Within so much accuracy two things count as about equal.
MARGIN = 0.01
UNTESTED = "not measured yet"
TrialsByWay = Mapping[str, Mapping[int, Trial]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What an article says, and what was measured.

    Attributes:
        text: what it says.
        verdict: holds, does not hold, undecided, or not measured yet.
        differences: what the verdict rests on, by name.
        shares: whether they are differences of shares, shown in points.
    """

    text: str
    verdict: str
    differences: Mapping[str, Estimate] = field(default_factory=dict)
    shares: bool = True

    def mapping(self) -> dict[str, Any]:
        """As plain values."""
        found = {name: one.mapping() for name, one in self.differences.items()}
        return {"claim": self.text, "verdict": self.verdict, "differences": found}


def by_seed(trials: Sequence[Trial]) -> dict[str, dict[int, Trial]]:
    """Trials by what they are and by seed."""
    found: dict[str, dict[int, Trial]] = {}
    for trial in trials:
        found.setdefault(trial.cell.way, {})[trial.cell.seed] = trial
    return found


def difference(
    ways: TrialsByWay, first: str, second: str, value: Callable[[Trial], float | None] | None = None
) -> Estimate | None:
    """A value of the first way minus that of the second, seed by seed; None where no seed has both."""
    read = value or (lambda trial: trial.score)
    pairs = []
    for seed, one in ways.get(first, {}).items():
        other = ways.get(second, {}).get(seed)
        values = (read(one), read(other)) if other is not None else (None, None)
        if values[0] is not None and values[1] is not None:
            pairs.append((values[0], values[1]))
    return paired_difference(*zip(*pairs, strict=True)) if pairs else None


def ordered(text: str, found: Mapping[str, Estimate | None], *, shares: bool = True) -> Claim:
    """A claim that each difference, of shares or of other numbers, is above 0."""
    known = {name: one for name, one in found.items() if one is not None}
    if len(known) < len(found):
        return Claim(text=text, verdict=UNTESTED, differences=known, shares=shares)
    verdicts = {above(one) for one in known.values()}
    verdict = next((word for word in ("does not hold", "undecided") if word in verdicts), "holds")
    return Claim(text=text, verdict=verdict, differences=known, shares=shares)


def equal(text: str, found: Mapping[str, Estimate | None], *, margin: float = MARGIN) -> Claim:
    """A claim that each difference is about 0."""
    known = {name: one for name, one in found.items() if one is not None}
    if len(known) < len(found):
        return Claim(text=text, verdict=UNTESTED, differences=known)
    return Claim(text=text, verdict=alike(list(known.values()), margin=margin), differences=known)


def claims_sections(claims: Sequence[Claim], *, note: str) -> list[Section]:
    """The table of claims, and the differences that they rest on.

    Args:
        claims: all of them.
        note: on how the differences read.
    """
    rows = []
    for claim in claims:
        measured = "; ".join(
            f"{name} {difference_text(one, shares=claim.shares)}" for name, one in claim.differences.items()
        )
        rows.append([claim.text, measured or "-", claim.verdict])
    charts = [chart for shares in (True, False) if (chart := _chart(claims, shares=shares)).body]
    return [
        Section(
            title="Claims",
            note="A claim holds where the 95 % interval of every difference, taken seed by seed, is on its "
            f"side of 0; what is about equal differs by at most {MARGIN * 100:g} point. One "
            "seed decides nothing.",
            body=data_table((("an article says", "text"), ("measured", "text"), ("", "name")), rows),
        ),
        Section(title="Differences", note=note, body=charts_row(*charts) if charts else ""),
    ]


def _chart(claims: Sequence[Claim], *, shares: bool) -> Chart:
    """The differences of shares, or those of other numbers, which have another scale."""
    return intervals_chart(
        [
            Row(
                name=name,
                mean=one.mean,
                low=one.low,
                high=one.high,
                tip=f"{claim.text}: {difference_text(one, shares=shares)}",
                tone=place % 4 + 1,
            )
            for place, claim in enumerate(claims)
            if claim.shares is shares
            for name, one in claim.differences.items()
        ],
        title="Differences and their intervals" if shares else "Differences of other numbers",
        x_label="difference",
        zero=True,
        form=percent if shares else number,
    )


def difference_text(one: Estimate, *, shares: bool = True) -> str:
    """``+2.1 points (+0.4 to +3.8)``, or ``+1.39 (−0.20 to +2.98)`` of numbers that are no shares."""
    form, unit = (points_text, " points") if shares else (partial(signed_text, digits=2), "")
    ends = f" ({form(one.low)} to {form(one.high)})" if one.bounded else ", one seed"
    return f"{form(one.mean)}{unit}{ends}"
