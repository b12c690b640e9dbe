"""Outlook: fitted laws, what more of something would bring, and a check of such a forecast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tesela.core.errors import DataError
from tesela.core.format import percent
from tesela.page.charts.trend import Mark, Trend
from tesela.page.document import data_table
from tesela.page.section import Section
from tesela.studies.cell import Trial, by_way
from tesela.studies.interval import mean_interval
from tesela.studies.power_law import Forecast, HeldOut, PowerLaw, fit_power_law, held_out

AHEAD = (2, 10)
#: How far beyond the largest size a curve is drawn.
DRAWN_AHEAD = 4.0
CURVE_POINTS = 40
LAW_NOTE = (
    "A saturating power law is fitted to the errors: floor + scale × size^-exponent. Intervals of forecasts "
    "hold nine measured means in ten, if the law holds that far. The check fits without the largest size and "
    "forecasts it; where what was measured lies outside that interval, do not trust the forecasts."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """Outlook of one line of a chart.

    Attributes:
        sizes: (N,) of the trials.
        law: fitted to them, or None.
        check: of a forecast of the largest size, or None.
        reason: why there is no law or no check; empty where there are both.
    """

    sizes: Sequence[float]
    law: PowerLaw | None
    check: HeldOut | None
    reason: str

    @property
    def forecasts(self) -> list[Forecast]:
        """Of ``AHEAD`` times the largest size."""
        return [self.law.forecast(factor * max(self.sizes)) for factor in AHEAD] if self.law else []

    def curve(self) -> list[tuple[float, float, float, float]]:
        """(size, low, accuracy, high) along the fitted law."""
        if self.law is None:
            return []
        points = []
        for x in np.geomspace(min(self.sizes), DRAWN_AHEAD * max(self.sizes), CURVE_POINTS):
            low, high = self.law.band(float(x))
            middle = float(np.median(self.law.errors(float(x))))
            points.append((float(x), 1 - high, 1 - middle, 1 - low))
        return points

    def mapping(self) -> dict[str, Any]:
        """As plain values, in accuracies."""
        law = self.law
        return {
            "law": law and {"floor": law.floor, "scale": law.scale, "exponent": law.exponent},
            "forecasts": [
                {"x": one.x, "accuracy": 1 - one.error, "low": 1 - one.high, "high": 1 - one.low}
                for one in self.forecasts
            ],
            "check": self.check
            and {
                "x": self.check.forecast.x,
                "accuracy": 1 - self.check.forecast.error,
                "low": 1 - self.check.forecast.high,
                "high": 1 - self.check.forecast.low,
                "measured": 1 - self.check.measured,
                "inside": self.check.inside,
            },
            "reason": self.reason,
        }


def look_ahead(sizes: Sequence[float], scores: Sequence[float]) -> Outlook:
    """Fit a law to accuracies, and check it."""
    errors = [1 - score for score in scores]
    try:
        law = fit_power_law(sizes, errors)
    except DataError as error:
        return Outlook(sizes=sizes, law=None, check=None, reason=error.message)
    try:
        return Outlook(sizes=sizes, law=law, check=held_out(sizes, errors), reason="")
    except DataError as error:
        return Outlook(sizes=sizes, law=law, check=None, reason=f"without the largest size, {error.message}")


def outlooks(trials: Sequence[Trial], x: Callable[[Trial], float]) -> dict[str, Outlook]:
    """The outlook of each line of a chart."""
    return {
        way: look_ahead([x(trial) for trial in group], [trial.score for trial in group])
        for way, group in by_way(trials).items()
    }


def trends(
    trials: Sequence[Trial],
    x: Callable[[Trial], float],
    unit: str,
    found: Mapping[str, Outlook],
    form: Callable[[float], str],
) -> list[Trend]:
    """What is compared, as lines of a chart: means over seeds, and the fitted laws."""
    drawn = []
    for way, group in by_way(trials).items():
        marks = []
        for place in sorted({trial.cell.x for trial in group}):
            here = [trial for trial in group if trial.cell.x == place]
            mean = mean_interval([trial.score for trial in here], images=here[0].scored)
            size = float(np.mean([x(trial) for trial in here]))
            runs = f" of {len(here)} seeds" if len(here) > 1 else ""
            tip = f"{way}, {form(size)} {unit}: {percent(round(mean.mean, 4))}{runs}"
            marks.append(Mark(x=size, y=mean.mean, low=mean.low, high=mean.high, tip=tip))
        curve = found[way].curve() if way in found else ()
        drawn.append(Trend(name=way, marks=marks, curve=curve))
    return drawn


def outlook_section(
    found: Mapping[str, Outlook], *, title: str, unit: str, form: Callable[[float], str]
) -> Section:
    """The table of laws, forecasts and checks."""
    columns = [("", "name"), ("law of the error", "text")]
    columns += [(f"{factor} × as {unit}", "n") for factor in AHEAD]
    columns += [("check", "n"), ("measured", "n"), ("", "name")]
    rows = []
    for way, one in found.items():
        law = one.law
        text = "-" if law is None else f"{law.floor:.3f} + {law.scale:.3g} × size^-{law.exponent:.2f}"
        ahead = [_share(forecast) for forecast in one.forecasts] or ["-"] * len(AHEAD)
        check = ["-", "-", one.reason]
        if one.check is not None:
            verdict = "inside" if one.check.inside else "outside"
            at = f"at {form(one.check.forecast.x)}: {_share(one.check.forecast)}"
            check = [at, percent(1 - one.check.measured, 1), verdict]
        rows.append([way, text, *ahead, *check])
    return Section(title=title, note=LAW_NOTE, body=data_table(columns, rows) if rows else "")


def _share(forecast: Forecast) -> str:
    low, high = (f"{100 * (1 - error):.1f}" for error in (forecast.high, forecast.low))
    return f"{percent(1 - forecast.error, 1)} ({low} to {high})"
