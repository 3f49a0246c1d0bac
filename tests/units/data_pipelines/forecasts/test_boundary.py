"""What another forecast tells a limited area at its boundary, and a component of its forcing: in space and in time."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.batches.archive import Archive
from data_pipelines.forecasts.boundary import (
    ForecastBoundary,
    ForecastForcing,
    later_known,
    prescribed_names,
    told_names,
)
from data_pipelines.forecasts.manifest import FORMAT
from data_pipelines.sources.averaged import Averaged
from emulators.grid import LatLonGrid, equiangular_grid
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.world import World

LEVELS = (500.0, 850.0)
INITS = np.array(["2000-01-01", "2000-01-03"], "datetime64[s]")
AREA = LatLonGrid(np.linspace(60.0, 40.0, 5), np.linspace(100.0, 130.0, 7))
FORCING = VariableSet(
    (
        Variable("temperature_at_boundary", "K", LEVELS),
        Variable("2m_temperature_at_boundary"),
    )
)


def field(latitude, longitude, lead, init, level=0.0):
    """Linear in all that it depends on."""
    return 2.0 * latitude + 3.0 * longitude + 0.5 * lead + 100.0 * init + level


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    grid = equiangular_grid(36, 72)
    leads = np.array([12, 24], "timedelta64[h]")
    axes = np.meshgrid(range(2), (12, 24), LEVELS, grid.latitude, grid.longitude, indexing="ij")
    init, lead, level, latitude, longitude = axes
    values = field(latitude, longitude, lead, init, level).astype(np.float32)
    surface = field(latitude[:, :, 0], longitude[:, :, 0], lead[:, :, 0], init[:, :, 0]).astype(np.float32)
    dims = ("time", "prediction_timedelta", "level", "latitude", "longitude")
    dataset = xr.Dataset(
        {"temperature": (dims, values, {"units": "K"}), "2m_temperature": ((*dims[:2], *dims[3:]), surface)},
        {
            "time": INITS.astype("datetime64[ns]"),
            "prediction_timedelta": leads.astype("timedelta64[ns]"),
            "level": list(LEVELS),
            "latitude": grid.latitude,
            "longitude": grid.longitude,
        },
    )
    folder = tmp_path_factory.mktemp("driving")
    dataset.to_netcdf(folder / "forecast.nc")
    return folder


ZONE = np.ones(AREA.shape, dtype=bool)
ZONE[1:-1, 2:-2] = False


def world_of(forcing: VariableSet) -> World:
    static = VariableSet((Variable("boundary_zone"),))
    predicted = VariableSet((Variable("temperature", "K", LEVELS),))
    return World(
        AREA, predicted, np.timedelta64(6, "h"), forcing, static=static, static_fields=ZONE[None].astype(np.float32)
    )


@pytest.fixture
def world():
    return world_of(FORCING)


def known_outside(field: torch.Tensor) -> torch.Tensor:
    """A field as the interior hears of it: the mean over the zone."""
    zone = torch.from_numpy(ZONE)
    return torch.where(zone, field, field[..., zone].mean(dim=-1)[..., None, None])


def zeros(world: World) -> State:
    return State(torch.zeros(2, world.forcing.size, *AREA.shape), world.forcing, INITS + np.timedelta64(6, "h"))


@pytest.mark.parametrize("lead", [1, 2, 3, 4])
def test_fields_at_a_lead(store, world, lead):
    """At and between the leads of the other forecast; before the first, from what is known at the initial time."""
    boundary = ForecastBoundary(store, world, INITS, 4)
    latitude, longitude = (torch.from_numpy(part.reshape(AREA.shape)) for part in AREA.points)
    init = torch.arange(2.0)[:, None, None]

    def known(inits):
        start = zeros(world)
        at = torch.stack([field(latitude, longitude, 0.0, init, level) for level in LEVELS], dim=1).float()
        surface = field(latitude, longitude, 0.0, init).float()
        told = {"temperature_at_boundary": at, "2m_temperature_at_boundary": surface}
        return start.with_(**{name: known_outside(part) for name, part in told.items()})

    told = boundary.prescribed(zeros(world), SimpleNamespace(forcing=known), INITS, lead)
    for number, level in enumerate(LEVELS):
        expected = field(latitude, longitude, 6.0 * lead, init, level).float()
        torch.testing.assert_close(
            told["temperature_at_boundary"][:, number], known_outside(expected), rtol=1e-5, atol=1e-2
        )
    expected = field(latitude, longitude, 6.0 * lead, init).float()
    torch.testing.assert_close(told["2m_temperature_at_boundary"], known_outside(expected), rtol=1e-5, atol=1e-2)


def test_refusals(store, world):
    with pytest.raises(ValueError, match="ends at a lead of 24 h; expected 30 h"):
        ForecastBoundary(store, world, INITS, 5)
    with pytest.raises(ValueError, match="no forecast from 2000-01-02"):
        ForecastBoundary(store, world, INITS + np.timedelta64(1, "D"), 4)
    alone = VariableSet((Variable("boundary_zone"),))
    with pytest.raises(ValueError, match="reads no forcings"):
        prescribed_names(World(AREA, world.prognostic, world.timestep, alone))
    for variable, match in (
        (Variable("salt_at_boundary"), "has no salt"),
        (Variable("temperature_at_boundary", "K", (300.0,)), "at level 300"),
    ):
        with pytest.raises(ValueError, match=match):
            ForecastBoundary(store, world_of(VariableSet((variable,))), INITS, 4)
    with pytest.raises(ValueError, match="expected boundary_zone among variables"):
        ForecastBoundary(store, World(AREA, world.prognostic, world.timestep, FORCING), INITS, 4)


ACCUMULATED = {"rain_1d": {"sum": "rain"}, "stress_1d": {"mean": {"push": 2.0, "pull": -1.0}}}
DAY = np.timedelta64(1, "D")


def air(times: np.ndarray) -> xr.Dataset:
    """Fields of the air, every 6 h, and the sea, which it forces."""
    random = np.random.default_rng(0)
    dims, grid = ("time", "latitude", "longitude"), equiangular_grid(4)
    fields = {
        name: (dims, random.random((times.size, 4, 8)).astype(np.float32))
        for name in ("rain", "push", "pull", "sea", "ice")
    }
    fields["warmth"] = (dims, 280.0 + fields["rain"][1], {"units": "K"})
    coords = {"time": times.astype("datetime64[ns]"), "latitude": grid.latitude, "longitude": grid.longitude}
    return xr.Dataset(fields, coords)


def forecast_of(truth: xr.Dataset, leads: list[int]) -> xr.Dataset:
    """A perfect forecast from INITS, at leads in hours."""
    steps = np.array(leads, "timedelta64[h]").astype("timedelta64[ns]")
    fields = [truth.sel(time=init + steps).assign_coords(time=steps) for init in INITS.astype("datetime64[ns]")]
    joined = xr.concat([field.rename(time="prediction_timedelta") for field in fields], "time")
    warmth = joined["warmth"].copy(data=joined["warmth"] - 273.15).assign_attrs(units="degC")
    return joined.drop_vars("ice").assign(warmth=warmth).assign_coords(time=INITS.astype("datetime64[ns]"))


class Fixed:
    """Data in memory."""

    def __init__(self, data):
        self.data, self.splits = data, {}

    def dataset(self):
        return self.data


@pytest.fixture(scope="module")
def sea(tmp_path_factory):
    """An archive of the sea on a clock of a day, its World, and the folder of a perfect forecast of the air."""
    truth, folder = air(INITS[0] + np.arange(24) * np.timedelta64(6, "h")), tmp_path_factory.mktemp("air")
    forecast_of(truth, [*range(6, 49, 6)]).to_netcdf(folder / "forecast.nc")
    daily = Averaged(Fixed(truth), timestep="1d", accumulated=ACCUMULATED).dataset()
    forcing = VariableSet((Variable("rain_1d"), Variable("stress_1d"), Variable("warmth", "K"), Variable("ice")))
    world = World(equiangular_grid(4), VariableSet((Variable("sea"),)), DAY, forcing)
    return Archive(daily, world), truth, folder


@pytest.mark.parametrize("lead", [1, 2])
def test_a_perfect_forecast_forces_as_the_data_do(sea, lead):
    archive, _, folder = sea
    other = ForecastForcing(folder, archive.world, INITS, 2, ACCUMULATED)
    expected = archive.forcing(INITS + lead * DAY)
    told = other.prescribed(expected.with_(rain_1d=0 * expected["rain_1d"]), archive, INITS, lead)
    assert other.names == ["rain_1d", "stress_1d", "warmth"]
    torch.testing.assert_close(told.values, expected.values, rtol=1e-6, atol=1e-5)
    assert float(expected["rain_1d"].mean()) > 1.0  # a sum of four


def test_what_does_not_force_is_refused_and_what_knew_the_future_is_told(sea, tmp_path):
    archive, truth, folder = sea
    world = archive.world
    forecast_of(truth, [12, 36, 48]).to_netcdf(tmp_path / "forecast.nc")
    with pytest.raises(ValueError, match="divide each timestep of 24 h evenly; got 1 up to 24 h"):
        ForecastForcing(tmp_path, world, INITS, 2, ACCUMULATED)
    with pytest.raises(ValueError, match=r"forcing: .* ends at a lead of 48 h; expected 72 h"):
        ForecastForcing(folder, world, INITS, 3, ACCUMULATED)
    with pytest.raises(ValueError, match="tells none of the forcings salt; it has rain, "):
        ForecastForcing(
            folder, World(world.grid, world.prognostic, DAY, VariableSet((Variable("salt"),))), INITS, 2, {}
        )
    with pytest.raises(ValueError, match="got both"):
        told_names(world, "a", "b", {})
    assert told_names(world, None, str(folder), {"accumulated": ACCUMULATED}) == ["rain_1d", "stress_1d", "warmth"]
    other = ForecastForcing(folder, world, INITS, 2, ACCUMULATED)
    assert later_known(other) == []
    marks = {"future_forcing": ["ice is read from the data at the times that are predicted"]}
    (folder / "manifest.json").write_text(json.dumps({"format": FORMAT, "verdict": "verified", "marks": marks}))
    (said,) = later_known(other)
    assert "rain_1d, stress_1d, warmth: of" in said
    assert "for which ice is read from the data" in said
