"""Match a forecast and its truth: which variables, levels, leads and initial times of them can be scored.

Score sums only against sums over the same time: what is summed since the start of a forecast against truth by step.

    by step(lead) = since the start(lead) - since the start(lead before)

Sums since the start are known by growing from lead to lead at every point where they change at all; GRIB calls both
kinds `accum`, CF both `sum` (https://cfconventions.org, cell methods).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.batches.world import flux_conventions
from data_pipelines.conventions.attributes import horizontal, is_near_any, levels_of, truncation_of
from data_pipelines.conventions.dialects import variable_hint
from data_pipelines.conventions.durations import duration, duration_text, spacing
from data_pipelines.conventions.suggestions import option, suggestion
from data_pipelines.conventions.units import (
    are_base_units,
    are_other_units,
    are_undecided_units,
    known_units,
    refuse_other_units,
)
from data_pipelines.derived.shaping import shaped
from emulators.physics.physical_ranges import BOUNDS
from emulators.variables import Variable, VariableSet

SUMMED = re.compile(r"precipitation|snowfall|runoff|evaporation|radiation|heat_flux|dewfall")
METHODS = re.compile(r"(?:time|prediction_timedelta|step|lead_time):\s*(sum|mean|point|maximum|minimum)")
STEP_TYPES = {"accum": "sum", "avg": "mean", "instant": "point", "max": "maximum", "min": "minimum"}
LEAD = "prediction_timedelta"
SAMPLES, FEWEST, SHARE = 6, 10, 0.999


def like_with_like(
    forecast: xr.Dataset, truth: xr.Dataset, by_step: Sequence[str] = (), wanted: Sequence[str] = ()
) -> tuple[xr.Dataset, list[str]]:
    """Return the forecast with sums as the truth has them, without variables that cannot be compared; notes on these.

    by_step: variables whose sums since the start are to be turned into sums by step. wanted: those that must be scored;
    ValueError where one cannot, or nothing is left.
    """
    for name in by_step:
        if name not in forecast.data_vars:
            raise ValueError(
                f"deaccumulate: no variable '{name}' in the forecast; {suggestion(name, forecast.data_vars)}"
            )
    reasons, notes = {}, []
    shared = [str(name) for name in forecast.data_vars if name in truth.data_vars and LEAD in forecast[name].dims]
    for name in shared:
        kinds = [cell_method(dataset[name]) for dataset in (forecast, truth)]
        growing = grows(forecast[name], LEAD) if _may_be_sum(forecast[name]) or name in by_step else False
        if name in by_step and growing is False:
            raise ValueError(
                f"deaccumulate: '{name}' of the forecast does not grow from lead to lead, so that it is no sum since "
                "the start; leave it out of the list."
            )
        if name in by_step:
            forecast = forecast.assign({name: _by_step(forecast, truth, name)})
        elif growing and not grows(truth[name], "time"):
            reasons[name] = (
                f"'{name}' of the forecast is summed since its start, that of the truth over each step; give "
                f"deaccumulate=[{name}] to score the differences of successive leads"
            )
        elif "sum" in kinds and kinds[0] and kinds[1] and kinds[0] != kinds[1]:
            reasons[name] = f"'{name}' is a {kinds[0]} over time in the forecast and a {kinds[1]} in the truth"
        elif kinds[0] and kinds[1] and kinds[0] != kinds[1]:
            notes.append(f"{name}: {kinds[0]} over time in the forecast, {kinds[1]} in the truth; scored as they are.")
    for name in wanted:
        if name in reasons:
            raise ValueError(f"{reasons[name]}.")
    if reasons and len(reasons) == len(shared):
        raise ValueError(f"{next(iter(reasons.values()))}.")
    notes += [f"{why}; left out." for why in reasons.values()]
    return forecast.drop_vars(list(reasons)), notes


def unlike_sums(forecast: xr.Dataset, truth: xr.Dataset) -> list[str]:
    """Say which sums may be over another time in the forecast than in the truth, a sentence each.

    That is the time which a variable declares, else the distance of leads, or of the times of the truth.
    """
    leads = np.unique(np.append(0, forecast[LEAD].values.astype("timedelta64[s]").astype(np.int64)))
    steps = spacing(leads.astype("datetime64[s]")), spacing(truth["time"].values) if "time" in truth.dims else None
    notes = []
    for name in (str(name) for name in forecast.data_vars if name in truth.data_vars):
        both = (forecast[name], truth[name])
        intervals = [_declared_interval(field) or step for field, step in zip(both, steps, strict=True)]
        lengths = [length for length in intervals if length is not None]
        if len(set(lengths)) < 2 or not all(map(_may_be_sum, both)) or grows(both[0], LEAD):
            continue
        texts = [duration_text(length) for length in lengths]
        notes.append(
            f"'{name}' may be summed over {texts[0]} in the forecast and {texts[1]} in the truth, as leads and times "
            "are apart or its attributes say; scored as they are."
        )
    return notes


def cell_method(field: xr.DataArray) -> str:
    """Return how values represent their time by the attributes: sum, mean, point, maximum or minimum; empty: unsaid."""
    method = METHODS.search(str(field.attrs.get("cell_methods", "")))
    return method[1] if method else STEP_TYPES.get(str(field.attrs.get("GRIB_stepType", "")), "")


def _may_be_sum(field: xr.DataArray) -> bool:
    """Return whether a variable is a sum over time by its attributes, or by its name if these do not say."""
    kind = cell_method(field)
    return kind == "sum" or (not kind and bool(SUMMED.search(str(field.name))))


def grows(field: xr.DataArray, dim: str) -> bool | None:
    """Return whether values grow in size along `dim` wherever they change; None if too little is known.

    Only a few positions are read, along `dim` at the first of all others but latitude and longitude.
    """
    places = np.unique(np.linspace(0, field.sizes[dim] - 1, SAMPLES).round().astype(int))
    if dim == "time":
        places = np.arange(min(SAMPLES, field.sizes[dim]))  # neighbours: sums may begin anew each day
    if places.size < 2:
        return None
    first = {d: 0 for d in field.dims if d not in (dim, "latitude", "longitude", "cell")}
    values = field.isel({**first, dim: places}).compute().transpose(dim, ...).values.astype(np.float64)
    values = values.reshape(places.size, -1)
    values = values[:, np.isfinite(values).all(axis=0)]
    steps = np.diff(values, axis=0)
    steps[np.abs(steps) <= 1e-6 * np.abs(values).max(initial=0.0)] = 0.0
    changing = steps.any(axis=0)
    if changing.sum() < (FEWEST if places.size > 2 else 10 * FEWEST):
        return None
    steps = steps[:, changing]
    steady = ((steps >= 0).all(axis=0) | (steps <= 0).all(axis=0)).mean()
    larger = np.abs(values[-1, changing]).mean() > np.abs(values[0, changing]).mean()
    return bool(steady >= SHARE and larger)


def _by_step(forecast: xr.Dataset, truth: xr.Dataset, name: str) -> xr.DataArray:
    """Return differences of successive leads, NaN where these are not as far apart as the truth sums over."""
    interval = _interval(truth, name)
    leads = forecast[LEAD].values.astype("timedelta64[s]")
    before = np.concatenate([[np.timedelta64(0, "s")], leads[:-1]])
    fitting = (leads - before) == interval
    if not fitting.any():
        lead_spacing = duration_text(np.diff(np.concatenate([before[:1], leads])).min())
        raise ValueError(
            f"deaccumulate: leads of the forecast are {lead_spacing} apart, the truth has '{name}' over "
            f"{duration_text(interval)}; expected the same. Give a truth with sums over the steps of the forecast."
        )
    field = forecast[name].chunk({"time": 1})
    valid = xr.DataArray(fitting, dims=LEAD, coords={LEAD: forecast[LEAD]})
    return (field - field.shift({LEAD: 1}, fill_value=0.0)).where(valid).astype(field.dtype).assign_attrs(field.attrs)


def _interval(truth: xr.Dataset, name: str) -> np.timedelta64:
    """Return the time over which the truth sums: what it declares, or its step."""
    if declared := _declared_interval(truth[name]):
        return declared
    step = spacing(truth["time"].values)
    if step is None:
        raise ValueError(
            f"deaccumulate: the truth has one time only, so that the length of sums of '{name}' is unknown."
        )
    return step


def _declared_interval(field: xr.DataArray) -> np.timedelta64 | None:
    """Return the time over which a variable sums, by its cell methods or its name; None where neither says."""
    match = re.search(r"interval:\s*(\d+)\s*h", str(field.attrs.get("cell_methods", "")))
    match = match or re.search(r"_(\d+)hr?$", str(field.name))
    return duration(f"{match[1]}h") if match else None


ALIKE = 1.4  # ratio of deviations above which fields of one time are not in the same units
UNITS_OF_LEADS = {"hours": 1, "days": 24}  # hours that a lead time may be meant in


def shared_variables(
    forecast: xr.Dataset, truth: xr.Dataset, wanted: Sequence | None = None, levels: Sequence[float] | None = None
) -> VariableSet:
    """The wanted variables and levels that both datasets hold."""
    both = [str(n) for n in forecast.data_vars if n in truth and {"time", *horizontal(truth)} <= set(truth[n].dims)]
    if not both:
        raise ValueError(
            "Forecast and truth share no variable: the forecast has "
            f"{', '.join(map(str, forecast.data_vars)) or 'none'}, "
            f"the truth {', '.join(map(str, truth.data_vars)) or 'none'}."
        )
    requested: dict[str, Sequence[float] | None] = {}
    for entry in wanted if wanted is not None else both:
        requested.update({entry: levels} if isinstance(entry, str) else {str(k): v for k, v in entry.items()})
    variables = []
    for name, wanted_levels in requested.items():
        if name not in both:
            where = "forecast" if name not in forecast else "truth"
            raise ValueError(f"Variable '{name}' is not in the {where}; {variable_hint(name, both)}")
        forecast_levels = levels_of(forecast[name])
        if bool(forecast_levels) != ("level" in truth[name].dims):
            raise ValueError(f"'{name}' has levels in one of forecast and truth and none in the other.")
        near = is_near_any(levels_of(truth[name]))
        shared = tuple(level for level in forecast_levels if near(level))
        selected = (
            shared if wanted_levels is None else tuple(level for level in shared if is_near_any(wanted_levels)(level))
        )
        if forecast_levels and not selected:
            if wanted is None and shared:
                continue
            raise ValueError(
                f"'{name}' shares no level: forecast {list(forecast_levels)}, truth {list(levels_of(truth[name]))}, "
                f"asked for {'all' if wanted_levels is None else list(wanted_levels)}."
            )
        units, truth_units = (str(dataset[name].attrs.get("units", "")) for dataset in (forecast, truth))
        if _are_usual(name, truth_units) and not _are_usual(name, units):
            refuse_other_units(name, truth_units, units, "the forecast")
        refuse_other_units(name, units, truth_units, "the truth")
        positive, cell = flux_conventions(truth, name)
        variables.append(Variable(name, truth_units or units, selected, positive, cell, truncation_of(truth[name])))
    return VariableSet(tuple(variables))


def _are_usual(name: str, units: str) -> bool:
    """Return whether units are those in which a variable is stored everywhere, or base units of another variable."""
    return not are_other_units(BOUNDS[name][2], units) if name in BOUNDS else are_base_units(units)


def units_by_value(forecast: xr.Dataset, truth: xr.Dataset, names: Iterable[str]) -> list[str]:
    """Decide by values whether units of which one is not known are the same; return a sentence on each that are.

    forecast, truth: fields of one valid time. ValueError where mean and deviation of the two fields differ.
    """
    notes = []
    for name in names:
        sides = {"forecast": forecast[name], "truth": truth[name]}
        units = {side: str(field.attrs.get("units", "")) for side, field in sides.items()}
        if not are_undecided_units(*units.values()):
            continue
        side, other = sorted(units, key=lambda key: known_units(units[key]) is not None)
        (mean, deviation), (other_mean, other_deviation) = map(_moments, sides.values())
        ratio = max(deviation, other_deviation) / max(min(deviation, other_deviation), 1e-300)
        unknown = f"'{name}' is in '{units[side]}' in the {side}, which is not known"
        if ratio <= ALIKE and abs(mean - other_mean) <= deviation + other_deviation:
            notes.append(
                f"{unknown}; taken as '{units[other]}', since values agree: mean {mean:.4g} of the forecast, "
                f"{other_mean:.4g} of the truth."
            )
            continue
        raise ValueError(
            f"{unknown}, and in '{units[other]}' in the {other}, and values differ: mean {mean:.4g} and deviation "
            f"{deviation:.4g} of the forecast, {other_mean:.4g} and {other_deviation:.4g} of the truth. Write what it "
            f"is: units={{{side}: {{{name}: '<its units> -> {units[other]}'}}}}."
        )
    return notes


def _moments(field: xr.DataArray) -> tuple[float, float]:
    """Return mean and standard deviation of the values that are there."""
    values = np.asarray(field.values, dtype=np.float64)
    values = values[np.isfinite(values)]
    return (float(values.mean()), float(values.std())) if values.size else (0.0, 0.0)


def with_labels(dataset: xr.Dataset, dim: str, wanted: np.ndarray | None) -> xr.Dataset:
    """The wanted values along `dim`; ValueError where one is not there."""
    if wanted is None:
        return dataset
    labels = dataset[dim].values
    absent = np.setdiff1d(wanted.astype(labels.dtype), labels)
    if absent.size:
        raise ValueError(_absent(dim, absent, labels))
    return dataset.isel({dim: np.flatnonzero(np.isin(labels, wanted.astype(labels.dtype)))})


def _lead(lead: np.timedelta64) -> str:
    """A lead time as it is written; in days where it is none of whole hours, such as a month of 30.4 days."""
    days = lead / np.timedelta64(1, "D")
    return duration_text(lead) if days < 2.0 or (24.0 * days).is_integer() else f"{days:.3g}d"


def _absent(dim: str, absent: np.ndarray, have: np.ndarray) -> str:
    """The error message for leads or initial times that a forecast lacks."""
    leads = dim == "prediction_timedelta"
    text = _lead if leads else lambda time: str(np.datetime_as_string(time, "m"))
    key, words = ("leads", "leads") if leads else ("inits", "initial times")
    return (
        f"Expected {words} that the forecast has, {text(have[0])} to {text(have[-1])} ({have.size} of them); got "
        f"{', '.join(text(value) for value in absent[:3])}. Take some of those with {key}=[...], or all with {key}=all."
    )


def with_derived(dataset: xr.Dataset, wanted: Sequence[str], strict: bool) -> tuple[xr.Dataset, dict[str, str]]:
    """Add the wanted fields that the dataset lacks, derived from others; and why others cannot be derived, by name.

    strict: raise ValueError for the first of these.
    """
    absent = {}
    for name in wanted:
        if name in dataset:
            continue
        try:
            dataset = shaped(dataset, derive=[name])
        except ValueError as error:
            if strict:
                raise
            absent[name] = str(error)
    return dataset, absent


def shared_fields(
    wanted: Sequence[Any], levels: Sequence[float] | None, forecast: xr.Dataset, truth: xr.Dataset
) -> tuple[list[Any], list[str]]:
    """Split the wanted fields and levels into those that both have, as entries of `fields`, and the names of others."""
    shared: list[Any] = []
    absent = []
    for entry in wanted:
        name, requested = (entry, levels) if isinstance(entry, str) else next(iter(entry.items()))
        if name not in forecast or name not in truth:
            absent.append(str(name))
            continue
        level_sets = [set(levels_of(dataset[name])) for dataset in (forecast, truth)]
        if not level_sets[0] or not level_sets[1]:
            shared.append(name)
            continue
        both = [
            level
            for level in (requested or sorted(level_sets[0]))
            if all(float(level) in available for available in level_sets)
        ]
        absent += [f"{name} at {level:g}" for level in requested or () if level not in both]
        shared += [{name: both}] if both else []
    if not shared:
        raise ValueError(f"The data have none of {', '.join(absent)}; give fields=[...], or fields=all.")
    return shared, absent


def shared_leads(wanted: np.ndarray, forecast: xr.Dataset) -> tuple[np.ndarray, list[str]]:
    """Split the wanted lead times into those that the forecast has, and the others as text."""
    forecast_leads = forecast["prediction_timedelta"].values.astype(wanted.dtype)
    present = np.isin(wanted, forecast_leads)
    absent = [duration_text(lead) for lead in wanted[~present]]
    if not present.any():
        raise ValueError(f"The forecast has none of the leads {', '.join(absent)}; give leads=[...], or leads=all.")
    return wanted[present], absent


def with_likely_leads(forecast: xr.Dataset, times: np.ndarray | None) -> xr.Dataset:
    """Read lead times whose unit is unknown as days instead of hours, where only this fits the times of the truth.

    ValueError where both fit and the numbers, such as 1, 2, 3, do not tell which is meant.
    """
    if "read as hours" not in forecast.attrs.get("assumed", "") or times is None:
        return forecast
    leads = forecast["prediction_timedelta"].values.astype("timedelta64[s]").astype(np.int64)
    inits, truth_times = forecast["time"].values.astype("datetime64[s]"), times.astype("datetime64[s]")
    fit = {
        unit: int(np.isin(inits[:, None] + leads * factor, truth_times).sum())
        for unit, factor in UNITS_OF_LEADS.items()
    }
    options = f"{option('units')}={{prediction_timedelta: hours}} or {{prediction_timedelta: days}}"
    if fit["hours"] and fit["days"] and np.gcd.reduce(leads // 3600) % 3:
        raise ValueError(
            f"The lead times of the forecast, {', '.join(map(str, (leads // 3600)[:4].tolist()))}, have no units, and "
            f"the truth fits hours as well as days; say them: {options}."
        )
    if fit["hours"] or not fit["days"]:
        return forecast
    note = f"Lead times of the forecast have no units; read as days, at which the truth has its times. Else: {options}."
    days = (leads * UNITS_OF_LEADS["days"]).astype("timedelta64[s]")
    return forecast.assign_coords(
        prediction_timedelta=days.astype("timedelta64[ns]"),
        valid_time=(("time", "prediction_timedelta"), (inits[:, None] + days).astype("datetime64[ns]")),
    ).assign_attrs(assumed=note)
