"""Match a forecast and its truth: which variables, levels, leads and initial times of them can be scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.conventions.attributes import truncation_of
from data_pipelines.conventions.dialects import variable_hint
from data_pipelines.conventions.durations import duration_text
from data_pipelines.conventions.suggestions import option
from data_pipelines.conventions.units import are_base_units, refuse_other_units
from data_pipelines.derived.shaping import shaped
from data_pipelines.reading.stacking import is_near_any, levels_of
from emulators.variables import Variable, VariableSet

UNITS_OF_LEADS = {"hours": 1, "days": 24}  # hours that a lead time may be meant in


def shared_variables(
    forecast: xr.Dataset, truth: xr.Dataset, wanted: Sequence | None = None, levels: Sequence[float] | None = None
) -> VariableSet:
    """The wanted variables and levels that both datasets hold."""
    both = [
        str(n) for n in forecast.data_vars if n in truth and {"time", "latitude", "longitude"} <= set(truth[n].dims)
    ]
    if not both:
        raise ValueError(
            "Forecast and truth share no variable: the forecast has "
            f"{', '.join(map(str, forecast.data_vars)) or 'none'}, "
            f"the truth {', '.join(map(str, truth.data_vars)) or 'none'}."
        )
    asked: dict[str, Sequence[float] | None] = {}
    for entry in wanted if wanted is not None else both:
        asked.update({entry: levels} if isinstance(entry, str) else {str(k): v for k, v in entry.items()})
    chosen = []
    for name, some in asked.items():
        if name not in both:
            where = "forecast" if name not in forecast else "truth"
            raise ValueError(f"Variable '{name}' is not in the {where}; {variable_hint(name, both)}")
        have = levels_of(forecast[name])
        if bool(have) != ("level" in truth[name].dims):
            raise ValueError(f"'{name}' has levels in one of forecast and truth and none in the other.")
        near = is_near_any(levels_of(truth[name]))
        shared = tuple(level for level in have if near(level))
        kept = shared if some is None else tuple(level for level in shared if is_near_any(some)(level))
        if have and not kept:
            if wanted is None and shared:
                continue
            raise ValueError(
                f"'{name}' shares no level: forecast {list(have)}, truth {list(levels_of(truth[name]))}, "
                f"asked for {'all' if some is None else list(some)}."
            )
        units, own = (str(dataset[name].attrs.get("units", "")) for dataset in (forecast, truth))
        if are_base_units(own) and not are_base_units(units):
            refuse_other_units(name, own, units, "the forecast")
        refuse_other_units(name, units, own, "the truth")
        chosen.append(Variable(name, own or units, kept, truncation=truncation_of(truth[name])))
    return VariableSet(tuple(chosen))


def with_labels(dataset: xr.Dataset, dim: str, wanted: np.ndarray | None) -> xr.Dataset:
    """The wanted values along `dim`; ValueError where one is not there."""
    if wanted is None:
        return dataset
    have = dataset[dim].values
    absent = np.setdiff1d(wanted.astype(have.dtype), have)
    if absent.size:
        raise ValueError(_absent(dim, absent, have))
    return dataset.isel({dim: np.flatnonzero(np.isin(have, wanted.astype(have.dtype)))})


def _absent(dim: str, absent: np.ndarray, have: np.ndarray) -> str:
    """The error message for leads or initial times that a forecast lacks."""
    leads = dim == "prediction_timedelta"
    told = duration_text if leads else lambda time: str(np.datetime_as_string(time, "m"))
    key, words = ("leads", "leads") if leads else ("inits", "initial times")
    return (
        f"Expected {words} that the forecast has, {told(have[0])} to {told(have[-1])} ({have.size} of them); got "
        f"{', '.join(told(one) for one in absent[:3])}. Take some of those with {key}=[...], or all with {key}=all."
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
    kept: list[Any] = []
    absent = []
    for entry in wanted:
        name, asked = (entry, levels) if isinstance(entry, str) else next(iter(entry.items()))
        if name not in forecast or name not in truth:
            absent.append(str(name))
            continue
        have = [set(levels_of(dataset[name])) for dataset in (forecast, truth)]
        if not have[0] or not have[1]:
            kept.append(name)
            continue
        both = [level for level in (asked or sorted(have[0])) if all(float(level) in there for there in have)]
        absent += [f"{name} at {level:g}" for level in asked or () if level not in both]
        kept += [{name: both}] if both else []
    if not kept:
        raise ValueError(f"The data have none of {', '.join(absent)}; give fields=[...], or fields=all.")
    return kept, absent


def shared_leads(wanted: np.ndarray, forecast: xr.Dataset) -> tuple[np.ndarray, list[str]]:
    """Split the wanted lead times into those that the forecast has, and the others as text."""
    have = forecast["prediction_timedelta"].values.astype(wanted.dtype)
    there = np.isin(wanted, have)
    absent = [duration_text(lead) for lead in wanted[~there]]
    if not there.any():
        raise ValueError(f"The forecast has none of the leads {', '.join(absent)}; give leads=[...], or leads=all.")
    return wanted[there], absent


def with_likely_leads(forecast: xr.Dataset, times: np.ndarray | None) -> xr.Dataset:
    """Read lead times whose unit is unknown as days instead of hours, where only this fits the times of the truth.

    ValueError where both fit and the numbers, such as 1, 2, 3, do not tell which is meant.
    """
    if not forecast.attrs.get("assumed") or times is None:
        return forecast
    leads = forecast["prediction_timedelta"].values.astype("timedelta64[s]").astype(np.int64)
    inits, known = forecast["time"].values.astype("datetime64[s]"), times.astype("datetime64[s]")
    fit = {unit: int(np.isin(inits[:, None] + leads * factor, known).sum()) for unit, factor in UNITS_OF_LEADS.items()}
    options = f"{option('units')}={{prediction_timedelta: hours}} or {{prediction_timedelta: days}}"
    if fit["hours"] and fit["days"] and np.gcd.reduce(leads // 3600) % 3:
        raise ValueError(
            f"The lead times of the forecast, {', '.join(map(str, (leads // 3600)[:4].tolist()))}, have no units, and "
            f"the truth fits hours as well as days; say them: {options}."
        )
    if fit["hours"] or not fit["days"]:
        return forecast
    told = f"Lead times of the forecast have no units; read as days, at which the truth has its times. Else: {options}."
    days = (leads * UNITS_OF_LEADS["days"]).astype("timedelta64[s]")
    return forecast.assign_coords(
        prediction_timedelta=days.astype("timedelta64[ns]"),
        valid_time=(("time", "prediction_timedelta"), (inits[:, None] + days).astype("datetime64[ns]")),
    ).assign_attrs(assumed=told)
