"""Members of an ensemble as samples: windows keep to one, statistics are over all, forecasts begin from the first."""

import numpy as np
import pytest
import xarray as xr

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.scales import scales
from data_pipelines.batches.windows import Windows
from data_pipelines.batches.world import VariableRoles, world_from_dataset
from data_pipelines.conventions.canonical import first_member
from data_pipelines.packing.pack import PackingSettings, pack
from data_pipelines.sources.netcdf import NetCDF
from data_pipelines.sources.packed import Packed
from data_pipelines.sources.weatherbench2 import WeatherBench2
from emul.data.arguments import main
from emulators.grid import gaussian_grid

GRID, TIMES, MEMBERS = gaussian_grid(4), 12, 3
ROLES = VariableRoles([{"temperature": [850, 300]}], ["sea_surface_temperature"], static=["land_sea_mask"])
PERIOD = ["2001-01-01", "2001-01-02"]


def ensemble(dimension):
    random, size = np.random.default_rng(0), {"time": TIMES, dimension: MEMBERS, "level": 2, "latitude": 4}
    dims = ("time", dimension, "level", "latitude", "longitude")
    start = np.datetime64("2001-01-01", "ns")
    return xr.Dataset(
        {
            "temperature": (dims, random.normal(250, 9, (*size.values(), 8)).astype("f4"), {"units": "K"}),
            "sea_surface_temperature": (
                ("time", "latitude", "longitude"),
                random.normal(290, 1, (TIMES, 4, 8)).astype("f4"),
            ),
            "land_sea_mask": ((dimension, "latitude", "longitude"), np.ones((MEMBERS, 4, 8), "f4")),
        },
        {
            "time": start + np.delete(np.arange(TIMES + 1), 5) * np.timedelta64(6, "h"),  # a gap
            dimension: np.arange(MEMBERS),
            "level": ("level", [300, 850], {"units": "hPa"}),
            "latitude": GRID.latitude,
            "longitude": GRID.longitude,
        },
    )


@pytest.fixture(params=["number", "realization", "ensemble"])
def source(request, tmp_path):
    data, splits = ensemble(request.param), {"train": PERIOD}
    if request.param == "ensemble":
        data.to_zarr(tmp_path / "a.zarr", encoding={"temperature": {"chunks": (1, MEMBERS, 2, 4, 8)}})
        return WeatherBench2(str(tmp_path / "a.zarr"), splits, members="ensemble")
    data.to_netcdf(tmp_path / "a.nc")
    return NetCDF(str(tmp_path / "a.nc"), splits, members=request.param, units={"temperature": "K"})


@pytest.mark.parametrize("gigabytes", [0.0, 1.0])
def test_windows_keep_to_one_member(source, gigabytes):
    data = source.dataset()
    truth = data["temperature"].sel(level=[850, 300]).transpose("member", "time", ...).values
    archive = Archive(data, world_from_dataset(data, ROLES), cache_gigabytes=gigabytes)
    windows = Windows(archive, PERIOD, rollout=2)
    assert len(windows) == MEMBERS * 3  # five times before the gap, two after it
    assert all(np.unique(row // TIMES).size == 1 for row in windows.positions)
    window = windows.window(np.arange(len(windows)))
    for row, (first, _, last) in enumerate(windows.positions):
        np.testing.assert_array_equal(window.history[0].values[row], truth[first // TIMES, first % TIMES])
        np.testing.assert_array_equal(window.target[1].values[row], truth[last // TIMES, last % TIMES])
        np.testing.assert_array_equal(
            window.forcing[1].values[row, 0], data["sea_surface_temperature"].values[last % TIMES]
        )


def test_statistics_are_over_all_members(source):
    data = source.dataset()
    archive = Archive(data, world_from_dataset(data, ROLES))
    inside = np.flatnonzero(data["time"].values < np.datetime64("2001-01-03"))
    weights = data["temperature"].sel(level=850).isel(time=inside).transpose("member", "time", ...).values
    area = archive.grid.weights / archive.grid.weights.sum()
    mean = (weights.mean((0, 1)) * area).sum()
    change = np.diff(weights, axis=1)[:, [n for n in range(inside.size - 1) if n != 4]]
    found = scales(archive, PERIOD)["temperature_850"]
    assert found.mean == pytest.approx(mean, rel=1e-6)
    assert found.std == pytest.approx(np.sqrt((((weights - mean) ** 2).mean((0, 1)) * area).sum()), rel=1e-5)
    spread = ((change - (change.mean((0, 1)) * area).sum()) ** 2).mean((0, 1))
    assert found.tendency_std == pytest.approx(np.sqrt((spread * area).sum()), rel=1e-5)


def test_a_date_stands_for_the_first_member(source):
    data = source.dataset()
    archive = Archive(data, world_from_dataset(data, ROLES))
    expected = data["temperature"].isel(member=0, time=7).sel(level=[850, 300])
    np.testing.assert_array_equal(archive.states(data["time"].values[7]).values, expected)


def test_all_of_them_are_packed(source, tmp_path):
    data, path = source.dataset(), tmp_path / "b.zarr"
    pack(data, world_from_dataset(data, ROLES), path, PackingSettings(per_file=5), splits={"train": PERIOD})
    assert pack(data, world_from_dataset(data, ROLES), path, PackingSettings()).added == 0
    view = Packed(str(path)).dataset()
    one, two = (Archive(some, world_from_dataset(some, ROLES), cache_gigabytes=0) for some in (data, view))
    assert two.fields.is_packed
    assert two.members == MEMBERS
    positions = np.array([0, 35, 13, 13, 24])
    for _ in range(2):
        np.testing.assert_array_equal(one.gather(positions), two.gather(positions))
    np.testing.assert_array_equal(Windows(one, PERIOD).positions, Windows(two, PERIOD).positions)
    chosen = {"time": [3, 1], "member": 2, "level": 1, "latitude": slice(1, 3), "longitude": [0, 5]}
    np.testing.assert_array_equal(view["temperature"].isel(chosen), data["temperature"].isel(chosen))
    np.testing.assert_array_equal(first_member(view)["temperature"], data["temperature"].isel(member=0))
    assert xr.open_zarr(path)["fields"].shape == (MEMBERS * TIMES, 3, 4, 8)
    for other, said in ((data.isel(time=slice(9)), "no times are added"), (first_member(data), "other members")):
        with pytest.raises(ValueError, match=said):
            pack(other, world_from_dataset(other, ROLES), path, PackingSettings())


def test_what_cannot_be(source):
    with pytest.raises(ValueError, match=r"data\.members: expected a dimension of .*; got 'numbr'"):
        type(source)(source.path, members="numbr").dataset()


@pytest.mark.slow
def test_words_of_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ensemble("number").to_netcdf("a.nc")
    assert main(["inspect", "a.nc"]) == 0
    assert "or take all as members: members=number" in capsys.readouterr().err
    chosen = ["data=netcdf", "data.path=a.nc", "data.members=number"]
    assert main(["inspect", *chosen]) == 0
    assert f"members  {MEMBERS}, each a sample of its own" in capsys.readouterr().out
    assert main(["check", *chosen]) == 0
    part = ["fields=[temperature]", "hours=[0]"]
    assert main(["climatology", *chosen, *part, "to=a.zarr"]) == 0
    assert main(["climatology", *chosen[:2], "data.select={number: 0}", *part, "to=b.zarr"]) == 0
    normal, of_the_first = (xr.open_zarr(name)["temperature"].sel(dayofyear=[1, 2]) for name in ("a.zarr", "b.zarr"))
    assert np.isfinite(normal).all()
    xr.testing.assert_equal(normal, of_the_first)
    assert main(["statistics", *chosen, "intervals=6h,12h", "to=s.nc"]) == 0
    told = xr.open_dataset("s.nc").sel(channel="temperature_850")
    fields = ensemble("number")["temperature"].sel(level=850).values.astype(float)
    mean = (fields * GRID.weights).mean()
    assert told["mean"] == pytest.approx(mean, rel=1e-9)
    assert told["std"] == pytest.approx(np.sqrt(((fields - mean) ** 2 * GRID.weights).mean()), rel=1e-9)
    assert told["pairs"].values.tolist() == [MEMBERS * 10, MEMBERS * 9]  # of twelve times with a gap
    assert main(["regrid", *chosen, "fields=[temperature]", "grid=4x2_equiangular", "to=c.zarr"]) == 0
    assert main(["regrid", *chosen[:2], "data.select={number: 2}", "fields=[temperature]", "grid=4x2_equiangular",
                 "to=d.zarr"]) == 0  # fmt: skip
    coarse = WeatherBench2("c.zarr", members="member").dataset()["temperature"]
    assert coarse.sizes["member"] == MEMBERS
    np.testing.assert_array_equal(coarse.isel(member=2), xr.open_zarr("d.zarr")["temperature"])
    assert main(["convert", *chosen, "to=e.zarr"]) == 0
    packed = ["data=packed", "data.path=e.zarr"]
    assert main(["inspect", *packed]) == 0
    assert f"members  {MEMBERS}, each a sample of its own" in capsys.readouterr().out
    assert main(["statistics", *packed, "intervals=6h,12h", "to=t.nc"]) == 0
    again = xr.open_dataset("t.nc")
    xr.testing.assert_allclose(again["std"], xr.open_dataset("s.nc")["std"].sel(channel=again.channel))
