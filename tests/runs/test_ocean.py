"""The ocean's store: closed budgets, a killed run that goes on, and an emulator that trains on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from data_pipelines.files.atomic import sha256
from data_pipelines.simulators.stores import empty_dataset
from data_pipelines.sources.ocean import Ocean
from emul.main import main
from emulators.grid import gaussian_grid

pytestmark = pytest.mark.slow


class Air:
    """A planet of one windy year: westerlies with waves, and a sea that is warm at the equator."""

    def __init__(self, folder: Path) -> None:
        self.path, self.grid = folder / "planet.zarr", gaussian_grid(16)

    def static(self) -> dict[str, np.ndarray]:
        land = np.zeros(self.grid.shape, np.float32)
        land[:, :6] = 1.0
        return {"land_sea_mask": land}

    def prepare(self, progress=None) -> None:
        progress("planet", 1.0)

    def dataset(self) -> xr.Dataset:
        times = np.datetime64("2001-01-01") + np.arange(4 * 366) * np.timedelta64(6, "h")
        column, surface = ("time", "level", "latitude", "longitude"), ("time", "latitude", "longitude")
        kinds = {
            "u_component_of_wind": column, "v_component_of_wind": column, "evaporation_6hr": surface,
            "sensible_heat_flux_6hr": surface, "total_precipitation_6hr": surface, "sea_surface_temperature": surface,
        }  # fmt: skip
        described = {name: (dimensions, "1", "", name) for name, dimensions in kinds.items()}
        dataset = empty_dataset(described, self.grid, times, ([950.0], {}), {"latent_heat_of_vaporisation": 2.5e6})
        phase = (
            np.zeros(self.grid.shape)
            + np.deg2rad(self.grid.longitude)
            + 2.0 * np.pi * np.arange(times.size)[:, None, None] / 40.0
        )
        latitude = np.deg2rad(self.grid.latitude)[:, None] * np.ones_like(phase)
        fields = {
            "u_component_of_wind": (10.0 * np.sin(2.0 * latitude) ** 2 + np.cos(phase))[:, None],
            "v_component_of_wind": 3.0 * np.sin(phase)[:, None],
            "evaporation_6hr": 1e-3 * np.cos(latitude),
            "sensible_heat_flux_6hr": 1e5 * np.cos(phase),
            "total_precipitation_6hr": 1e-3 * np.cos(latitude) ** 2,
            "sea_surface_temperature": 275.0 + 25.0 * np.cos(latitude) ** 2,
        }
        return dataset.assign({name: (kinds[name], field) for name, field in fields.items()})


def source(folder: Path) -> Ocean:
    splits = {"train": ["2001-01-01", "2001-12-27"]}
    return Ocean(
        planet=Air(folder), splits=splits, years=1, spinup_years=1, trajectories=1, rows=16, polewards=50.0,
        timestep_minutes=240,
    )  # fmt: skip


@pytest.fixture(scope="module")
def ocean(tmp_path_factory: pytest.TempPathFactory) -> Ocean:
    made = source(tmp_path_factory.mktemp("ocean"))
    made.prepare()
    return made


def test_heat_and_salt_of_the_store_are_closed(ocean: Ocean) -> None:
    stored = ocean.dataset().load()
    area = xr.DataArray(ocean.grid.weights * ocean.sea, dims=("latitude", "longitude"))
    for kind in ("heat", "salt"):
        content = (stored[f"ocean_{kind}_content"].astype(float) * area).sum(("latitude", "longitude"))
        gains = (stored[f"{place}_{kind}_gain"].astype(float) for place in ("surface", "abyssal"))
        gained = sum((gain * area).sum(("latitude", "longitude")) for gain in gains) * 5 * 86400.0
        change = content.diff("time")
        assert float(np.abs(change - gained[1:]).max()) < 1e-6 * float(np.abs(content).max())
        assert float(np.abs(change).max()) > 1e-5 * float(np.abs(content).max()), "it does change"


def test_wind_drives_currents_and_land_is_still(ocean: Ocean) -> None:
    stored = ocean.dataset().isel(time=-1).load()
    speed = np.abs(stored["eastward_sea_water_velocity"].values)
    assert 0.01 < speed.max() < 3.0
    assert (speed[:, ~ocean.sea] == 0.0).all()
    temperature = stored["sea_water_potential_temperature"].values
    assert (temperature[:, ~ocean.sea] == 275.0).all()
    assert (temperature[0] >= temperature[2] - 0.5)[ocean.sea].all(), "warm water lies on cold"


def test_a_run_that_was_stopped_goes_on_bit_for_bit(ocean: Ocean, tmp_path: Path) -> None:
    again = source(tmp_path)

    def stop(label: str, share: float) -> None:
        if share > 0.6:  # after the first of two years
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again.prepare(stop)
    assert not again.path.exists()
    again.prepare()
    chunks = [file.relative_to(ocean.path) for file in ocean.path.rglob("*") if file.is_file() and "/c/" in str(file)]
    assert len(chunks) > 16
    assert all(sha256(ocean.path / name) == sha256(again.path / name) for name in chunks)


def test_a_planet_of_less_than_a_year_is_refused(tmp_path: Path) -> None:
    short = source(tmp_path)
    whole = short.planet.dataset()
    short.planet.dataset = lambda: whole.isel(time=slice(0, 400))
    with pytest.raises(ValueError, match="at least a year of each trajectory"):
        short.prepare()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timestep_minutes": 7}, "must divide a day; got 7"),
        ({"polewards": 95.0}, "between 0 and 90; got 95"),
        ({"years": 0}, "years must be at least 1; got 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ocean(planet=Air(tmp_path), splits={}, **changes)


def test_an_emulator_of_the_ocean_trains_and_leaves_land_alone(ocean: Ocean, tmp_path: Path) -> None:
    words = ["experiment=ocean_samudra", "data=weatherbench2", "variables=ocean", f"data.path={ocean.path}"]
    words += ["data.splits.train=[2001-01-01,2001-08-01]", "data.splits.validation=[2001-08-05,2001-12-27]"]
    words += ["data.splits.test=[2001-08-05,2001-12-27]", "hardware=debug", "model.channels=[8]", "model.dilation=[1]"]
    words += ["data.ranges={sea_water_salinity:[30,40]}"]  # of one short year, whose values hardly vary beside land's
    words += ["training.steps=3", "training.validation_cases=2", "training.validation_lead=2"]
    assert main(["train", *words, f"output={tmp_path}"]) == 0
    words = [f"run={tmp_path}/train/ocean_samudra", "init=2001-09-08", "lead=20d", f"output={tmp_path}"]
    assert main(["forecast", *words]) == 0
    forecast = xr.open_zarr(tmp_path / "forecast/ocean_samudra/forecast.zarr")
    temperature = forecast["sea_water_potential_temperature"].isel(time=0, prediction_timedelta=-1).values
    assert (temperature[:, ~ocean.sea] == 275.0).all()
    assert temperature[:, ocean.sea].std() > 1.0
