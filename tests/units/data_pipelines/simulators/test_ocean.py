"""The ocean's equations: closed budgets, rest, speeds of equatorial waves, Sverdrup's balance, and its forcing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_pipelines.simulators.ocean.layers import DENSITY, LayeredOcean, OceanConstants, SurfaceFluxes
from data_pipelines.simulators.ocean.trajectories import between_grids
from emulators.constants import EARTH_RADIUS, GRAVITY, ROTATION_RATE
from emulators.grid import LatLonGrid, equiangular_grid

BETA = 2.0 * ROTATION_RATE / EARTH_RADIUS  # at the equator
STILL = {
    "viscosity": 0.0, "diffusivity": 0.0, "eddies": 0.0, "vertical": 0.0, "friction": 0.0, "drag": 0.0, "least": 0.0,
    "overturning": 1e12, "advection": False,
}  # fmt: skip


def basin(rows: int = 24) -> tuple[LatLonGrid, np.ndarray]:
    """A coarse globe with a continent across all latitudes and land around the poles."""
    grid = equiangular_grid(rows)
    sea = np.broadcast_to((np.abs(grid.latitude) < 70.0)[:, None], grid.shape).copy()
    sea[:, :8] = False
    return grid, sea


def fluxes(ocean: LayeredOcean, **values: torch.Tensor | float) -> SurfaceFluxes:
    nothing = torch.zeros(1, *ocean.grid.shape, dtype=ocean.dtype)
    parts = dict.fromkeys(("east", "north", "heat", "water", "target"), nothing)
    return SurfaceFluxes(**{**parts, **values})  # type: ignore[arg-type]


def warm(grid: LatLonGrid) -> np.ndarray:
    return 275.0 + 25.0 * np.cos(np.deg2rad(grid.latitude))[:, None] ** 2 * np.ones(grid.shape)


def test_volume_heat_and_salt_are_closed() -> None:
    grid, sea = basin()
    ocean = LayeredOcean(grid, sea, 7200.0)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4, 1, *grid.shape, generator=generator, dtype=torch.float64)
    weather = fluxes(
        ocean, east=0.2 * noise[0], north=0.1 * noise[1], heat=100.0 * noise[2], water=1e-7 * noise[3],
        target=torch.from_numpy(warm(grid))[None], restoring=40.0,
    )  # fmt: skip
    state = ocean.at_rest(warm(grid), 35.0)
    before, gained = (state[:, :3].sum(2) * ocean.area * ocean.sea).sum((-1, -2)), torch.zeros(1, 3).double()
    for _ in range(40):
        state, surface, abyss = ocean.step(state, weather)
        gained += ocean.seconds * ((surface + abyss) * ocean.area).sum((-1, -2))
    after = (state[:, :3].sum(2) * ocean.area * ocean.sea).sum((-1, -2))
    assert (state[:, 3:].abs() > 1e-3).any(), "currents have arisen"
    assert ((after - before - gained).abs() <= 1e-12 * before.abs()).all()


def test_an_ocean_at_rest_stays_at_rest() -> None:
    grid, sea = basin()
    ocean = LayeredOcean(grid, sea, 7200.0, OceanConstants(vertical=0.0))
    state = ocean.at_rest(np.full(grid.shape, 290.0), 35.0)
    after = state
    for _ in range(10):
        after, _, _ = ocean.step(after, fluxes(ocean))
    assert torch.equal(after, state)


def test_temperatures_stay_within_their_bounds_where_currents_carry_them() -> None:
    grid, sea = basin()
    ocean = LayeredOcean(grid, sea, 7200.0, OceanConstants(vertical=0.0, diffusivity=0.0))
    state = ocean.at_rest(warm(grid), 35.0)
    wind = torch.from_numpy(-0.2 * np.cos(3.0 * np.deg2rad(grid.latitude)))[:, None].expand(grid.shape)[None]
    least, most = ocean.temperature(state)[..., ocean.sea > 0].aminmax()
    for _ in range(100):
        state, _, _ = ocean.step(state, fluxes(ocean, east=wind))
    found = ocean.temperature(state)[..., ocean.sea > 0]
    assert found.min() >= least - 0.02
    assert found.max() <= most + 0.02


def equatorial(speed: float) -> tuple[LayeredOcean, float]:
    """One layer around the equator in which long gravity waves have the given speed, and its depth."""
    depth, warmer = 200.0, 20.0
    expansion = speed**2 / depth / GRAVITY / warmer
    constants = OceanConstants((depth,), (280.0, 35.0), expansion, **STILL)  # type: ignore[arg-type]
    grid = LatLonGrid(np.arange(24.5, -25.0, -1.0), np.arange(0.0, 360.0, 4.0))
    return LayeredOcean(grid, np.ones(grid.shape, bool), 1800.0, constants), depth


def structure(order: int, y: np.ndarray) -> np.ndarray:
    """Hermite polynomial times a Gaussian."""
    return np.polynomial.hermite.hermval(y, [0.0] * order + [1.0]) * np.exp(-0.5 * y**2)


@pytest.mark.parametrize("order", [-1, 1], ids=["Kelvin", "Rossby"])
@pytest.mark.slow
def test_equatorial_waves_have_the_speed_of_matsuno(order: int) -> None:
    """Matsuno 1966, doi 10.2151/jmsj1965.44.1_25: eigenmodes of wavenumber 3, on the sphere within 25 degrees."""
    speed = 2.5
    ocean, depth = equatorial(speed)
    grid, length, time = ocean.grid, np.sqrt(speed / BETA), 1.0 / np.sqrt(speed * BETA)
    k = 3.0 / EARTH_RADIUS * length
    if order < 0:
        omega = k
    else:
        roots = np.roots([1.0, 0.0, -(k**2 + 2 * order + 1), -k])
        omega = float(roots[np.argmin(np.abs(roots))].real)  # the slowest, westward
    latitude, longitude = (np.deg2rad(axis) for axis in (grid.latitude, grid.longitude))
    spacing = longitude[1] - longitude[0]
    y, y_face = (EARTH_RADIUS / length * np.asarray(part)[:, None] for part in (latitude, latitude + np.deg2rad(0.5)))

    def field(amplitude: np.ndarray, shift: float = 0.0) -> torch.Tensor:
        return torch.from_numpy((amplitude * np.exp(3j * (longitude + shift * spacing))).real.copy())

    if order < 0:
        height, u, v = structure(0, y), structure(0, y), np.zeros_like(y_face)
    else:
        fore, aft = structure(order + 1, y) / (omega - k), 2 * order * structure(order - 1, y) / (omega + k)
        height, u, v = 0.5j * (fore - aft), 0.5j * (fore + aft), structure(order, y_face)
        scale = np.abs(height).max()
        height, u, v = height / scale, u / scale, v / scale
    state = ocean.at_rest(np.full(grid.shape, 300.0), 35.0)
    state[0, 0, 0] += 1.0 * field(height)
    state[0, 1, 0] = state[0, 0, 0] * 20.0
    state[0, 3, 0], state[0, 4, 0] = (speed / depth * part for part in (field(u, 0.5), field(v)))
    state[0, 4, 0, 0] = 0.0
    row = np.argmin(np.abs(grid.latitude - (0.5 if order < 0 else 4.5)))

    def phase(present: torch.Tensor) -> float:
        return float(np.angle(np.fft.fft(present[0, 0, 0, row].numpy() - depth)[3]))

    days, before, turned = (4.0 if order < 0 else 12.0), phase(state), 0.0
    for _ in range(round(days * 86400.0 / ocean.seconds)):
        state, _, _ = ocean.step(state, fluxes(ocean))
        now = phase(state)
        turned += np.mod(now - before + np.pi, 2.0 * np.pi) - np.pi
        before = now
    assert -turned / (days * 86400.0) == pytest.approx(omega / time, rel=0.03)


@pytest.mark.slow
def test_a_steady_wind_drives_the_transport_of_sverdrup_closed_at_the_western_wall() -> None:
    """Sverdrup 1947, doi 10.1073/pnas.33.11.318; Munk 1950, doi 10.1175/1520-0469(1950)007<0080:OTWDOC>2.0.CO;2."""
    expansion = 9.0**2 / 500.0 / GRAVITY / 20.0
    constants = OceanConstants((500.0,), (280.0, 35.0), expansion, **{**STILL, "viscosity": 1e5})  # type: ignore[arg-type]
    grid = LatLonGrid(np.arange(49.0, 10.0, -2.0), np.arange(0.0, 44.0, 2.0))
    sea = np.ones(grid.shape, bool)
    sea[:, :2] = sea[:, -2:] = False
    ocean = LayeredOcean(grid, sea, 4800.0, constants)
    latitude = np.deg2rad(grid.latitude)
    angle = np.pi * (latitude - latitude.min()) / np.ptp(latitude)
    east = torch.from_numpy(-0.01 * np.cos(angle))[:, None].expand(grid.shape)[None]
    state = ocean.at_rest(np.full(grid.shape, 300.0), 35.0)
    for _ in range(5000):
        state, _, _ = ocean.step(state, fluxes(ocean, east=east))
    row = len(latitude) // 2
    through = (state[0, 0, 0] * state[0, 4, 0] * ocean.length_north)[row].numpy()  # at the northern face
    face = latitude[row] + np.deg2rad(1.0)
    stress = [
        -0.01 * np.cos(np.pi * (place - latitude.min()) / np.ptp(latitude)) for place in latitude[row - 1 : row + 1]
    ]
    curl = -(stress[0] * np.cos(latitude[row - 1]) - stress[1] * np.cos(latitude[row])) / (
        EARTH_RADIUS * np.deg2rad(2.0) * np.cos(face)
    )
    expected = curl / DENSITY / (BETA * np.cos(face)) * float(ocean.length_north[row])
    interior = through[10:18]
    assert interior.mean() == pytest.approx(expected, rel=0.05)
    assert abs(through.sum()) < 0.02 * np.abs(through).sum(), "what goes south comes back north"
    assert through[2:6].sum() > 0.7 * -interior.mean() * 13, "along the western wall"


def test_a_timestep_that_is_too_long_is_refused() -> None:
    grid, sea = basin()
    with pytest.raises(ValueError, match="timestep of 600 minutes is too long"):
        LayeredOcean(grid, sea, 36_000.0)


def test_fields_that_are_linear_between_points_are_found_on_another_grid() -> None:
    source, target = equiangular_grid(16), equiangular_grid(24)
    found = between_grids(np.broadcast_to(source.latitude[:, None], source.shape), source, target)
    inside = np.abs(target.latitude) <= source.latitude.max()
    np.testing.assert_allclose(
        found[inside], np.broadcast_to(target.latitude[:, None], target.shape)[inside], atol=1e-9
    )
    waves = np.cos(np.deg2rad(source.longitude))[None] * np.ones(source.shape)
    wanted = np.cos(np.deg2rad(target.longitude))[None] * np.ones(target.shape)
    np.testing.assert_allclose(between_grids(waves, source, target), wanted, atol=0.03)
