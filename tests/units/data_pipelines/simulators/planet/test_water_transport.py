"""The planet's humidity is carried without loss, without new extremes, and to the right place."""

import numpy as np
import pytest
import torch

from data_pipelines.reading.threads import one_thread
from data_pipelines.simulators.planet.primitive_equations import Fields, PrimitiveEquations
from data_pipelines.simulators.planet.water_transport import WaterTransport
from data_pipelines.sources.planet import half_levels
from emulators.constants import EARTH_RADIUS, GRAVITY
from emulators.grid import gaussian_grid

HALF = half_levels(5)
GRID = gaussian_grid(16)


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def places(grid=GRID, levels=5):
    latitude = torch.from_numpy(np.deg2rad(grid.latitude))[None, :, None]
    longitude = torch.from_numpy(np.deg2rad(grid.longitude))[:, None, None]
    return latitude, longitude, torch.ones(*grid.shape[::-1], levels, dtype=torch.float64)


def transport(timestep, grid=GRID, half=HALF):
    return WaterTransport(grid, half, timestep, torch.float64, torch.device("cpu"))


def gale():
    """Two states, one timestep apart, of winds across the poles, and of uneven pressure on a mountain."""
    latitude, longitude, one = places()
    height = 3000.0 * latitude.cos() ** 6 * (0.5 + 0.5 * (longitude - 1.0).cos()) ** 3
    equations = PrimitiveEquations(
        GRID, 10, HALF, 3600.0, surface_geopotential=GRAVITY * height[..., 0].T.numpy(), dtype=torch.float64
    )
    u = (30.0 * latitude.cos() + 25.0 * latitude.sin() * longitude.cos()) * one
    v = -25.0 * longitude.sin() * one
    pressure = 1e5 * torch.exp(-height / 8000.0) * one[..., :1]
    state = equations.coefficients(u, v, 280.0 * one, pressure)
    return equations, equations.fields(state, one), equations.fields(equations.step(state), one)


def water(equations, humidity, pressure):
    return float(equations.mean(humidity * pressure) @ equations.layers)


def cloud(width=0.6):
    """Humidity of a blob off the pole, 1e-6 elsewhere."""
    latitude, longitude, one = places()
    distance = torch.arccos((latitude.sin() * 0.94 + latitude.cos() * 0.34 * (longitude - 2.0).cos()).clamp(-1, 1))
    return 1e-6 + 0.01 * (distance < width) * one


def test_uniform_humidity_stays_uniform_and_water_is_conserved():
    equations, before, after = gale()
    move = transport(3600.0)
    uniform = move(before._replace(humidity=0.01 * torch.ones_like(before.u)), after)
    torch.testing.assert_close(uniform, torch.full_like(uniform, 0.01), rtol=1e-11, atol=0.0)
    blob = cloud()
    moved = move(before._replace(humidity=blob), after)
    assert float((moved - blob).abs().max()) > 1e-3
    assert water(equations, moved, after.surface_pressure) == pytest.approx(
        water(equations, blob, before.surface_pressure), rel=1e-14
    )


def test_no_new_extremes_arise():
    _, before, after = gale()
    humidity, move = cloud(), transport(3600.0)
    for _ in range(48):
        humidity = move(before._replace(humidity=humidity), after._replace(surface_pressure=after.surface_pressure))
        before, after = after, after
    assert float(humidity.min()) >= 1e-6 * (1.0 - 1e-9)
    assert float(humidity.max()) <= 0.010001 * (1.0 + 1e-9)


@pytest.mark.parametrize("tilt", [0.0, 0.7, np.pi / 2], ids=["zonal", "oblique", "over the poles"])
def test_solid_body_rotation_takes_a_blob_around(tilt):
    """Williamson et al. 1992, case 1, a quarter turn: the blob's centre of mass is where rotation puts it."""
    grid = gaussian_grid(32)
    latitude, longitude, one = places(grid, 1)
    hours, speed = 72, 0.5 * np.pi * EARTH_RADIUS / (72 * 3600.0)
    u = speed * (latitude.cos() * np.cos(tilt) + longitude.cos() * latitude.sin() * np.sin(tilt)) * one
    v = -speed * longitude.sin() * np.sin(tilt) * one
    axis = np.array([-np.sin(tilt), 0.0, np.cos(tilt)])
    points = torch.stack(
        [latitude.cos() * longitude.cos() * one, latitude.cos() * longitude.sin() * one, latitude.sin() * one], dim=-1
    )
    start = np.array([0.0, -1.0, 0.0])
    pressure = 1e5 * one
    still = Fields(u, v, one, one, pressure, one, one, (one, one))
    humidity = 1e-3 + torch.exp(-8.0 * (1.0 - points @ torch.from_numpy(start)))
    area = torch.from_numpy(grid.weights.T.copy())[..., None]
    move = transport(7200.0, grid, np.array([0.0, 1.0]))
    first = humidity
    for _ in range(hours // 2):
        humidity = move(still._replace(humidity=humidity), still)
    centre = (((humidity - 1e-3) * area)[..., None] * points).sum(dim=(0, 1, 2)).numpy()
    expected = np.cross(axis, start) + axis * (axis @ start)
    assert np.degrees(np.arccos(centre @ expected / np.linalg.norm(centre))) < 2.0
    assert float(humidity.max()) > 0.75 * float(first.max())


def test_air_rises_where_it_converges():
    """Vertical fluxes close the mass of every layer, so that columns gain what the surface pressure does."""
    _, before, after = gale()
    move = transport(3600.0)
    east, south, down = move.fluxes(before, after)
    left = east - east.roll(1, 2)
    left[:-1] += south
    left[1:] -= south
    left[:, :-1] += down
    left[:, 1:] -= down
    rise = (after.surface_pressure - before.surface_pressure).permute(1, 2, 0) * move.area * move.thickness
    torch.testing.assert_close(-left, rise.expand_as(left), rtol=0.0, atol=1e-9 * float(rise.abs().max()))
