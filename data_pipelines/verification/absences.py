"""Name what an evaluation was asked for and cannot give, with the reason, for every output alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from data_pipelines.conventions.attributes import is_near_any, levels_of
from data_pipelines.conventions.durations import duration_text
from emulators.scores.interfaces import Metric

if TYPE_CHECKING:
    from data_pipelines.verification.pairs import Pairs

SHOWN = 5  # names in a sentence
NO_LEAD = "the forecast has no such lead time"


@dataclass(frozen=True)
class Absence:
    """Name one thing that is left out. kind: metric, variable, level, region, lead, date or baseline."""

    kind: str
    name: str
    reason: str


def sentences(absences: Sequence[Absence]) -> list[str]:
    """Say what is left out, a sentence for each reason."""
    return [
        f"The forecast has no lead of {names}." if reason == NO_LEAD else f"{names} left out: {reason}."
        for reason, names in _by_reason(absences).items()
    ]


def folded(absences: Sequence[Absence]) -> str:
    """Say all that is left out in one line, the reasons in brackets; empty where nothing is."""
    phrases = [f"{names} ({reason})" for reason, names in _by_reason(absences).items()]
    return f"Left out: {'; '.join(phrases)}." if phrases else ""


def _by_reason(absences: Sequence[Absence]) -> dict[str, str]:
    """List the names of what is left out, by the reason."""
    names: dict[str, list[str]] = {}
    for absence in absences:
        names.setdefault(absence.reason, []).append(absence.name)
    return {reason: some(several) for reason, several in names.items()}


def some(names: Sequence[str]) -> str:
    """List names, the first few of many."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def absent_metrics(metrics: Mapping[str, Metric], members: int, fields: Sequence[str], why_none: str) -> list[Absence]:
    """Name the metrics that lack members of the forecast or fields of the climatology.

    fields: those that the climatology has, empty without one. why_none: the reason where there is none.
    """
    absences = []
    for name, metric in metrics.items():
        lacking = [need for need in metric.needs if need not in fields]
        if metric.members > max(members, 1):
            size = f"{members} member{'' if members == 1 else 's'}" if members else "no members"
            reason = f"it needs {metric.members} members or more and the forecast has {size}"
        elif lacking:
            reason = f"the climatology has no {', '.join(lacking)}" if fields else why_none
        else:
            continue
        absences.append(Absence("metric", name, reason))
    return absences


def metrics_of_moments(
    metrics: Mapping[str, Metric], statistics_of: int, strict: bool
) -> tuple[dict[str, Metric], list[Absence]]:
    """Return the metrics that mean and variance of the members are enough for, and name the others.

    statistics_of: members of which the forecast keeps statistics alone, 0 where it keeps all.
    strict: they were asked for; ValueError in place of names.
    """
    scored = {n: metric for n, metric in metrics.items() if not (statistics_of and metric.members) or metric.moments}
    others = [name for name in metrics if name not in scored]
    reason = "it needs the members, and the forecast keeps statistics of them"
    if others and strict:
        raise ValueError(
            f"metric: {', '.join(others)} cannot be computed from a forecast without members (keep=statistics). "
            "Leave it out, take spread or gaussian_crps, or make the forecast with keep=members."
        )
    return scored, [Absence("metric", name, reason) for name in others]


def absent_levels(
    pairs: Pairs, wanted: Sequence[Any] | None, levels: Sequence[float] | None, forecast: xr.Dataset, truth: xr.Dataset
) -> list[Absence]:
    """Name the levels that were asked for and that forecast or truth lacks."""
    requested: dict[str, Sequence[float] | None] = {}
    shared = [str(n) for n in forecast.data_vars if n in truth and levels_of(forecast[n]) and levels_of(truth[n])]
    for entry in wanted if wanted is not None else shared:
        requested.update({entry: levels} if isinstance(entry, str) else {str(k): v for k, v in entry.items()})
    absences = []
    if levels and not set(shared) & set(requested):
        texts = [f"{level:g}" for level in levels]
        absences.append(Absence("level", some(texts), "no variable that is scored has levels on both sides"))
    with_levels = {str(name) for entry in wanted or () if not isinstance(entry, str) for name in entry}
    for name, several in requested.items():
        if name not in shared:
            texts = [f"{name} at {level:g}" for level in several or () if name in with_levels]
            absences += [Absence("level", some(texts), "it has no levels on both sides")] if texts else []
            continue
        near = {
            side: is_near_any(levels_of(dataset[name])) for side, dataset in (("forecast", forecast), ("truth", truth))
        }
        for level in several or ():
            lacking = [side for side, is_near in near.items() if not is_near(float(level))]
            if lacking:
                reason = f"the {lacking[0]} does not have it" if len(lacking) == 1 else "neither side has it"
                absences.append(Absence("level", f"{name} at {level:g}", reason))
    return absences


def absent_dates(asked: np.ndarray, have: np.ndarray) -> list[Absence]:
    """Name the initial times that were asked for and that the forecast lacks."""
    missing = np.setdiff1d(asked, have)
    texts = np.datetime_as_string(missing, "m").tolist()
    return [Absence("date", some(texts), "the forecast has no such initial time")] if texts else []


def empty_scores(spoilt: Mapping[str, np.ndarray], pairs: Pairs, either: bool) -> list[Absence]:
    """Name the metrics of a variable that are NaN because values are missing, and where the first of these lies.

    spoilt: by metric, where missing values make it NaN, bool (lead, channel). either: see `first_missing`.
    """
    absences = []
    for variable in pairs.variables:
        channels = pairs.variables.slice(variable.name)
        by_metric = {name: where[:, channels].any(axis=1) for name, where in spoilt.items()}
        names = [name for name, leads in by_metric.items() if leads.any()]
        if not names:
            continue
        count = int(np.logical_or.reduce([by_metric[name] for name in names]).sum())
        where = first_missing(pairs, variable.name, either)
        why = where or "the climatology lacks values, or they are infinite"
        reason = f"NaN at {count} of {len(pairs.leads)} lead times, since {why}"
        absences.append(Absence("metric", f"{some(names)} of {variable.name}", reason))
    return absences


def first_missing(pairs: Pairs, variable: str, either: bool) -> str:
    """Say where a variable of the forecast is missing first and that of the truth is not; empty if nowhere.

    either: where either of them is missing.
    """
    channels = pairs.variables.slice(variable)
    for pair in pairs:
        target = pair.target.values[:, channels].flatten(2).isnan().numpy()
        values = pair.prediction.values.flatten(-pair.prediction.rank)
        prediction = values[..., channels, :].isnan().numpy()
        if (alone := prediction & (either | ~target)).any():
            return _place(pairs, "forecast", pair, alone)
        if either and target.any():
            return _place(pairs, "truth", pair, target)
    return ""


def _place(pairs: Pairs, side: str, pair: Any, missing: np.ndarray) -> str:
    """The first missing point of ([member,] init, channel, point)."""
    at = np.argwhere(missing)[0]
    member = f"member {at[0]}, " if missing.ndim == 4 else ""
    row, _, point = at[-3:]
    field = missing[(*at[:-3], row)]
    latitude, longitude = (degrees[point] for degrees in pairs.grid.points)
    init, lead = np.datetime_as_string(pair.inits[row], "h"), duration_text(pairs.leads[pair.lead])
    return (
        f"the {side} is missing at {int(field.sum())} of {field.size} points of the field of {member}{init}, lead "
        f"{lead} (first at latitude {latitude:g}, longitude {longitude:g}); missing=any "
        "leaves such points out"
    )
