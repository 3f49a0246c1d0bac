"""Northward transports: of flows and gains whose integrals are known, of what is missing, by year and by member."""

from dataclasses import replace

import numpy as np
import torch

from emulators.constants import EARTH_RADIUS, GRAVITY, HEAT_CAPACITY_DRY, LATENT_HEAT_VAPORISATION
from emulators.grid import PointGrid, gaussian_grid
from emulators.physics.transports import QUANTITIES, Transports
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.verification.climate import YearlyTransports
from emulators.world import Vertical, World

GRID = gaussian_grid(32)
LATITUDE, LONGITUDE = np.deg2rad(GRID.latitude)[:, None], np.deg2rad(GRID.longitude)
HALF = (0.0, 0.5, 1.0)
LEVELS = (250.0, 750.0)
FLUXES = (
    Variable("total_precipitation_6hr", "m", positive="down", cell="sum"),
    Variable("evaporation_6hr", "m", positive="up", cell="sum"),
    Variable("sensible_heat_flux_6hr", "J m**-2", positive="up", cell="sum"),
    Variable("net_radiation_6hr", "J m**-2", positive="in", cell="sum"),
)
AIR = (
    Variable("temperature", "K", LEVELS),
    Variable("v_component_of_wind", "m s**-1", LEVELS),
    Variable("specific_humidity", "kg kg**-1", LEVELS),
    Variable("geopotential", "m**2 s**-2", LEVELS),
    Variable("surface_pressure", "Pa"),
)
VARIABLES = VariableSet((*AIR, *FLUXES))
WORLD = World(GRID, VARIABLES, np.timedelta64(24, "h"), vertical=Vertical("sigma", (0.0,) * 3, HALF))
CIRCLE = 2 * np.pi * EARTH_RADIUS * np.cos(LATITUDE[:, 0])


def state(time="2001-01-01", **fields):
    """A State of air at rest, but for what is given: (lat, lon), or (level, lat, lon)."""
    usual = {"temperature": 250.0, "surface_pressure": 1e5} | fields
    made = State(torch.zeros(VARIABLES.size, *GRID.shape, dtype=torch.float64), VARIABLES, np.datetime64(time, "s"))
    return made.with_(
        **{name: torch.zeros_like(made[name]) + torch.as_tensor(np.asarray(value)) for name, value in usual.items()}
    )


def found(name, made, world=WORLD):
    return Transports(world)(made)[name].numpy()


def test_air_that_turns_as_a_solid_body_carries_what_varies_along_a_circle():
    """About an axis in the equator v = V cos(lon) everywhere: q (1 + e cos(lon)) gives V q e / 2, and no net mass."""
    wind, moisture = 10.0 * np.cos(LONGITUDE), 0.01 * (1.0 + 0.2 * np.cos(LONGITUDE))
    moved = found("water_transport", state(v_component_of_wind=wind, specific_humidity=moisture))
    np.testing.assert_allclose(moved, CIRCLE * 1e5 / GRAVITY * 10.0 * 0.01 * 0.2 / 2, rtol=1e-12)


def test_an_overturning_carries_the_difference_of_its_branches():
    """Northward above and southward below: what h differs by times the mass that overturns."""
    branches = np.array([1.0, -1.0])[:, None, None]
    height, humidity = np.array([1e5, 1e4])[:, None, None], np.array([0.0, 0.02])[:, None, None]
    warmth = np.array([220.0, 280.0])[:, None, None]
    air = state(v_component_of_wind=branches, geopotential=height, temperature=warmth, specific_humidity=humidity)
    moist = HEAT_CAPACITY_DRY * -60.0 + 9e4 - LATENT_HEAT_VAPORISATION * 0.02
    np.testing.assert_allclose(found("energy_transport", air), CIRCLE * 0.5e5 / GRAVITY * moist, rtol=1e-12)
    np.testing.assert_allclose(found("water_transport", air), -CIRCLE * 0.5e5 / GRAVITY * 0.02, rtol=1e-12)
    drifting = air.with_(v_component_of_wind=air["v_component_of_wind"] + 0.3)  # a net flow of mass carries nothing
    np.testing.assert_allclose(found("energy_transport", drifting), found("energy_transport", air), rtol=1e-12)


def test_the_geopotential_follows_from_temperature_where_it_is_not_there():
    """Of an isothermal column: R T (ln 2 for the lower layer's middle, and alpha of a layer that reaches the top)."""
    few = replace(WORLD, prognostic=VariableSet(tuple(v for v in VARIABLES if v.name != "geopotential")))
    air = state(v_component_of_wind=np.array([1.0, -1.0])[:, None, None])
    dry = 287.04 * 250.0
    lower = dry * (1.0 - 0.5 / 0.5 * np.log(2.0))
    upper = dry * (np.log(2.0) + np.log(2.0))
    want = CIRCLE * 0.5e5 / GRAVITY * (upper - lower)
    np.testing.assert_allclose(found("energy_transport", air, few), want, rtol=1e-9)


def test_gains_imply_what_crosses_a_latitude():
    """G P2(sin lat) gives 2 pi a^2 G (mu^3 - mu) / 2; a mean of the globe adds nothing, and both poles have zero."""
    mu = np.sin(LATITUDE) + 0 * LONGITUDE
    legendre, want = 0.5 * (3 * mu**2 - 1), np.pi * EARTH_RADIUS**2 * (mu**3 - mu)[:, 0]
    seconds = 21_600.0
    wet = state(evaporation_6hr=0.001 * legendre + 0.002, total_precipitation_6hr=0.001)
    np.testing.assert_allclose(found("water_transport_implied", wet), want / seconds, rtol=6e-3)
    warm = state(
        sensible_heat_flux_6hr=1e6 * legendre, net_radiation_6hr=-3e6 * legendre, evaporation_6hr=0.002 * legendre
    )
    total = (1e6 - 3e6 + 0.002 * 1000 * LATENT_HEAT_VAPORISATION) / seconds
    np.testing.assert_allclose(found("energy_transport_implied", warm), total * want, rtol=6e-3)


def test_what_is_lacking_is_told():
    def told(names, **changes):
        kept = VariableSet(tuple(variable for variable in VARIABLES if variable.name in names))
        return Transports(replace(WORLD, prognostic=kept, **changes)).left_out

    everything = VARIABLES.names
    assert told(everything) == {}
    assert told([name for name in everything if name != "v_component_of_wind"]) == dict.fromkeys(
        ("energy_transport", "water_transport"), "no v_component_of_wind among what is scored"
    )
    lacking = told([name for name in everything if name != "sensible_heat_flux_6hr"])
    assert set(lacking) == {"energy_transport_implied"}
    assert "no complete set of fluxes of heat" in lacking["energy_transport_implied"]
    assert "no surface_pressure" in told([name for name in everything if name != "surface_pressure"])["water_transport"]
    points = PointGrid(np.zeros(3), np.arange(3.0), np.ones(3))
    assert set(told(everything, grid=points)) == set(QUANTITIES)


def test_years_members_and_parts():
    random = np.random.default_rng(0)
    times = np.array(["2001-01-01", "2001-07-01", "2002-01-01"], dtype="datetime64[s]")
    fields = torch.from_numpy(random.normal(size=(3, 3, VARIABLES.size, *GRID.shape)) + 2.0)
    truth = State(fields[0], VARIABLES, times)
    ensemble = State(fields[1:], VARIABLES, times)
    whole, parts = YearlyTransports(WORLD), [YearlyTransports(WORLD) for _ in range(2)]
    whole.add(ensemble, truth)
    for part, rows in zip(parts, (slice(0, 2), slice(2, 3)), strict=True):
        part.add(*(State(s.values[..., rows, :, :, :], VARIABLES, times[rows]) for s in (ensemble, truth)))
    parts[0].add_partial(parts[1].partial())
    np.testing.assert_allclose(parts[0].means(), whole.means(), rtol=1e-12)
    each = np.stack(
        [np.stack([f.numpy() for f in Transports(WORLD)(State(one, VARIABLES, times)).values()]) for one in fields]
    )
    np.testing.assert_allclose(whole.means(), [each[1:].mean(axis=(0, 2)), each[0].mean(axis=1)], rtol=1e-12)
    annual = np.stack([each[0, :, :2].mean(axis=1), each[0, :, 2]])
    np.testing.assert_allclose(whole.noise(np.array([2001, 2002]))[1], annual.std(axis=0, ddof=1), rtol=1e-9)
    assert whole.names == list(QUANTITIES)
    assert YearlyTransports(replace(WORLD, prognostic=VARIABLES.select(["temperature"]))).names == []


def test_on_pressure_levels_the_layers_end_at_the_surface():
    levels = (500.0, 1000.0)
    kept = VariableSet(tuple(replace(v, levels=levels) if v.levels else v for v in AIR))
    world = replace(WORLD, prognostic=kept, vertical=Vertical("pressure"))
    values = torch.zeros(kept.size, *GRID.shape, dtype=torch.float64)
    air = State(values, kept, np.datetime64("2001-01-01", "s")).with_(
        surface_pressure=torch.full(GRID.shape, 9.5e4, dtype=torch.float64),
        v_component_of_wind=torch.tensor([1.0, -2.0]).double()[:, None, None].expand(2, *GRID.shape),
        specific_humidity=torch.tensor([0.0, 0.01], dtype=torch.float64)[:, None, None].expand(2, *GRID.shape),
    )
    upper, lower = 7.5e4 / GRAVITY, 2.0e4 / GRAVITY
    want = lower * -2.0 * 0.01 - (upper - 2.0 * lower) * 0.01 * lower / (upper + lower)
    np.testing.assert_allclose(Transports(world)(air)["water_transport"], CIRCLE * want, rtol=1e-12)
