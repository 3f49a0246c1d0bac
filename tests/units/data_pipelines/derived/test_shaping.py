"""What is declared of data: units, masks, lags, levels, dialects of archives, splits with a guard, rules for gaps."""

import numpy as np
import pytest
import xarray as xr

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.windows import Windows
from data_pipelines.batches.world import VariableRoles, world_from_dataset
from data_pipelines.conventions.canonical import canonical
from data_pipelines.conventions.durations import guarded
from data_pipelines.conventions.units import in_units
from data_pipelines.derived.shaping import shaped
from data_pipelines.opening.datasets import open_dataset
from data_pipelines.sources.joined import Joined
from data_pipelines.sources.netcdf import NetCDF
from emulators.constants import GRAVITY
from emulators.grid import gaussian_grid

GRID = gaussian_grid(4)
TIMES = np.datetime64("2001-01-01", "ns") + np.arange(12) * np.timedelta64(6, "h")


def dataset(times=TIMES, levels=None, **fields) -> xr.Dataset:
    """name=(units, values that broadcast over time [, level], latitude and longitude)"""
    shape = (len(times), *([] if levels is None else [len(levels)]), *GRID.shape)
    dims = ("time", *([] if levels is None else ["lev"]), "lat", "lon")
    data = {n: (dims, np.broadcast_to(v, shape).astype("float32"), {"units": u}) for n, (u, v) in fields.items()}
    coords = {"time": times, "lat": GRID.latitude, "lon": GRID.longitude} | ({} if levels is None else {"lev": levels})
    return xr.Dataset(data, coords)


def clock(count=12) -> np.ndarray:
    return np.arange(count, dtype="float32")[:, None, None]


@pytest.mark.parametrize(
    ("said", "told", "one", "units"),
    [
        ("degC", "K", 274.15, "K"),
        ("", "degC -> K", 274.15, "K"),
        ("hPa", "Pa", 100.0, "Pa"),
        ("%", "1", 0.01, "1"),
        ("g kg-1", "kg kg-1", 0.001, "kg kg-1"),
        ("kg m-2", "m", 0.001, "m"),
        ("mm/day", "kg m-2 s-1", 1.0 / 86400.0, "kg m-2 s-1"),
        ("K", "degC", -272.15, "degC"),
        ("m**2 s**-2", "m2 s-2", 1.0, "m2 s-2"),
    ],
)
def test_units(said, told, one, units):
    field = in_units("x", xr.DataArray(np.ones(3, "float32"), attrs={"units": said, "long_name": "a"}), told)
    np.testing.assert_allclose(field, one, rtol=1e-6)
    assert field.attrs["units"] == units
    assert field.dtype == np.float32


@pytest.mark.parametrize(
    ("said", "told", "why"),
    [
        ("", "K", "do not say theirs"),
        ("K", "Pa", "a temperature; 'Pa' is a pressure"),
        ("cubits of rain", "m", "not known"),
    ],
)
def test_units_that_cannot_be_had(said, told, why):
    with pytest.raises(ValueError, match=why):
        in_units("x", xr.DataArray(np.ones(3), attrs={"units": said}), told)


def test_masks_tell_where_values_were():
    field = np.broadcast_to(clock(), (12, *GRID.shape)).copy()
    field[:, 0, :3], field[5, 2, 2] = np.nan, np.nan
    ds = shaped(canonical(dataset(sst=("K", field))), masks=["sea_surface_temperature"],
                fill={"sea_surface_temperature": 270.0})  # fmt: skip
    mask = ds["sea_surface_temperature_mask"]
    np.testing.assert_array_equal(mask, np.isfinite(field))
    np.testing.assert_array_equal(ds["sea_surface_temperature"].where(mask == 0, 0.0).max(), 270.0)
    roles = VariableRoles(["sea_surface_temperature"], forcing=["sea_surface_temperature_mask"])
    assert Archive(ds, world_from_dataset(ds, roles)).gather(np.array([5]))[0, 1, 2, 2] == 0.0
    with pytest.raises(ValueError, match="masks: no variable 'sst'"):
        shaped(canonical(dataset(sst=("K", field))), masks=["sst"])


@pytest.mark.parametrize(("timestep", "steps"), [(None, 1), ("12h", 2)])
def test_a_lag_is_of_one_timestep(timestep, steps):
    times = np.delete(TIMES, 6)
    values = 280.0 + np.delete(clock(), 6, axis=0)
    ds = canonical(dataset(times, sst=("K", values), t2m=("K", values)))
    ds = shaped(ds, lag=["sea_surface_temperature"], timestep=timestep)
    made = world_from_dataset(ds, VariableRoles(["2m_temperature"], forcing=["sea_surface_temperature"]))
    windows = Windows(Archive(ds, made), ["2001", "2001"])
    window = windows.window(np.arange(len(windows)))
    np.testing.assert_array_equal(window.forcing[0].values, window.history[0].values)
    np.testing.assert_array_equal(window.target[0].values, window.history[0].values + steps)


def test_a_lag_of_months_and_what_has_no_times():
    months = np.arange("2001-01", "2002-01", dtype="datetime64[M]").astype("datetime64[ns]")
    ds = shaped(canonical(dataset(months, sst=("K", clock()))), lag=["sea_surface_temperature"])
    np.testing.assert_array_equal(ds["sea_surface_temperature"][:, 0, 0], [0, *range(11)])
    with pytest.raises(ValueError, match="has no times"):
        shaped(ds.isel(time=0, drop=True).expand_dims("time").isel(time=0), lag=["sea_surface_temperature"])


def test_heights_become_geopotential():
    ds = shaped(
        canonical(dataset(orog=("m", 100.0), zg=("dam", 50.0)), {"orog": "surface_altitude"}),
        derive=["geopotential", "geopotential_at_surface"],
    )
    np.testing.assert_allclose(ds["geopotential"], 500.0 * GRAVITY, rtol=1e-6)
    np.testing.assert_allclose(ds["geopotential_at_surface"], 100.0 * GRAVITY, rtol=1e-6)
    with pytest.raises(ValueError, match="geopotential needs geopotential_height"):
        shaped(canonical(dataset(t2m=("K", 1.0))), derive=["geopotential"])


def test_cesm(tmp_path):
    half = np.linspace(0.0, 1.0, 4)
    ds = dataset(levels=[150.0, 500.0, 850.0], T=("K", 250.0), U=("m/s", 5.0), Z3=("m", 10.0))
    ds = ds.merge(dataset(PS=("Pa", 1e5), PHIS=("m2/s2", 0.0), PRECT=("m/s", 1e-8)))
    ds = ds.assign(hyai=("ilev", 0.2 * (1 - half)), hybi=("ilev", half), P0=1e5)
    ds.to_netcdf(tmp_path / "a.nc")
    found = NetCDF(str(tmp_path / "a.nc"), names="cesm", derive=["geopotential"]).dataset()
    expected = {"temperature", "u_component_of_wind", "geopotential_height", "geopotential", "surface_pressure",
                "geopotential_at_surface", "precipitation_rate"}  # fmt: skip
    assert set(found.data_vars) == expected
    made = world_from_dataset(found, VariableRoles(["temperature"]))
    assert made.vertical.kind == "hybrid"
    np.testing.assert_allclose(made.vertical.a, 2e4 * (1 - half), atol=1e-9)
    np.testing.assert_allclose(made.vertical.b, half)
    fewer = NetCDF(str(tmp_path / "a.nc"), names="cesm", levels=[500]).dataset()
    assert world_from_dataset(fewer, VariableRoles(["temperature"])).vertical.a == ()
    with pytest.raises(ValueError, match="did you mean 'cesm'"):
        NetCDF(str(tmp_path / "a.nc"), names="cesm2").dataset()


def test_ace_puts_layers_together(tmp_path):
    fields = {f"air_temperature_{n}": ("K", 200.0 + n) for n in range(10, -1, -1)}
    ds = dataset(**fields, PRESsfc=("Pa", 1e5), surface_temperature=("K", 300.0))
    ds = ds.rename(lat="grid_yt", lon="grid_xt")
    ds = ds.assign({f"ak_{n}": 10.0 * n for n in range(12)} | {f"bk_{n}": n / 11 for n in range(12)})
    ds.to_netcdf(tmp_path / "a.nc")
    found = open_dataset(tmp_path / "a.nc", names="ace")
    np.testing.assert_array_equal(found["temperature"][0, :, 0, 0], 200.0 + np.arange(11))
    assert {"surface_pressure", "skin_temperature"} < set(found.data_vars)
    vertical = world_from_dataset(found, VariableRoles(["temperature", "surface_pressure"])).vertical
    np.testing.assert_allclose(vertical.a, 10.0 * np.arange(12))


@pytest.mark.parametrize(
    ("names", "said", "long"),
    [
        ("e3sm", {"T": "temperature", "TREFHT": "2m_temperature", "Q": "specific_humidity"}, "skin_temperature"),
        ("fv3", {"tmp": "temperature", "tmp2m": "2m_temperature", "spfh": "specific_humidity"}, "skin_temperature"),
    ],
)
def test_names_of_other_models(tmp_path, names, said, long):
    skin = {"e3sm": "TS", "fv3": "tmpsfc"}[names]
    dataset(**{short: ("K", 250.0 + n) for n, short in enumerate(said)}, **{skin: ("K", 300.0)}).to_netcdf(
        tmp_path / "a.nc"
    )
    found = open_dataset(tmp_path / "a.nc", names=names)
    assert set(found.data_vars) == {*said.values(), long}
    for n, name in enumerate(said.values()):
        assert (found[name] == 250.0 + n).all()


def test_cmip6_in_units_of_its_own(tmp_path):
    dataset(tos=("degC", 10.0), siconc=("%", 50.0), ts=("K", 280.0)).to_netcdf(tmp_path / "a.nc")
    found = open_dataset(tmp_path / "a.nc", names="cmip6")
    np.testing.assert_allclose(found["sea_surface_temperature"], 283.15)
    np.testing.assert_allclose(found["sea_ice_cover"], 0.5)
    assert found["sea_ice_cover"].attrs["units"] == "1"
    assert "skin_temperature" in found


def test_guard_between_splits():
    splits = {"validation": ["2016", "2016"], "train": ["1979", "2015"], "test": ["2018", "2018"]}
    found = guarded(splits, "10d")
    assert found == {**splits, "validation": ["2016-01-10T23:59:59", "2016"]}
    assert guarded(splits, None) == splits
    assert guarded({"train": ["2001", "2003"], "test": ["2003", "2004"]}, "10d")["test"] == ["2003", "2004"]
    with pytest.raises(ValueError, match="leaves nothing of the split test"):
        guarded({"train": ["2001", "2001"], "test": ["2002-01-01", "2002-01-05"]}, "10d")
    with pytest.raises(ValueError, match="expected days or hours"):
        guarded(splits, "1M")


def test_rules_for_gaps_and_uneven_times(tmp_path):
    path = str(tmp_path / "a.nc")
    dataset(np.delete(TIMES, 4), t2m=("K", np.delete(clock(), 4, axis=0))).to_netcdf(path)
    assert NetCDF(path).dataset().sizes["time"] == 11
    with pytest.raises(ValueError, match=r"1 gap\(s\), the first from 2001-01-01T18:00:00 to 2001-01-02T06"):
        NetCDF(path, gaps="refuse").dataset()
    uneven = TIMES[np.cumsum([0, 1, 3, 1, 2, 4])]
    dataset(uneven, t2m=("K", clock(6))).to_netcdf(path)
    with pytest.raises(ValueError, match=r"uneven: steps of 6 to 24 h, the usual one only 40%"):
        NetCDF(path).dataset()
    ds = NetCDF(path, timestep="6h").dataset()
    windows = Windows(Archive(ds, world_from_dataset(ds, VariableRoles(["2m_temperature"]))), ["2001", "2001"])
    np.testing.assert_array_equal(windows.init_times, uneven[[0, 2]].astype("datetime64[s]"))


def test_sources_are_joined_by_variable_at_shared_times_and_in_time(tmp_path):
    dataset(t2m=("K", clock())).isel(time=slice(0, 9)).to_netcdf(tmp_path / "a.nc")
    dataset(sst=("degC", clock())).isel(time=slice(3, 12)).to_netcdf(tmp_path / "b.nc")
    dataset(t2m=("K", clock())).isel(time=slice(9, 12)).to_netcdf(tmp_path / "c.nc")
    air, later = NetCDF(str(tmp_path / "a.nc")), NetCDF(str(tmp_path / "c.nc"))
    sea = NetCDF(str(tmp_path / "b.nc"), units={"sea_surface_temperature": "K"})
    both = Joined({"air": air, "sea": sea}, {"train": ["2001", "2001"]})
    both.prepare()
    ds = both.dataset()
    np.testing.assert_array_equal(ds["time"], TIMES[3:9])
    np.testing.assert_allclose(ds["sea_surface_temperature"] - ds["2m_temperature"], 273.15, atol=1e-4)
    np.testing.assert_array_equal(Joined({"air": air, "later": later}).dataset()["2m_temperature"][:, 0, 0], range(12))
    dataset(sst=("K", clock())).isel(time=slice(0, 2)).to_netcdf(tmp_path / "d.nc")
    early = NetCDF(str(tmp_path / "d.nc"))
    with pytest.raises(ValueError, match="no time in common"):
        Joined({"later": later, "early": early}).dataset()
    with pytest.raises(ValueError, match="at least two"):
        Joined({"air": air})
