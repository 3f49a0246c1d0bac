"""What portraits of a planet show: energy by scale, pressure at sea level, lows, seasons; and true maps and colours."""

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.display.palette import from_oklab, oklab, uniform
from data_pipelines.inspection.picture_fields import (
    SphericalInterpolation,
    kinetic_energy,
    low_pressure_centres,
    require_variables,
    sea_level_pressure,
    water_vapour,
    zonal_means,
)
from data_pipelines.sources.planet import half_levels
from emulators.constants import GRAVITY
from emulators.grid import LatLonGrid, equiangular_grid, gaussian_grid
from emulators.sphere.calculus import SphericalCalculus

GRID = gaussian_grid(16)


def weather(times: int = 2, start: str = "2001-01-01", grid: LatLonGrid = GRID) -> xr.Dataset:
    """Flow of a random vorticity and divergence on three sigma levels, the same on every grid."""
    calculus = SphericalCalculus(grid, 11, 11, torch.float64)
    flow = 1e-5 * torch.randn(22, 11, 6 * times, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flow[torch.arange(22)[:, None] // 2 > torch.arange(11)] = 0.0
    flow[1], flow[:, 0] = 0.0, 0.0
    winds = calculus.winds(*(part.contiguous() for part in flow.chunk(2, dim=2)))
    u, v = (wind.permute(2, 1, 0).reshape(times, 3, *grid.shape) for wind in winds)
    column, surface = ("time", "level", "latitude", "longitude"), ("time", "latitude", "longitude")
    pressure = 1e5 + 1e3 * np.random.default_rng(0).normal(size=(times, *grid.shape))
    fields = {
        "u_component_of_wind": (column, u.numpy()),
        "v_component_of_wind": (column, v.numpy()),
        "temperature": (column, np.full(u.shape, 280.0)),
        "specific_humidity": (column, np.full(u.shape, 0.004)),
        "surface_pressure": (surface, pressure),
    }
    half = half_levels(3)
    when = np.datetime64(start, "ns") + np.arange(times) * np.timedelta64(6, "h")
    coordinates = {"time": when, "level": 500.0 * (half[1:] + half[:-1])}
    coordinates |= {"latitude": grid.latitude, "longitude": grid.longitude}
    attributes = {"vertical_kind": "sigma", "vertical_a": [0.0] * 4, "vertical_b": half.tolist()}
    return xr.Dataset(fields, coordinates, attributes)


def test_kinetic_energy_by_degree_adds_up_to_that_of_the_wind() -> None:
    dataset = weather()
    level = float(dataset.level[1])
    energy = kinetic_energy(dataset, level)
    wind = dataset.sel(level=level)
    squares = 0.5 * (wind.u_component_of_wind**2 + wind.v_component_of_wind**2).mean("time").values
    assert energy.sum() == pytest.approx(float((squares * GRID.weights).mean()), rel=1e-10)
    assert energy[0] == 0.0
    assert (energy[1:11] > 0.0).all()
    assert energy[11:].max() < 1e-12 * energy.max()
    elsewhere = kinetic_energy(weather(grid=equiangular_grid(16)), level)
    np.testing.assert_allclose(elsewhere[:11], energy[:11], rtol=1e-8)
    single = dataset.sel(level=level, drop=True)
    np.testing.assert_array_equal(kinetic_energy(single, None), energy)
    with pytest.raises(ValueError, match="no u_component_of_wind"):
        kinetic_energy(single.drop_vars("u_component_of_wind"), None)


def test_pressure_at_sea_level_and_water_of_sigma_levels() -> None:
    dataset = weather()
    np.testing.assert_array_equal(sea_level_pressure(dataset), dataset.surface_pressure)
    ground = np.where(np.arange(32) < 8, 1000.0 * GRAVITY, 0.0)
    raised = dataset.assign(geopotential_at_surface=(("latitude", "longitude"), np.tile(ground, (16, 1))))
    more = sea_level_pressure(raised) / dataset.surface_pressure.values
    assert ((more[..., :8] > 1.11) & (more[..., :8] < 1.14)).all()
    assert (more[..., 8:] == 1.0).all()
    np.testing.assert_allclose(water_vapour(dataset), 0.004 * dataset.surface_pressure / GRAVITY, rtol=1e-12)
    given = dataset.assign(mean_sea_level_pressure=dataset.surface_pressure + 1.0)
    np.testing.assert_array_equal(sea_level_pressure(given), dataset.surface_pressure + 1.0)
    with pytest.raises(ValueError, match="levels other than sigma"):
        sea_level_pressure(dataset.assign_attrs(vertical_kind="pressure"))
    with pytest.raises(ValueError, match="no specific_humidity"):
        water_vapour(dataset.drop_vars("specific_humidity"))
    with pytest.raises(ValueError, match="no rain and no snow"):
        require_variables(dataset, "rain", "temperature", "snow")


def test_lows_are_centres_apart_from_each_other() -> None:
    grid = equiangular_grid(90)
    latitude, longitude = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")

    def dip(y: float, x: float, depth: float, width: float = 8.0) -> np.ndarray:
        away = (longitude - x + 180.0) % 360.0 - 180.0
        return -depth * np.exp(-((latitude - y) ** 2 + (away * np.cos(np.deg2rad(y))) ** 2) / width**2)

    places = [
        (50.0, 2.0, 6000.0),
        (-55.0, 200.0, 4000.0),
        (5.0, 100.0, 8000.0),
        (60.0, 180.0, 300.0),
        (53.0, 14.0, 5e3),
    ]
    pressure = 1e5 + sum(dip(*place, width=5.0) for place in places)
    found = low_pressure_centres(pressure, grid, deepest=99000.0, apart=12.0, most=5)
    centres = [(grid.latitude[row], grid.longitude[column]) for row, column in found]
    assert len(centres) == 2, "neither the tropical one, nor the shallow one, nor one beside a deeper one"
    np.testing.assert_allclose(centres, [(50.0, 2.0), (-55.0, 200.0)], atol=2.1)
    assert len(low_pressure_centres(pressure, grid, deepest=99000.0, apart=2.0, most=5)) == 3
    assert len(low_pressure_centres(pressure, grid, deepest=99000.0, apart=2.0, most=1)) == 1


def test_zonal_means_are_of_two_seasons_where_there_are_two() -> None:
    (mean,) = zonal_means(weather(8))
    assert mean.name == "all times"
    np.testing.assert_allclose(mean.wind, weather(8).u_component_of_wind.mean(("time", "longitude")), rtol=1e-6)
    year = weather(4).isel(time=np.zeros(1461, dtype=int))
    year = year.assign_coords(time=np.datetime64("2001-01-01", "ns") + np.arange(1461) * np.timedelta64(6, "h"))
    winter, summer = zonal_means(year)
    assert (winter.name[:8], summer.name[:4]) == ("December", "June")
    assert winter.wind.shape == (3, 16)


def test_fine_grid_keeps_the_field_and_its_bounds() -> None:
    smooth = SphericalInterpolation(GRID, 40)
    wave = np.cos(np.deg2rad(GRID.latitude))[:, None] ** 2 * np.cos(2 * np.deg2rad(GRID.longitude))
    expected = np.cos(np.deg2rad(smooth.grid.latitude))[:, None] ** 2 * np.cos(2 * np.deg2rad(smooth.grid.longitude))
    np.testing.assert_allclose(smooth(wave), expected, atol=1e-12)
    assert smooth(wave, least=0.0).min() == 0.0
    spike = np.zeros(GRID.shape)
    spike[7, 3] = 1.0
    assert smooth(spike, soft=True).min() > 0.4 * smooth(spike).min()
    assert smooth.grid.longitude[0] == pytest.approx(0.5 * 360.0 / 80)


def test_colours_step_evenly() -> None:
    colours = uniform(["#0a0f1f", "#22638f", "#fbfbf2"])(np.linspace(0.0, 1.0, 256))[:, :3]
    steps = np.linalg.norm(np.diff(oklab(colours), axis=0), axis=1)
    assert steps.std() < 0.05 * steps.mean()
    np.testing.assert_allclose(colours[[0, -1]] * 255, [[10, 15, 31], [251, 251, 242]], atol=1e-6)
    np.testing.assert_allclose(oklab(np.ones(3)), [1.0, 0.0, 0.0], atol=1e-6)
    some = np.random.default_rng(0).random((5, 3))
    np.testing.assert_allclose(from_oklab(oklab(some)), some, atol=1e-9)
