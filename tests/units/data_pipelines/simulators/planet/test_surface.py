"""The planet's face: continents and heights, and surfaces that keep what comes and is not given to the air."""

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.simulators.planet.climate import CarbonDioxide, Climate, Switches
from data_pipelines.simulators.planet.geography import Geography, continents, from_file, water
from data_pipelines.simulators.planet.physics import PlanetPhysics
from data_pipelines.simulators.planet.surface import Surface
from emulators.constants import GRAVITY, HEAT_CAPACITY_DRY, LATENT_HEAT_VAPORISATION
from emulators.grid import equiangular_grid, gaussian_grid
from emulators.sphere.transform import SphericalHarmonics

GRID = gaussian_grid(16)
STEP, TOP = 3600.0, 0.9


def surface(geography=None, ocean="prescribed", **changes):
    climate = Climate(**changes)
    geography = geography or continents(GRID, 10)
    return Surface(GRID, geography, STEP, (TOP, 1.0), climate, Switches(ocean=ocean), dtype=torch.float64)


def air(warmth=285.0):
    """wind, temperature, humidity and surface pressure, (lon, lat)."""
    one = torch.ones(*GRID.shape[::-1], dtype=torch.float64)
    return 8.0 * one, warmth * one, 0.006 * one, 99000.0 * one


def test_continents_have_coasts_mountains_and_no_fine_scales():
    for rows, truncation in ((32, 21), (64, 42)):
        grid = gaussian_grid(rows)
        face = continents(grid, truncation)
        assert face.land.min() == 0.0
        assert face.land.max() == 1.0
        assert 0.25 < (face.land * grid.weights).mean() < 0.38
        height = face.geopotential / GRAVITY
        assert 2500.0 < height.max() < 4500.0
        assert height.min() > -100.0
        assert np.abs(height[face.land < 0.02]).max() < 800.0
        sphere = SphericalHarmonics(grid, grid.shape[0], grid.shape[0], torch.float64)
        power = sphere.analysis(torch.from_numpy(height.T.copy())[..., None]).square().sum(dim=(0, 2))
        assert power[truncation + 1 :].max() < 1e-20 * power.max()
        assert (power[truncation - 4 : truncation + 1].diff() < 0.0).all()


def test_water_is_flat():
    assert water(GRID).is_water
    assert not continents(GRID, 10).is_water
    assert not water(GRID).geopotential.any()


def test_geography_from_a_file(tmp_path):
    source = equiangular_grid(90)
    latitude, longitude = (np.deg2rad(values) for values in (source.latitude, source.longitude))
    smooth = 500.0 * (1.0 + np.cos(latitude)[:, None] * np.cos(longitude))
    land = (np.cos(longitude) > 0.0) * np.ones((90, 1))
    coordinates = {"lat": source.latitude, "lon": source.longitude}
    fields = {"lsm": (("lat", "lon"), land), "orog": (("lat", "lon"), smooth, {"units": "m"})}
    path = tmp_path / "face.nc"
    xr.Dataset(fields, coordinates).to_netcdf(path)
    face = from_file(path, GRID, 10)
    here = 500.0 * (1.0 + np.cos(np.deg2rad(GRID.latitude))[:, None] * np.cos(np.deg2rad(GRID.longitude)))
    np.testing.assert_allclose(face.geopotential / GRAVITY, here, atol=4.0)
    assert face.land.min() == 0.0
    assert face.land.max() == 1.0
    xr.Dataset({"orog": fields["orog"]}, coordinates).to_netcdf(tmp_path / "bare.nc")
    with pytest.raises(ValueError, match="no 'land_sea_mask'"):
        from_file(tmp_path / "bare.nc", GRID, 10)


@pytest.mark.parametrize("ocean", ["prescribed", "slab"])
def test_surfaces_keep_what_comes_and_is_not_given(ocean):
    """f c dT (land) + (1 - f) c dT (slab) = supply - H - L E in every cell."""
    place = surface(ocean=ocean)
    target = place.initial(place.water_temperature(0.2), place.land_temperature(0.2))
    ground = place.initial(place.water_temperature(0.2) + 0.5, place.land_temperature(0.2) - 2.0)
    wind, warmth, vapour, ps = air()
    light = torch.linspace(-300.0, 500.0, GRID.shape[1], dtype=torch.float64)[:, None] * torch.ones_like(wind)
    after, fluxes = place(ground, target, light, wind, warmth, vapour, ps)
    mass = ps * (1.0 - TOP) / GRAVITY
    given = mass * (HEAT_CAPACITY_DRY * fluxes.temperature + LATENT_HEAT_VAPORISATION * fluxes.humidity)
    kept = place.land * place.climate.land_capacity * (after.land - ground.land)
    if ocean == "slab":
        kept = kept + place.sea * place.climate.slab_capacity * (after.water - ground.water)
        assert float((after.water - ground.water).abs().max()) > 1e-4
    else:
        torch.testing.assert_close(after.water, target.water)
    torch.testing.assert_close(kept, fluxes.supply - given, rtol=1e-10, atol=1e-4)


def test_surface_fluxes_are_those_of_the_bulk_formula():
    place = surface(water(GRID))
    target = place.initial(place.water_temperature(0.0), place.land_temperature(0.0))
    wind, warmth, vapour, ps = air(warmth=290.0)
    _, fluxes = place(target, target, 0.0 * wind, wind, warmth, vapour, ps)
    moved = STEP * 0.001 * wind * GRAVITY / (287.04 * (1.0 - TOP) * warmth)  # dt C |v| / depth
    below = (0.5 * (1.0 + TOP)) ** (-2.0 / 7.0)
    gain = moved * (target.water - below * (warmth + fluxes.temperature))  # implicit in the air
    torch.testing.assert_close(fluxes.temperature, gain, rtol=1e-12, atol=0.0)
    warm = target.water > below * 290.0
    assert (fluxes.temperature[warm] > 0.0).all()
    assert (fluxes.humidity[target.water > 295.0] > 0.0).all()


def test_land_follows_the_sun_and_evaporates_less():
    everywhere = Geography(np.ones(GRID.shape), np.zeros(GRID.shape))
    dry, wet, sea = surface(everywhere, land_wetness=0.2), surface(everywhere, land_wetness=1.0), surface(water(GRID))
    warm = np.full(GRID.shape, 300.0)
    weather = air()
    given = {}
    for name, place in (("dry", dry), ("wet", wet), ("sea", sea)):
        ground = place.initial(warm, warm)
        given[name] = place(ground, ground, 0.0 * weather[0], *weather)[1].humidity
    torch.testing.assert_close(given["wet"], given["sea"], rtol=1e-12, atol=0.0)
    assert (given["dry"] < 0.25 * given["sea"]).all()
    ground = dry.initial(warm, warm)
    noon, night = (dry(ground, ground, light + 0.0 * weather[0], *weather)[0].land for light in (500.0, -300.0))
    assert (noon > night + 0.5).all()


def test_water_and_land_are_target_to_season_height_and_warming():
    plain, warmer = surface(), surface()
    warmer.switches = Switches(warming=2.0)
    for temperature in ("water_temperature", "land_temperature"):
        base, warm = (getattr(place, temperature)(0.3) for place in (plain, warmer))
        np.testing.assert_allclose(warm, base + 2.0, atol=1e-12)
        assert base[:8].mean() > base[8:].mean() - 8.0
        assert getattr(plain, temperature)(-0.3)[2].mean() < base[2].mean()  # winter and summer in the north
    high = plain.height > 1500.0
    low = plain.climate.warmest_land - 10.0
    assert (plain.land_temperature(0.0)[high] < low).all()
    uneven = plain.water_temperature(0.0)
    assert np.ptp(uneven, axis=1).max() > 2.0
    np.testing.assert_allclose(
        surface(warm_pool=0.0, warm_currents=0.0).water_temperature(0.0).std(axis=1), 0.0, atol=1e-12
    )


def physics(**switches):
    half = np.array([0.0, 0.3, 0.7, 1.0])
    return PlanetPhysics(GRID, half, STEP, np.eye(3), switches=Switches(**switches), dtype=torch.float64)


def test_co2_warms_what_ocean_land_and_air_relax_to():
    """Three kelvin a doubling: none before the start, twice that after a jump to 4 times, half as much at half way."""
    start, end = np.datetime64("2001-01-01"), np.datetime64("2001-01-11")
    amount = CarbonDioxide(1.0, 4.0, 1.0, start, end, sensitivity=3.0)
    plain, warm = physics(), physics()
    warm.co2 = amount
    ground = torch.full((*GRID.shape[::-1], 1), 1e5, dtype=torch.float64)
    for day, kelvin in (("2000-12-31", 0.0), ("2001-01-01", 6.0), ("2001-01-06", 3.0), ("2001-02-01", 0.0)):
        time = np.datetime64(day)
        assert amount.warming(time) == pytest.approx(kelvin)
        usual, season = plain.season(time), warm.season(time)
        for one, other in zip(season.target, usual.target, strict=True):
            torch.testing.assert_close(one, other + kelvin)
        torch.testing.assert_close(warm.equilibrium(season, ground), plain.equilibrium(usual, ground) + kelvin)


def test_every_switch_of_the_sun_acts():
    january, july = np.datetime64("2001-01-15T06"), np.datetime64("2001-07-15T06")
    light, mean = physics(diurnal=False).sunlight(january)
    np.testing.assert_array_equal(light, np.broadcast_to(mean[:, None], GRID.shape))
    assert np.ptp(physics().sunlight(january)[0], axis=1).max() > 500.0
    still = physics(season=False)
    for one, other in zip(still.season(january).target, still.season(july).target, strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=1e-9)
    moving = physics()
    assert float((moving.season(january).target.water - moving.season(july).target.water).abs().max()) > 3.0
    ground = torch.full((32, 16, 1), 1e5, dtype=torch.float64)
    warm, plain = (air.equilibrium(air.season(january), ground) for air in (physics(warming=w) for w in (4.0, 0.0)))
    torch.testing.assert_close(warm, plain + 4.0)


def test_radiative_equilibrium_is_held_and_suarezs():
    """Their equation at the equinox, written out: 315 K, 60 K, 10 K."""
    grid, half = gaussian_grid(16), np.linspace(0.0, 1.0, 6)
    climate = Climate(warmest_equilibrium=315.0, equilibrium_contrast=60.0)
    dry = PlanetPhysics(
        grid, half, STEP, np.eye(5), climate=climate, switches=Switches(moist=False, season=False), dtype=torch.float64
    )
    season = dry.season(np.datetime64("2001-03-01"))
    found = dry.equilibrium(season, torch.full((32, 16, 1), 9.8e4, dtype=torch.float64))[0]
    phi, p = np.deg2rad(grid.latitude)[:, None], 0.98 * 0.5 * (half[1:] + half[:-1])
    expected = (315.0 - 60.0 * np.sin(phi) ** 2 - 10.0 * np.log(p) * np.cos(phi) ** 2) * p ** (2.0 / 7.0)
    np.testing.assert_allclose(found, np.maximum(expected, 200.0), rtol=1e-12)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="prescribed or slab; got 'deep'"):
        Switches(ocean="deep")
    with pytest.raises(ValueError, match="needs moist air"):
        Switches(ocean="slab", moist=False)
