"""Score sums only against sums over the same time: what is summed since the start of a forecast against truth by step.

    by step(lead) = since the start(lead) - since the start(lead before)

Sums since the start are known by growing from lead to lead at every point where they change at all; GRIB calls both
kinds `accum`, CF both `sum` (https://cfconventions.org, cell methods).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import xarray as xr

from data_pipelines.conventions.durations import duration, duration_text, spacing
from data_pipelines.conventions.suggestions import suggestion

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


def cell_method(field: xr.DataArray) -> str:
    """Return how values represent their time by the attributes: sum, mean, point, maximum or minimum; empty: unsaid."""
    found = METHODS.search(str(field.attrs.get("cell_methods", "")))
    return found[1] if found else STEP_TYPES.get(str(field.attrs.get("GRIB_stepType", "")), "")


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
    if places.size < 3:
        return None
    first = {d: 0 for d in field.dims if d not in (dim, "latitude", "longitude")}
    values = field.isel({**first, dim: places}).transpose(dim, ...).values.astype(np.float64)
    values = values.reshape(places.size, -1)
    values = values[:, np.isfinite(values).all(axis=0)]
    steps = np.diff(values, axis=0)
    steps[np.abs(steps) <= 1e-6 * np.abs(values).max(initial=0.0)] = 0.0
    changing = steps.any(axis=0)
    if changing.sum() < FEWEST:
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
        apart = duration_text(np.diff(np.concatenate([before[:1], leads])).min())
        raise ValueError(
            f"deaccumulate: leads of the forecast are {apart} apart, the truth has '{name}' over "
            f"{duration_text(interval)}; expected the same. Give a truth with sums over the steps of the forecast."
        )
    field = forecast[name].chunk({"time": 1})
    known = xr.DataArray(fitting, dims=LEAD, coords={LEAD: forecast[LEAD]})
    return (field - field.shift({LEAD: 1}, fill_value=0.0)).where(known).astype(field.dtype).assign_attrs(field.attrs)


def _interval(truth: xr.Dataset, name: str) -> np.timedelta64:
    """Return the time over which the truth sums: what it declares, or its step."""
    said = re.search(r"interval:\s*(\d+)\s*h", str(truth[name].attrs.get("cell_methods", "")))
    said = said or re.search(r"_(\d+)hr?$", name)
    if said:
        return duration(f"{said[1]}h")
    step = spacing(truth["time"].values)
    if step is None:
        raise ValueError(
            f"deaccumulate: the truth has one time only, so that the length of sums of '{name}' is unknown."
        )
    return step
