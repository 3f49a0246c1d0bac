"""Find the axes of initial times and lead times of a forecast, in the layouts that programs write.

    (time, step) and the like            initial time and lead time, each an axis of its own: stays as it is
    (valid_time), initial time a scalar  one forecast by valid time (cfgrib after swap_dims, iris)
    (sample, time), init_time (sample)   `time` counts from the initial time (ACE: Watt-Meyer et al. 2023, arXiv
                                         2310.02074; GraphCast, with `batch` and `datetime`: Lam et al. 2023)

Samples with one initial time are members; those of several, each as often, become both axes.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from data_pipelines.conventions.calendars import datetimes, seconds_of, timedeltas
from data_pipelines.conventions.canonical import MEMBERS
from data_pipelines.conventions.suggestions import option
from data_pipelines.conventions.valid_times import INITS, LEADS, VALID, refuse_other_times

LEAD = "prediction_timedelta"
BY_VALID = (*VALID, "datetime", "time")
CLOSE = np.timedelta64(60, "s")


def with_forecast_axes(dataset: xr.Dataset, origin: str) -> xr.Dataset:
    """Give a forecast an initial time and lead times, where its layout holds them in another form.

    ValueError where valid times, initial times and lead times contradict each other.
    """
    return _by_init(_by_lead(_with_time_as_lead(dataset, origin), origin), origin)


def _with_time_as_lead(dataset: xr.Dataset, origin: str) -> xr.Dataset:
    """Rename a coordinate `time` that holds lengths of time; the initial times follow from valid times if need be."""
    time = dataset.variables.get("time")
    if time is None or time.ndim > 1 or any(name in dataset.dims for name in LEADS):
        return dataset
    if not (np.issubdtype(time.dtype, np.timedelta64) or seconds_of(str(time.attrs.get("units", "")))):
        return dataset
    dataset = dataset.rename({"time": LEAD})
    valid = next((n for n in (*VALID, "datetime") if n in dataset.variables and LEAD in dataset[n].dims), None)
    if valid is None or any(name in dataset.variables for name in INITS):
        return dataset
    first = dataset[valid].isel({LEAD: 0})
    starts = datetimes(first, origin) - timedeltas(dataset[LEAD], origin).reshape(-1)[0]
    return dataset.assign_coords(init_time=(first.dims, starts.astype("datetime64[ns]")))


def _by_lead(dataset: xr.Dataset, origin: str) -> xr.Dataset:
    """Turn an axis of valid times into one of lead times, where the initial time is a scalar."""
    lead = next((n for n in LEADS if n in dataset.variables and dataset[n].ndim < 2), None)
    init = next((n for n in (*INITS, "time") if n in dataset.variables and dataset[n].ndim == 0), None)
    valid = next((n for n in BY_VALID if n in dataset.dims and n in dataset.variables and n != init), None)
    if init is None or valid is None or (lead is not None and lead in dataset.dims):
        return dataset
    start, own = datetimes(dataset[init], origin), datetimes(dataset[valid], origin)
    leads = own - start
    if lead is not None and (np.issubdtype(dataset[lead].dtype, np.timedelta64) or dataset[lead].attrs.get("units")):
        told = timedeltas(dataset[lead].reset_coords(drop=True), origin)
        refuse_other_times(own, start + told, valid, f"'{init}' + '{lead}'", origin, lead)
    dataset = dataset.drop_vars([valid, *([lead] if lead else [])]).rename({valid: LEAD})
    return dataset.assign_coords({LEAD: leads.astype("timedelta64[ns]")})


def _by_init(dataset: xr.Dataset, origin: str) -> xr.Dataset:
    """Make initial times that are told of each sample an axis: of initial times, of members, or of both."""
    init = next((n for n in INITS if n in dataset.variables and dataset[n].ndim == 1 and n not in dataset.dims), None)
    if init is None or dataset[init].dims[0] in (LEAD, *LEADS):
        return dataset
    (sample,) = dataset[init].dims
    times = datetimes(dataset[init], origin)
    lead = next((n for n in LEADS if n in dataset.variables and dataset[n].size == 1), None)
    if sample == "time" and lead is not None and "time" in dataset.variables:
        summed = times + timedeltas(dataset[lead].reset_coords(drop=True), origin).reshape(())
        refuse_other_times(datetimes(dataset["time"], origin), summed, "time", f"'{init}' + '{lead}'", origin, lead)
    starts, counts = np.unique(times, return_counts=True)
    bare = dataset.drop_vars([n for n in (sample, init) if n in dataset.variables])
    if starts.size == times.size:
        return bare.rename({sample: init}).assign_coords({init: times.astype("datetime64[ns]")})
    if any(name in dataset.dims for name in MEMBERS if name != sample) or np.ptp(counts):
        raise ValueError(
            f"'{init}' of {origin} repeats initial times along '{sample}' ({counts.min()} to {counts.max()} times "
            f"each); expected each as often, as members. Choose some with {option('select')}={{{sample}: [...]}}."
        )
    if starts.size == 1:
        return bare.rename({sample: "member"}).assign_coords({init: starts[0].astype("datetime64[ns]")})
    order = np.argsort(times, kind="stable").reshape(starts.size, -1)
    both = bare.isel({sample: xr.DataArray(order, dims=(init, "member"))})
    return both.assign_coords({init: starts.astype("datetime64[ns]")})
