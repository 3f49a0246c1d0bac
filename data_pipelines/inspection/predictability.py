"""Predictability of a simulated source: error growth of identical twins, and its saturation.

    E(lead) = sqrt(mean over cases and area of (twin - control)^2),    E(infinity) = sqrt(2) s

and the error of persistence over the same cases: the identical-twin experiment of Lorenz 1982 (doi
10.1111/j.2153-3490.1982.tb01839.x), for a perfect model. s is the standard deviation of the stored data about their
climatology; E(infinity) is the rms difference of two random states of the same season. In between, errors grow as

    dE/dt = a E (1 - E / E(infinity)),    doubling time = ln 2 / a  of small errors,

fitted as a straight line through ln(E / (E(infinity) - E)) (Lorenz 1982; Dalcher & Kalnay 1987,
doi 10.3402/tellusa.v39i5.11774).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

from data_pipelines.conventions.attributes import grid_of
from data_pipelines.files.netcdf import read_netcdf, write_netcdf
from data_pipelines.forecasts.layout import LEVELS
from data_pipelines.interfaces import Progress, Source, TwinCase, TwinSource
from data_pipelines.reading.threads import one_thread
from emulators.grid import Grid
from emulators.statistics.area_means import region_weights
from emulators.statistics.climatology import HarmonicClimatology

EDITION = 1  # of the experiment
REGIONS = ("global", "tropics", "northern-hemisphere", "southern-hemisphere")
SOURCES = ("twin", "persistence", "saturation")
FIELDS = 1000  # stored fields to which the climatology is fitted, at most
INTERVAL = np.timedelta64(6, "h")  # between samples
GROWING = 0.9  # share of the saturation up to which the growth law is fitted
SATURATED = 0.95  # share of the saturation at which errors count as saturated


def predictability_path(source: TwinSource) -> Path:
    """Return the path of the file beside the store of `source` that holds its predictability."""
    return source.path.with_suffix(".predictability.nc")


def stored_predictability(source: Source | None) -> xr.Dataset | None:
    """Return the result of an earlier call of `predictability`; None if there is none, or if `source` has no twins."""
    if not isinstance(source, TwinSource) or not (path := predictability_path(source)).is_file():
        return None
    return read_netcdf(path)


def predictability(
    source: TwinSource,
    *,
    cases: int,
    days: int,
    perturbation: float,
    forgotten: Collection[str] = (),
    report: Progress | None = None,
) -> xr.Dataset:
    """Return the RMSE of twins and persistence by lead, and the saturation, for every variable that twins differ in.

    The store of the source must exist. cases, days: number and length of the simulations. perturbation: rms of the
    noise (planet: K of temperature). forgotten: what twins do not know of the state (`TwinSource.hidden`), so that the
    limit is that of emulators which are not given it. Variables are (source, region, lead_time[, level]); attributes
    hold the settings. The result is saved at `predictability_path`, and read from there if the settings are the same.
    """
    if cases < 1 or days < 1 or not perturbation > 0.0:
        raise ValueError(
            "Twins need at least one case and one day, and a perturbation above 0; got "
            f"cases={cases}, days={days}, perturbation={perturbation}."
        )
    if unknown := sorted(set(forgotten) - set(source.hidden)):
        raise ValueError(
            f"Twins of this source can forget {', '.join(source.hidden) or 'nothing'}; got {', '.join(unknown)}."
        )
    settings: dict[str, Any] = {"cases": cases, "days": days, "perturbation": perturbation, "edition": EDITION}
    settings["forgotten"] = ", ".join(sorted(forgotten))
    stored, path = stored_predictability(source), predictability_path(source)
    if stored is not None and all(stored.attrs.get(name) == value for name, value in settings.items()):
        return stored
    leads, dataset = int(days * np.timedelta64(1, "D") / INTERVAL), source.dataset()
    report = report or (lambda label, share: None)
    with one_thread():
        growth = error_growth(source.twins(cases, leads, perturbation, report, forgotten), leads, grid_of(dataset))
        limits = saturation(dataset, [str(name) for name in growth.data_vars])
    result = with_saturation(growth, limits)
    if "level" in dataset.coords:
        attributes = LEVELS[str(dataset.attrs.get("vertical_kind", "none"))]
        result = result.assign_coords(level=("level", dataset["level"].values, attributes))
    for name, field in result.data_vars.items():
        field.attrs["units"] = str(dataset[name].attrs.get("units", ""))
    result.attrs = {"title": "Identical twins and climatological saturation", "truth": source.path.name, **settings}
    write_netcdf(path, result)
    return result


def experiment_summary(settings: Mapping[str, Any]) -> str:
    """Return the settings of `predictability` in words. settings: the settings, or the attributes of a result."""
    cases, days = (
        f"{settings[name]} {word}{'' if settings[name] == 1 else 's'}"
        for name, word in (("cases", "case"), ("days", "day"))
    )
    lacking = f", not knowing {settings['forgotten']}" if settings.get("forgotten") else ""
    return f"{cases} of {days}, disturbed by {settings['perturbation']:g}{lacking}"


def error_growth(cases: Iterable[TwinCase], leads: int, grid: Grid) -> xr.Dataset:
    """Return the RMSE of twins and persistence, (source, region, lead_time[, level]).

    Variables that do not differ between twins (forcing) are omitted.
    """
    weights = region_weights(grid, REGIONS)
    squares: dict[str, np.ndarray] = {}
    count = 0
    for first, control, twin in cases:
        count += 1
        for lead, (truth, perturbed) in enumerate(zip(control, twin, strict=True)):
            for name, field in truth.items():
                errors = np.stack([perturbed[name], first[name]]) - field.astype(np.float64)
                means = (errors**2).reshape(*errors.shape[:-2], -1) @ weights.matrix
                sums = squares.setdefault(name, np.zeros((leads, *means.shape)))
                sums[lead] += means
    variables = {}
    for name, sums in squares.items():
        table = np.moveaxis(np.sqrt(sums / count), (1, -1), (0, 1))  # (source, region, lead[, level])
        if table[0].any():
            variables[name] = (("source", "region", "lead_time", "level")[: table.ndim], table)
    lead_times = (np.arange(1, leads + 1) * INTERVAL).astype("timedelta64[ns]")
    return xr.Dataset(variables, {"source": list(SOURCES[:2]), "region": list(weights.names), "lead_time": lead_times})


def saturation(dataset: xr.Dataset, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return sqrt(2) times the standard deviation about the climatology by name, (region,) or (region, level).

    The climatology is the mean, and for records of about a year or more two annual harmonics and a diurnal one.
    """
    names, grid = list(names), grid_of(dataset)
    matrix = region_weights(grid, REGIONS).matrix
    step = -(-dataset.sizes["time"] // FIELDS) | 1  # odd, so that every hour of the day is sampled
    times = dataset["time"].values[::step].astype("datetime64[s]")
    is_long = times[-1] - times[0] > np.timedelta64(330, "D")
    result = {}
    for name in names:
        fields = torch.from_numpy(dataset[name][::step].values)
        climatology = HarmonicClimatology(annual=2 if is_long else 0, diurnal=1 if is_long else 0)
        climatology.accumulate(times, fields)
        normal = climatology.solve()
        squares = sum(
            (part.double() - normal.evaluate(part_times).double()).square().sum(0)
            for part, part_times in zip(fields.split(100), np.split(times, range(100, len(times), 100)), strict=True)
        )
        variance = np.asarray(squares).reshape(*fields.shape[1:-2], -1) @ matrix / len(times)
        result[name] = np.sqrt(2.0 * np.moveaxis(variance, -1, 0))
    return result


def with_saturation(growth: xr.Dataset, limits: Mapping[str, np.ndarray]) -> xr.Dataset:
    """Add to the curves of `error_growth` the saturation, constant in lead time, as a third source."""
    lines = {}
    for name, field in growth.data_vars.items():
        level = np.expand_dims(limits[str(name)], 1)  # (region, 1[, level])
        line = np.broadcast_to(level, field.shape[1:])[None]
        lines[name] = (field.dims, np.concatenate([field.values, line]))
    return xr.Dataset(lines, {**growth.drop_vars("source").coords, "source": list(SOURCES)})


def doubling_time(curve: np.ndarray, limit: float, days: np.ndarray) -> float:
    """Return the time in days in which small errors double; NaN if they do not grow, or there are too few leads to fit.

    curve: RMSE by lead. limit: the saturation. days: lead times.
    """
    start = int(np.argmin(curve))  # the part of the noise that does not grow decays first
    growing = (np.arange(curve.size) >= start) & (curve > 0.0) & (curve < GROWING * limit)
    if growing.sum() < 3:
        return float("nan")
    logit = np.log(curve[growing] / (limit - curve[growing]))
    rate = float(np.polyfit(days[growing], logit, 1)[0])
    return float(np.log(2.0) / rate) if rate > 0.0 else float("nan")


def crossing_time(curve: np.ndarray, value: float, days: np.ndarray) -> float:
    """Return the time in days at which errors first reach `value`, linear between leads; infinite if they do not."""
    above = np.flatnonzero(curve >= value)
    if not above.size:
        return float("inf")
    index = int(above[0])
    if index == 0:
        return float(days[0])
    share = (value - curve[index - 1]) / (curve[index] - curve[index - 1])
    return float(days[index - 1] + share * (days[index] - days[index - 1]))


class PredictabilityLimits(NamedTuple):
    """Hold the limits of predictability of one field.

    doubling: doubling time of small errors in days. useful: lead in days at which the error equals that of the
    climatology. last: lead in days at which it reaches 95 % of the saturation. saturation: in the field's units.
    """

    doubling: float
    useful: float
    last: float
    saturation: float


def predictability_limits(field: xr.DataArray) -> PredictabilityLimits:
    """Return the limits of one variable, region and level of a result of `predictability`, (source, lead_time)."""
    days = field["lead_time"].values / np.timedelta64(1, "D")
    curve, limit = field.sel(source="twin").values, float(field.sel(source="saturation").values[0])
    useful, last = (crossing_time(curve, share * limit, days) for share in (np.sqrt(0.5), SATURATED))
    return PredictabilityLimits(doubling_time(curve, limit, days), useful, last, limit)


def reference_curves(result: xr.Dataset, longest: np.timedelta64) -> dict[str, xr.Dataset]:
    """Return twin error and saturation up to the lead `longest` as scores, (metric, region, lead_time[, level])."""
    short = result.sel(lead_time=slice(None, longest))
    if not short.sizes["lead_time"]:
        short = result.isel(lead_time=slice(1))
    names = {"predictability": "twin", "saturation": "saturation"}
    return {
        name: short.sel(source=source, drop=True).expand_dims(metric=["rmse"]).assign_attrs(result.attrs)
        for name, source in names.items()
    }
