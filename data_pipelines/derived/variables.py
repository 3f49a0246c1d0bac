"""Diagnostics: winds, moisture and rain that follow from what is stored, on canonical datasets and forecasts.

On the sphere of radius a, with derivatives centred, periodic in longitude, and through the poles where rows go there,

    vorticity   (d v / d lambda - d (u cos phi) / d phi) / (a cos phi)    at a pole: circulation around it / area
    divergence  (d u / d lambda + d (v cos phi) / d phi) / (a cos phi)    at a pole: outflow from it / area
    transport   1/g |integral of q (u, v) dp|, 300 to 1000 hPa            column vapour: 1/g integral of q dp
    humidity    r / r_s, r = q / (1 - q), r_s = 0.622 e_s / (p - e_s), e_s = 6.112 hPa exp(17.67 (T - T0) / (T - 29.65))
    q from it   RH 0.622 e / (p - 0.378 e), e over water from T0 up, over ice from T0 - 20 K down, linear between

`<name>_weatherbench2` is WeatherBench 2's form (Rasp et al. 2024, arXiv 2308.15560): one-sided differences at 0 and
360 degrees, d/dx u + d/dy v without the convergence of the meridians, no d/dx at the poles, hPa for pressure, a radius
of 6367.5 km. Saturation: Bolton 1980, doi 10.1175/1520-0493(1980)108<1046:TCOEPT>2.0.CO;2; over ice Buck 1981, doi
10.1175/1520-0450(1981)020<1527:NEFCVP>2.0.CO;2. Over water and ice as NCEP's relative humidity is made.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import xarray as xr

from data_pipelines.conventions.dialects import variable_hint
from data_pipelines.conventions.units import in_units, known_units
from emulators.constants import EARTH_RADIUS, GRAVITY
from emulators.grid import LatLonGrid

WEATHERBENCH_RADIUS = 6.3675e6  # m, the mean of 6357 km and 6378 km: that of the derivatives of WeatherBench 2


def surface_pressure(dataset: xr.Dataset) -> xr.DataArray:
    """Surface pressure in Pa from `geopotential` of a canonical dataset on pressure levels, lazily."""
    if "geopotential" not in dataset.data_vars or "level" not in dataset["geopotential"].dims:
        raise ValueError("derive: surface_pressure needs geopotential on at least two pressure levels.")
    if dataset.sizes["level"] < 2:
        raise ValueError("derive: surface_pressure needs at least two levels; the data have one.")
    _refuse_no_pressures(dataset)
    ground = dataset.get("geopotential_at_surface", xr.DataArray(0.0))
    pressure = xr.apply_ufunc(
        _pressure_where,
        dataset["geopotential"].chunk({"time": 1, "level": -1} if "time" in dataset.dims else {"level": -1}),
        ground,
        kwargs={"log_pressure": np.log(100.0 * dataset["level"].values.astype(np.float64))},
        input_core_dims=[["level"], []],
        dask="parallelized",
        output_dtypes=[np.float32],
    )
    return pressure.assign_attrs(units="Pa", standard_name="surface_air_pressure", long_name="Surface pressure")


def _pressure_where(geopotential: np.ndarray, ground: np.ndarray, log_pressure: np.ndarray) -> np.ndarray:
    """Pressure where geopotential, (..., level) from the top down, equals `ground`."""
    below = np.clip((geopotential > np.asarray(ground)[..., None]).sum(axis=-1), 1, log_pressure.size - 1)[..., None]
    upper, lower = (np.take_along_axis(geopotential, i, axis=-1)[..., 0] for i in (below - 1, below))
    log_upper, log_lower = log_pressure[below - 1][..., 0], log_pressure[below][..., 0]
    share = (upper - ground) / (upper - lower)
    return np.exp(log_upper + share * (log_lower - log_upper)).astype(np.float32)


def geopotential(dataset: xr.Dataset) -> xr.DataArray:
    """Geopotential in m2 s-2 from `geopotential_height` of a canonical dataset, lazily."""
    return _times_gravity(dataset, "geopotential_height", "geopotential")


def geopotential_at_surface(dataset: xr.Dataset) -> xr.DataArray:
    """Geopotential of the ground in m2 s-2 from `surface_altitude` of a canonical dataset, lazily."""
    return _times_gravity(dataset, "surface_altitude", "geopotential_at_surface")


def _times_gravity(dataset: xr.Dataset, height: str, name: str) -> xr.DataArray:
    if height not in dataset.data_vars:
        raise ValueError(f"derive: {name} needs {height}; {variable_hint(height, dataset.data_vars)}")
    field = in_units(height, dataset[height], "m" if dataset[height].attrs.get("units") else "m -> m")
    lazy = field.chunk({"time": 1} if "time" in field.dims else {})
    return (lazy * np.float32(GRAVITY)).assign_attrs(units="m2 s-2", long_name=name.replace("_", " "))


def saturation_pressure(temperature: xr.DataArray) -> xr.DataArray:
    """Saturation vapour pressure in hPa over water."""
    exponent = 17.67 * (temperature - 273.15) / (temperature - 29.65)
    return exponent.copy(data=6.112 * np.exp(exponent.data))


def specific_humidity(dataset: xr.Dataset) -> xr.DataArray:
    """Specific humidity in kg kg-1 from `relative_humidity` over water and ice, as NCEP gives it, and temperature."""
    temperature, relative = _needed(dataset, "temperature", "relative_humidity")
    _refuse_no_pressures(dataset)
    relative = in_units("relative_humidity", relative, "1")
    over_ice = 6.1115 * np.exp(22.452 * (temperature - 273.15) / (temperature - 0.6))
    water = ((temperature - 253.16) / 20.0).clip(0.0, 1.0)
    pressure = water * saturation_pressure(temperature) + (1.0 - water) * over_ice
    return _named(relative * 0.622 * pressure / (dataset["level"] - 0.378 * pressure), "kg kg-1", "Specific humidity")


DERIVED = {
    "surface_pressure": surface_pressure,
    "geopotential": geopotential,
    "geopotential_at_surface": geopotential_at_surface,
    "specific_humidity": specific_humidity,
}
WIND, WIND_10M = (
    ("u_component_of_wind", "v_component_of_wind"),
    ("10m_u_component_of_wind", "10m_v_component_of_wind"),
)
GEOPOTENTIAL, HUMIDITY = "geopotential", "specific_humidity"
ROWS = ["latitude", "longitude"]
STEP = 6  # h, of precipitation that is summed


def wind_speed(dataset: xr.Dataset, names: tuple[str, str] = WIND) -> xr.DataArray:
    """Speed in m s-1."""
    u, v = _needed(dataset, *names)
    return _named(_length(u, v), "m s-1", "Wind speed")


def vorticity(dataset: xr.Dataset) -> xr.DataArray:
    """Relative vorticity in s-1."""
    return _named(_on_rows(_curl, dataset, *_needed(dataset, *WIND)), "s-1", "Relative vorticity")


def divergence(dataset: xr.Dataset) -> xr.DataArray:
    """Divergence of the wind in s-1."""
    return _named(_on_rows(_divergence, dataset, *_needed(dataset, *WIND)), "s-1", "Divergence")


def vorticity_weatherbench2(dataset: xr.Dataset) -> xr.DataArray:
    """d v / dx - d u / dy in s-1."""
    u, v = _needed(dataset, *WIND)
    return _named(_d_dx(v) - _d_dy(u), "s-1", "Relative vorticity, WeatherBench 2")


def divergence_weatherbench2(dataset: xr.Dataset) -> xr.DataArray:
    """d u / dx + d v / dy in s-1."""
    u, v = _needed(dataset, *WIND)
    return _named(_d_dx(u) + _d_dy(v), "s-1", "Divergence, WeatherBench 2")


def integrated_vapor_transport(dataset: xr.Dataset) -> xr.DataArray:
    """Horizontal transport of vapour in the column between 300 and 1000 hPa, in kg m-1 s-1."""
    q, u, v = (_between(field, 300.0, 1000.0) for field in _needed(dataset, HUMIDITY, *WIND))
    fluxes = [_over_pressure(q * component) for component in (u, v)]
    return _named(_length(*fluxes) / GRAVITY, "kg m-1 s-1", "Integrated vapour transport")


def integrated_vapor_transport_weatherbench2(dataset: xr.Dataset) -> xr.DataArray:
    """The same with pressure in hPa and g = 9.81 m s-2."""
    transport = integrated_vapor_transport(dataset) * (GRAVITY / 9.81 / 100.0)
    return _named(transport, "0.01 kg m-1 s-1", "Integrated vapour transport, WeatherBench 2")


def total_column_vapor(dataset: xr.Dataset) -> xr.DataArray:
    """Vapour of the column between the outer levels, in kg m-2."""
    (q,) = _needed(dataset, HUMIDITY)
    return _named(abs(_over_pressure(q)) / GRAVITY, "kg m-2", "Total column vapour")


def relative_humidity(dataset: xr.Dataset) -> xr.DataArray:
    """Relative humidity over water, a share of 1."""
    temperature, q = _needed(dataset, "temperature", HUMIDITY)
    _refuse_no_pressures(dataset)
    saturation = saturation_pressure(temperature)
    return _named(q / (1 - q) / (0.622 * saturation / (dataset["level"] - saturation)), "1", "Relative humidity")


def geopotential_thickness(dataset: xr.Dataset) -> xr.DataArray:
    """Geopotential at 500 hPa less that at 1000 hPa, in m2 s-2."""
    (geopotential,) = _needed(dataset, GEOPOTENTIAL)
    _refuse_no_pressures(dataset)
    absent = {500.0, 1000.0} - set(geopotential["level"].values.tolist() if "level" in geopotential.dims else ())
    if absent:
        raise ValueError(
            f"derive: geopotential_thickness needs geopotential at {', '.join(f'{x:g}' for x in absent)} hPa."
        )
    upper, lower = (geopotential.sel(level=level, drop=True) for level in (500.0, 1000.0))
    return _named(upper - lower, "m2 s-2", "Thickness from 1000 to 500 hPa")


def eddy_kinetic_energy_weatherbench2(dataset: xr.Dataset) -> xr.DataArray:
    """Integral over pressure in hPa of half the squared departure from the zonal mean, in m2 s-2 hPa."""
    _refuse_no_pressures(dataset)
    squares = [(c - c.mean("longitude")) ** 2 for c in _needed(dataset, *WIND)]
    return _named(0.5 * abs((squares[0] + squares[1]).integrate("level")), "hPa m2 s-2", "Eddy kinetic energy")


def geostrophic_wind(geopotential: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """u and v in m s-1 in WeatherBench 2's form; infinite on the equator."""
    rotation = 2 * 7.292e-5 * np.sin(np.deg2rad(geopotential["latitude"]))
    return -_d_dy(geopotential) / rotation, _d_dx(geopotential) / rotation


def geostrophic_wind_speed_weatherbench2(dataset: xr.Dataset) -> xr.DataArray:
    """Speed of the geostrophic wind in m s-1."""
    return _named(_length(*geostrophic_wind(*_needed(dataset, GEOPOTENTIAL))), "m s-1", "Geostrophic wind speed")


def ageostrophic_wind_speed_weatherbench2(dataset: xr.Dataset) -> xr.DataArray:
    """Speed of what the wind has beyond the geostrophic one, in m s-1."""
    u, v, geopotential = _needed(dataset, *WIND, GEOPOTENTIAL)
    along, across = geostrophic_wind(geopotential)
    return _named(_length(u - along, v - across), "m s-1", "Ageostrophic wind speed")


def summed(dataset: xr.Dataset, name: str, hours: int) -> xr.DataArray:
    """Sum of a flux over `hours`, along lead times of a forecast, else times; NaN where it starts too early."""
    (flux,) = _needed(dataset, f"{name}_{STEP}hr")
    dim = "prediction_timedelta" if "prediction_timedelta" in flux.dims else "time"
    times, before = flux[dim].values, hours // STEP - 1
    steps = np.diff(times) / np.timedelta64(1, "h")
    if not steps.size or np.median(steps) != STEP:
        steps_text = ", ".join(f"{step:g}" for step in np.unique(steps)[:4]) or "none"
        raise ValueError(f"Sums of {flux.name} need {dim} every {STEP} h; got steps of {steps_text} h.")
    shifted = [flux.shift({dim: n}) for n in range(before + 1)]
    is_complete = np.zeros(times.size, dtype=bool)  # no gap among what is summed
    is_complete[before:] = (times[before:] - times[: times.size - before]) / np.timedelta64(1, "h") == STEP * before
    total = sum(shifted[1:], shifted[0]).where(xr.DataArray(is_complete, dims=dim))
    attributes = {key: flux.attrs[key] for key in ("units", "positive") if key in flux.attrs}
    cell = f"time: sum (interval: {hours} hours)"
    return total.assign_attrs(attributes, cell_methods=cell, long_name=f"{name} over {hours} h")


def logarithm(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """ln(1 + x / 1 mm) of an amount x in m, as Aurora 1.5 reads and writes it; x is expm1 of it times 1 mm."""
    (amount,) = _needed(dataset, name)
    millimetres = 1000.0 * in_units(name, amount, "m").clip(min=0.0)
    return _named(xr.apply_ufunc(np.log1p, millimetres), "1", f"ln(1 + {name} / mm)")


def insolation(dataset: xr.Dataset) -> xr.DataArray:
    """Sine of the sun's height times the squared inverse of its distance, a share of 1, as Aurora 1.5 reads it."""
    from emulators.physics.insolation import relative_insolation

    valid, places = dataset["time"], [dataset[name] for name in ROWS]
    if "prediction_timedelta" in dataset.dims:
        valid = valid + dataset["prediction_timedelta"]
    values = relative_insolation(valid.values, *(place.values for place in places))
    field = xr.DataArray(values.astype(np.float32), dims=(*valid.dims, *ROWS))
    return _named(field.assign_coords({name: dataset[name] for name in field.dims}), "1", "Relative insolation")


DIAGNOSTICS: dict[str, Callable[[xr.Dataset], xr.DataArray]] = {
    "wind_speed": wind_speed,
    "10m_wind_speed": partial(wind_speed, names=WIND_10M),
    "vorticity": vorticity,
    "divergence": divergence,
    "integrated_vapor_transport": integrated_vapor_transport,
    "total_column_vapor": total_column_vapor,
    "relative_humidity": relative_humidity,
    "geopotential_thickness": geopotential_thickness,
    "vorticity_weatherbench2": vorticity_weatherbench2,
    "divergence_weatherbench2": divergence_weatherbench2,
    "integrated_vapor_transport_weatherbench2": integrated_vapor_transport_weatherbench2,
    "eddy_kinetic_energy_weatherbench2": eddy_kinetic_energy_weatherbench2,
    "geostrophic_wind_speed_weatherbench2": geostrophic_wind_speed_weatherbench2,
    "ageostrophic_wind_speed_weatherbench2": ageostrophic_wind_speed_weatherbench2,
    "insolation": insolation,
}
AMOUNTS = ("snow_depth", "total_precipitation_1hr", "snowfall_1hr")
DIAGNOSTICS |= {f"log_{name}": partial(logarithm, name=name) for name in AMOUNTS}
FLUXES = ("total_precipitation", "evaporation", "sensible_heat_flux", "net_radiation", "friction")
SUMS = {f"{name}_{hours}hr": (name, hours) for name in FLUXES for hours in (12, 24)}
DIAGNOSTICS |= {name: partial(summed, name=flux, hours=hours) for name, (flux, hours) in SUMS.items()}
BEFORE = {name: hours // STEP - 1 for name, (_, hours) in SUMS.items()}  # positions read before each


def _needed(dataset: xr.Dataset, *names: str) -> list[xr.DataArray]:
    """Return the fields; ValueError names those that are missing."""
    absent = [name for name in names if name not in dataset]
    if absent:
        raise ValueError(f"derive: needs {', '.join(names)}; the data lack {', '.join(absent)}.")
    return [dataset[name] for name in names]


def _named(field: xr.DataArray, units: str, name: str) -> xr.DataArray:
    return field.assign_attrs(units=units, long_name=name)


def _refuse_no_pressures(data: xr.Dataset | xr.DataArray) -> None:
    """Raise ValueError where levels have units of something else than pressure."""
    units = str(data["level"].attrs.get("units", "")) if "level" in data.coords else ""
    parsed = known_units(units)
    if parsed is not None and parsed[0] not in ("pressure", "ratio"):
        raise ValueError(f"derive: expected levels of pressure, got levels in {units}; take data on pressure levels.")


def _between(field: xr.DataArray, top: float, bottom: float) -> xr.DataArray:
    return field.isel(level=np.flatnonzero((field["level"].values >= top) & (field["level"].values <= bottom)))


def _over_pressure(field: xr.DataArray) -> xr.DataArray:
    """Integral over pressure in Pa, by trapezoids between the levels in hPa."""
    _refuse_no_pressures(field)
    return 100.0 * field.integrate("level")


def _length(x: xr.DataArray, y: xr.DataArray) -> xr.DataArray:
    return (x**2 + y**2) ** 0.5


def _on_rows(operator: Callable, dataset: xr.Dataset, u: xr.DataArray, v: xr.DataArray) -> xr.DataArray:
    """A differential operator of the wind on the sphere, map by map."""
    grid = LatLonGrid(dataset["latitude"].values, dataset["longitude"].values)
    return xr.apply_ufunc(
        partial(operator, grid=grid), u, v, input_core_dims=[ROWS, ROWS], output_core_dims=[ROWS],
    ).transpose(*u.dims)  # fmt: skip


def _curl(u: np.ndarray, v: np.ndarray, grid: LatLonGrid) -> np.ndarray:
    return _divergence(v, -u, grid)


def _divergence(u: np.ndarray, v: np.ndarray, grid: LatLonGrid) -> np.ndarray:
    """The divergence of (u, v), (..., lat, lon); on a pole what flows through the next row over the area within."""
    u, v = u.astype(np.float64), v.astype(np.float64)
    latitude, longitude = np.deg2rad(grid.latitude), np.unwrap(np.deg2rad(grid.longitude))
    cosine = np.cos(latitude)
    if grid.is_cyclic:
        width = 2 * np.pi
        around = np.concatenate([[longitude[-1] - width], longitude, [longitude[0] + width]])
        along = np.gradient(np.concatenate([u[..., -1:], u, u[..., :1]], axis=-1), around, axis=-1)[..., 1:-1]
    else:
        along = np.gradient(u, longitude, axis=-1)
    flow = v * cosine[:, None]
    poles = [grid.kind != "limited_area" and abs(abs(float(row)) - 90.0) > 1e-6 for row in grid.latitude[[0, -1]]]
    ends = [np.zeros_like(flow[..., :1, :]) if beyond else flow[..., :0, :] for beyond in poles]  # cos phi = 0 there
    rows = np.concatenate([[np.pi / 2]] * poles[0] + [latitude] + [[-np.pi / 2]] * poles[1])
    across = np.gradient(np.concatenate([ends[0], flow, ends[1]], axis=-2), rows, axis=-2)
    across = across[..., int(poles[0]) : across.shape[-2] - int(poles[1]), :]
    with np.errstate(divide="ignore", invalid="ignore"):
        result = (along + across) / (EARTH_RADIUS * cosine[:, None])
    for pole, row, sign in ((0, 1, -1.0), (-1, -2, 1.0)):
        if abs(abs(grid.latitude[pole]) - 90.0) <= 1e-6:
            cap = EARTH_RADIUS * (1.0 - abs(np.sin(latitude[row])))
            result[..., pole, :] = sign * (flow[..., row, :].mean(axis=-1) / cap)[..., None]
    return result


def _d_dx(field: xr.DataArray) -> xr.DataArray:
    """Eastward derivative of WeatherBench 2, per m."""
    cosine = np.cos(np.deg2rad(field["latitude"]))
    slope = field.differentiate("longitude") / cosine / (2 * np.pi * WEATHERBENCH_RADIUS / 360)
    return slope.where(cosine > 1e-6, 0.0)


def _d_dy(field: xr.DataArray) -> xr.DataArray:
    """Northward derivative of WeatherBench 2, per m."""
    return field.differentiate("latitude") / (2 * np.pi * WEATHERBENCH_RADIUS / 360)
