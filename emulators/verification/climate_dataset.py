"""The climate of forecasts and of their truth as a Dataset: what `climate.nc` holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from emulators.constants import MONTH
from emulators.grid import LatLonGrid, grid_coordinates, grid_dims
from emulators.physics.transports import QUANTITIES
from emulators.scores.climate import e_folding, pattern_correlation, sensitivity
from emulators.statistics.monthly_fields import MODES, SCALES, ratios
from emulators.statistics.precipitation import CENTRES, PERCENTILES, percentiles, wet_share
from emulators.variables import Variable
from emulators.verification.channels import level_block, level_coordinate
from emulators.verification.climate import ClimateCard

if TYPE_CHECKING:
    import xarray as xr


SOURCES = ("forecast", "truth")
Part = tuple[dict[str, Any], dict[str, Any]]  # arrays and coordinates


def climate_dataset(card: ClimateCard, attributes: Mapping[str, object] | None = None) -> xr.Dataset:
    """Return by variable v: `v` (metric, region[, level]), `v_mean`, `v_std`, `v_trend`, `v_cycle`, `v_return10`,
    `v_zonal_mean`, `v_annual_mean`, `v_monthly_mean` (source, ...), and `nino34` (source, month).

    Of the fields kept month by month, on the dimension `channel`: `scale_std` (source, scale, ...) with `scale_ratio`,
    and `pattern` (source, mode, ...) with its share of the variance. Northward transports (source, latitude), and the
    distribution of precipitation (source, region, rate).

    attributes: of the Dataset, beside those that say what it covers and leaves out.
    """
    import xarray as xr

    scores, absent = card.scores(), card.left_out()
    values = np.stack(list(scores.values()))  # (metric, channel, region)
    arrays: dict[str, Any] = {}
    coords: dict[str, Any] = {
        "metric": list(scores),
        "region": list(card.regions.names),
        "source": list(SOURCES),
        **grid_coordinates(card.grid),
        **level_coordinate(card.variables),
    }
    place = grid_dims(card.grid)
    fields = {name: field.reshape(*field.shape[:2], *card.grid.shape) for name, field in card.maps().items()}
    for kind in {"cosine", "sine", *(kind for kind in ("trend", "cycle") if kind in absent)}:
        del fields[kind]
    annual = None
    if "annual" not in absent:
        means = card.annual_means()
        annual = np.stack([means[:, 1:].mean(axis=1), means[:, 0]])  # (source, year, channel, region)
        coords["year"] = card.years
    series, months = card.monthly_area_means()
    monthly = np.stack([series[:, 1:].mean(axis=1), series[:, 0]])[..., : len(card.regions.names)]
    coords["month"] = months.astype("datetime64[M]").astype("datetime64[ns]")
    for variable in card.variables:
        name, levels = variable.name, ("level",) if variable.levels else ()

        def block(array: np.ndarray, axis: int, variable: Variable = variable) -> np.ndarray:
            return level_block(array, axis, variable, card.variables)

        units = {"units": variable.units}
        arrays[name] = (("metric", *levels, "region"), block(values, 1), units)
        for kind, field in fields.items():
            attrs = {"units": f"{variable.units} decade-1".strip()} if kind == "trend" else units
            arrays[f"{name}_{kind}"] = (("source", *levels, *place), block(field, 1), attrs)
        if len(place) == 2:
            zonal = fields["mean"].mean(axis=-1)
            arrays[f"{name}_zonal_mean"] = (("source", *levels, place[0]), block(zonal, 1), units)
        arrays[f"{name}_monthly_mean"] = (("source", "month", *levels, "region"), block(monthly, 2), units)
        if annual is not None:
            arrays[f"{name}_annual_mean"] = (("source", "year", *levels, "region"), block(annual, 2), units)
    index = card.nino()
    if index is not None:
        arrays |= _nino(index[0])
    for more, places in (_scales(card), _modes(card), _transports(card), _precipitation(card)):
        arrays, coords = arrays | more, coords | places
    return xr.Dataset(arrays, coords, {**_facts(card), **(attributes or {})})


def _nino(index: np.ndarray) -> dict[str, Any]:
    """Return the index (month, truth and members) of both sources, and how much it varies."""
    both = np.stack([index[:, 1:].mean(axis=1), index[:, 0]])
    spread = [np.sqrt(np.nanvar(index[:, 1:], axis=0).mean()), np.nanstd(index[:, 0])]
    return {
        "nino34": (("source", "month"), both, {"units": "K"}),
        "nino34_std": (("source",), np.array(spread), {"units": "K"}),
    }


def _fields_of(card: ClimateCard) -> dict[str, Any]:
    """Return the coordinates of what is known of the fields kept month by month alone."""
    units = [variable.units for variable in card.monthly for _ in variable.channels]
    return {"channel": list(card.monthly.channels), "channel_units": ("channel", units)}


def _scales(card: ClimateCard) -> Part:
    """Return the standard deviation at each time scale, and what area means of its square are over the truth's."""
    variances = card.variances()
    if variances is None:
        return {}, {}
    maps = np.sqrt(np.moveaxis(variances, 2, 0))  # (channel, source, scale, point)
    ratio = np.moveaxis(ratios(variances, card.regions.matrix), 1, 0)
    place = grid_dims(card.grid)
    return {
        "scale_std": (("channel", "source", "scale", *place), maps.reshape(*maps.shape[:3], *card.grid.shape), {}),
        "scale_ratio": (("channel", "scale", "region"), ratio, {"units": "1"}),
    }, {**_fields_of(card), "scale": list(SCALES)}


def _modes(card: ClimateCard) -> Part:
    """Return the leading patterns in the first region, and of each region their shares, errors and likeness."""
    by_region = card.modes()
    if not by_region:
        return {}, {}
    maps = np.stack([modes.maps for modes in next(iter(by_region.values()))])
    place, of_each = grid_dims(card.grid), ("channel", "pattern_region")
    arrays: dict[str, Any] = {
        "pattern": (("channel", "source", "mode", *place), maps.reshape(*maps.shape[:3], *card.grid.shape), {})
    }
    for name, dims in {
        "shares": ("source", "mode"),
        "errors": ("source", "mode"),
        "separate": ("source", "mode"),
        "likeness": ("mode",),
        "along": ("mode",),
        "overlap": (),
    }.items():
        values = [[modes._asdict()[name] for modes in column] for column in zip(*by_region.values(), strict=True)]
        arrays[f"pattern_{name}"] = ((*of_each, *dims), np.array(values, dtype=np.float64), {"units": "1"})
    return arrays, {**_fields_of(card), "pattern_region": list(by_region), "mode": np.arange(1, MODES + 1)}


def _transports(card: ClimateCard) -> Part:
    """Return the northward transports, and how much they vary from year to year."""
    names = card.transports.names
    if not names:
        return {}, {}
    by_suffix, arrays = {"": card.transports.means()}, dict[str, Any]()
    if "interannual" not in card.left_out():
        by_suffix["_interannual_std"] = card.transports.noise(card.years)
    for suffix, values in by_suffix.items():
        for row, name in enumerate(names):
            units, title = QUANTITIES[name]
            attrs = {"units": units} if suffix else {"units": units, "long_name": title}
            arrays[f"{name}{suffix}"] = (("source", "latitude"), values[:, row], attrs)
    return arrays, {}


def _precipitation(card: ClimateCard) -> Part:
    """Return the distributions of frequency and amount by rate, with percentiles, wet share and overlap."""
    if card.precipitation.left_out:
        return {}, {}
    frequency, amount = card.precipitation.distributions()
    by_rate, of_each, rates = ("source", "region", "rate"), ("source", "region"), {"units": "mm day-1"}
    arrays = {
        "precipitation_frequency": (by_rate, frequency, {"units": "1", "long_name": "Share of times and places"}),
        "precipitation_amount": (by_rate, amount, {**rates, "long_name": "Mean precipitation that falls at the rate"}),
        "precipitation_percentile": ((*of_each, "percentile"), percentiles(frequency), rates),
        "precipitation_wet_share": (of_each, wet_share(frequency), {"units": "1", "long_name": "At least 1 mm a day"}),
        "precipitation_overlap": (("region",), np.minimum(*frequency).sum(axis=-1), {"units": "1"}),
    }
    return arrays, {"rate": list(CENTRES), "percentile": list(PERCENTILES)}


def _facts(card: ClimateCard) -> dict[str, object]:
    """Return what the sums cover, what is left out and why, and what the names mean."""
    times = card.times
    return {
        "times": f"{times.size} valid times from {times[0]} to {times[-1]}",
        "whole_years": len(card.years),
        "left_out": "; ".join(f"{name}: {why}" for name, why in card.left_out().items()),
        "definitions": "std about the time mean; trend a decade, beside two harmonics of the year; annual, "
        "interannual and nrmse of whole years; nrmse = nrmse_spatial + 5 nrmse_global (ClimateBench); cycle: the "
        "first harmonic of the year; bias_noise: standard error of the bias by the variance of annual means; "
        "return10: what the largest value of a year exceeds once in 10 years (Gumbel); drift: slope of forecast minus "
        "truth over annual means, a decade, drift_noise its standard error; scale_std: of single times about their "
        "month (days), of the mean season, of the departures of months and of years from it; pattern: what goes with "
        "one standard deviation of a leading mode of monthly departures (EOF), errors of the shares by North et al. "
        "1982, likeness |cosine| of the patterns, along: variance over the truth's along its patterns; overlap: of "
        "distributions, or of the patterns together, 1 where they are the same",
    }


def climate_response(
    run: xr.Dataset,
    control: xr.Dataset,
    variable: str,
    *,
    level: float | None = None,
    region: str | None = None,
    imbalance: Mapping[str, float] | None = None,
) -> xr.Dataset:
    """Measure how a climate answers to a forcing that is switched on at the start of a run and held, or is held in it.

    run, control: of `climate_dataset`, or climate.nc; each has a forecast and its truth. variable: whose warming, at a
    level where it has some. region: of the means; default, the first. imbalance: what the globe gains through the top,
    as variables and the factors that make their sum W m-2, downward positive.

    Returns `warming` (source, month), departures of monthly means from the mean year of the control; `warming_mean`
    over all months; `pattern` (source, ...), departure of the mean at each point over that, and `pattern_correlation`
    of the forecast's with the truth's; `warming_approached` and `e_folding_time` in days, of one layer of heat; with
    `imbalance` and at least three whole years `forcing`, `feedback` and `sensitivity` with its error.

    Raises KeyError for a variable or region that is not there, ValueError for months that the control lacks.
    """
    import xarray as xr

    region = str(run["region"].values[0]) if region is None else region

    def departures(name: str) -> xr.DataArray:
        at = {"region": region, **({} if level is None or "level" not in run[name].dims else {"level": level})}
        ours, usual = (dataset[f"{name}_monthly_mean"].sel(at, drop=True) for dataset in (run, control))
        usual = usual.assign_coords(month=usual["month"].dt.month).groupby("month").mean()
        calendar = ours["month"].dt.month.values
        if absent := sorted({*calendar.tolist()} - {*usual["month"].values.tolist()}):
            raise ValueError(f"The control should have every month of the year that the run has; it lacks {absent}.")
        return ours - usual.sel(month=calendar).assign_coords(month=ours["month"])

    warming = departures(variable)
    mean, change = warming.mean("month"), run[f"{variable}_mean"] - control[f"{variable}_mean"]
    pattern = (change if level is None else change.sel(level=level, drop=True)) / mean
    middles = (warming["month"].values - warming["month"].values[0]) / np.timedelta64(1, "D") + MONTH / 86_400 / 2
    fitted = [e_folding(middles, warming.sel(source=source).values) for source in warming["source"].values]
    arrays: dict[str, Any] = {
        "warming": warming.assign_attrs(units=run[variable].attrs.get("units", "")),
        "warming_mean": mean,
        "pattern": pattern.assign_attrs(units="1"),
        "warming_approached": ("source", np.array([reached for reached, _ in fitted])),
        "e_folding_time": ("source", np.array([days for _, days in fitted]), {"units": "days"}),
    }
    forecast, truth = (pattern.sel(source=source).values.ravel() for source in SOURCES)
    arrays["pattern_correlation"] = pattern_correlation(forecast, truth, _areas(run))
    if imbalance:
        gains = [factor * departures(name) for name, factor in imbalance.items()]
        arrays |= _sensitivity(warming, xr.concat(gains, "term").sum("term"))
    return xr.Dataset(arrays, attrs={"variable": variable, "region": region})


def _areas(dataset: xr.Dataset) -> np.ndarray:
    """Return the areas of the points of a Dataset, (point,)."""
    if "cell_area_weight" in dataset:
        return dataset["cell_area_weight"].values
    return LatLonGrid(dataset["latitude"].values, dataset["longitude"].values).weights.ravel()


def _sensitivity(warming: xr.DataArray, gain: xr.DataArray) -> dict[str, Any]:
    """Return forcing, feedback and sensitivity by source, from means of each twelve months."""
    years = warming.sizes["month"] // 12
    fits = []
    for source in SOURCES:
        series = (
            field.sel(source=source).values[: 12 * years].reshape(years, 12).mean(axis=1) for field in (warming, gain)
        )
        fits.append(sensitivity(*series))
    units = {"forcing": "W m-2", "feedback": "W m-2 K-1", "warming": "K", "error": "K"}
    names = {"warming": "sensitivity", "error": "sensitivity_error"}
    return {
        names.get(name, name): ("source", np.array([fit._asdict()[name] for fit in fits]), {"units": unit})
        for name, unit in units.items()
    }
