"""Forecasts in the layouts, files and archives in which programs write them."""

import gzip
import zipfile

import numpy as np
import pytest
import xarray as xr
import zarr

from data_pipelines.opening.datasets import open_dataset
from data_pipelines.opening.forecasts import open_forecast
from data_pipelines.verification.matching import with_likely_leads

T0, H = np.datetime64("2020-01-01", "ns"), np.timedelta64(1, "h").astype("timedelta64[ns]")
INITS, LEADS = T0 + 24 * H * np.arange(3), 6 * H * np.arange(1, 5)
SPACE = {"latitude": [60.0, 20.0, -20.0, -60.0], "longitude": 45.0 * np.arange(8)}
RNG = np.random.default_rng(0)


def forecast(**sizes):
    """A forecast of 3 initial times and 4 leads, with further dimensions behind these."""
    dims = ("time", "step", *sizes, "latitude", "longitude")
    values = RNG.normal(size=(3, 4, *sizes.values(), 4, 8)).astype("f4")
    return xr.Dataset({"t2m": (dims, values, {"units": "K"})}, {"time": INITS, "step": LEADS, **SPACE})


def opened(dataset, path, **options):
    dataset.to_netcdf(path)
    return open_forecast(path, **options)


def assert_same(found, values):
    assert dict(found.sizes) == {"time": 3, "prediction_timedelta": 4, "latitude": 4, "longitude": 8}
    np.testing.assert_array_equal(found["valid_time"].values, INITS[:, None] + LEADS)
    field = found["2m_temperature"].transpose("time", "prediction_timedelta", ...)
    np.testing.assert_array_equal(field.values, values)


@pytest.mark.parametrize("pieces", [("time",), ("step",), ("time", "step")])
def test_one_file_for_each_initial_time_or_lead(tmp_path, pieces):
    whole = forecast()
    for number, place in enumerate(np.ndindex(*(whole.sizes[dim] for dim in pieces))):
        whole.isel(dict(zip(pieces, place, strict=True))).to_netcdf(tmp_path / f"f_{number}.nc")
    assert_same(open_forecast(str(tmp_path / "f_*.nc")), whole["t2m"].values)
    assert_same(open_forecast(tmp_path), whole["t2m"].values)
    assert_same(open_forecast(sorted(tmp_path.iterdir(), reverse=True)), whole["t2m"].values)
    with pytest.raises(ValueError, match="each once"):
        open_forecast([tmp_path / "f_0.nc", tmp_path / "f_0.nc"])


def test_one_file_for_each_member_or_variable(tmp_path):
    whole = forecast(number=2)
    for number in range(2):
        whole.isel(number=number).assign_coords(number=number).to_netcdf(tmp_path / f"m_{number}.nc")
    assert open_forecast(str(tmp_path / "m_*.nc")).sizes["member"] == 2
    forecast().to_netcdf(tmp_path / "v_0.nc")
    forecast().rename(t2m="msl").to_netcdf(tmp_path / "v_1.nc")
    assert set(open_forecast(str(tmp_path / "v_*.nc"))) == {"2m_temperature", "mean_sea_level_pressure"}


@pytest.mark.parametrize("name", ["ens", "M", "mem", "sample", "realization", "number", "Member", "member_id"])
def test_members_by_any_of_their_names(tmp_path, name):
    assert opened(forecast(**{name: 2}), tmp_path / "a.nc").sizes["member"] == 2


def test_members_by_a_name_that_is_told(tmp_path):
    whole = forecast(run=2)
    with pytest.raises(ValueError, match="members=run"):
        opened(whole, tmp_path / "a.nc")
    assert open_forecast(tmp_path / "a.nc", members="run").sizes["member"] == 2
    assert "member" not in open_forecast(tmp_path / "a.nc", select={"run": 1}).dims
    for options, told in (({"members": "ran"}, "members: no 'ran'"), ({"rename": {"x": "y"}}, "rename: no 'x'")):
        with pytest.raises(ValueError, match=told):
            open_forecast(tmp_path / "a.nc", **options)


def ace(starts, valid_shift=0):
    """Layout of ACE: `time` counts microseconds from the initial time of each sample."""
    starts = np.asarray(starts)
    values = RNG.normal(size=(starts.size, 4, 4, 8)).astype("f4")
    valid = starts[:, None] + LEADS + valid_shift * H
    clock = {"units": "microseconds since 1970-01-01"}
    made = xr.Dataset(
        {"t2m": (("sample", "time", "lat", "lon"), values, {"units": "K"}),
         "init_time": ("sample", starts), "valid_time": (("sample", "time"), valid)},
        {"time": ("time", LEADS.astype("timedelta64[us]").astype(int), {"units": "microseconds"}),
         "lat": SPACE["latitude"], "lon": SPACE["longitude"]},
    )  # fmt: skip
    for name in ("init_time", "valid_time"):
        made[name].encoding = clock
    return made


def test_samples_are_initial_times_members_or_both(tmp_path):
    plain = ace(INITS)
    assert_same(opened(plain, tmp_path / "a.nc"), plain["t2m"].values)
    graphcast = plain.drop_vars("init_time").rename(sample="batch", valid_time="datetime")
    assert_same(opened(graphcast, tmp_path / "g.nc"), plain["t2m"].values)
    assert opened(ace([T0] * 3), tmp_path / "b.nc").sizes["member"] == 3
    both = ace(np.tile(INITS, 2))
    found = opened(both, tmp_path / "c.nc")
    assert (found.sizes["time"], found.sizes["member"]) == (3, 2)
    field = found["2m_temperature"].sel(time=INITS[1]).isel(member=1)
    np.testing.assert_array_equal(field.values, both["t2m"].values[4])
    with pytest.raises(ValueError, match="1 to 2 times each"):
        opened(ace([*INITS, T0]), tmp_path / "d.nc")
    with pytest.raises(ValueError, match=r"'valid_time' of .* contradicts initial time"):
        opened(ace(INITS, valid_shift=1), tmp_path / "e.nc")


def test_one_forecast_by_valid_time(tmp_path):
    one = forecast().isel(time=0).assign_coords(valid_time=("step", T0 + LEADS)).swap_dims(step="valid_time")
    bare = one.drop_vars("step")
    iris = bare.rename(time="forecast_reference_time").rename(valid_time="time")
    for number, dataset in enumerate((one, bare, iris)):
        found = opened(dataset, tmp_path / f"{number}.nc")
        np.testing.assert_array_equal(found["valid_time"].values, [T0 + LEADS])
    with pytest.raises(ValueError, match=r"contradicts 'time' \+ 'step'"):
        opened(one.assign_coords(step=("valid_time", LEADS // 2)), tmp_path / "x.nc")


def test_initial_times_told_twice_are_compared(tmp_path):
    both = forecast().assign_coords(forecast_reference_time=("time", INITS))
    assert_same(opened(both, tmp_path / "a.nc"), both["t2m"].values)
    with pytest.raises(ValueError, match="contradicts 'forecast_reference_time'"):
        opened(both.assign_coords(forecast_reference_time=("time", INITS + 6 * H)), tmp_path / "b.nc")


@pytest.mark.parametrize("unit", [1, 10**9])
def test_lead_times_in_seconds_or_nanoseconds_without_units(tmp_path, unit):
    found = opened(forecast().assign_coords(step=3600 * unit * np.array([6, 12, 18, 24])), tmp_path / "s.nc")
    np.testing.assert_array_equal(found["valid_time"].values, INITS[:, None] + LEADS)
    assert "seconds" in found.attrs["assumed"]
    assert with_likely_leads(found, T0 + 144 * H * np.arange(9)).attrs == found.attrs  # never taken for days


@pytest.mark.parametrize(
    "texts", [["6h", "12h", "18h", "1d"], ["PT6H", "PT12H", "PT18H", "P1D"], ["6 hours", "12 hrs", "18hr", "1 day"]]
)
def test_lead_times_in_text(tmp_path, texts):
    found = opened(forecast().assign_coords(step=texts), tmp_path / "t.nc")
    np.testing.assert_array_equal(found["valid_time"].values, INITS[:, None] + LEADS)
    assert not found.attrs["assumed"]
    with pytest.raises(ValueError, match=r"are text \('soon'\); expected lengths such as 6h or PT6H"):
        opened(forecast().assign_coords(step=["6h", "soon", "18h", "1d"]), tmp_path / "u.nc")


def test_lead_times_without_units(tmp_path):
    days = forecast().assign_coords(step=[1, 2, 3, 4])
    valid = INITS[:, None] + 24 * H * np.arange(1, 5)
    assumed = opened(days, tmp_path / "a.nc")
    assert "have no units; read as hours" in assumed.attrs["assumed"]
    six_hourly, hourly = T0 + 6 * H * np.arange(40), T0 + H * np.arange(240)
    likely = with_likely_leads(assumed, six_hourly)
    np.testing.assert_array_equal(likely["valid_time"].values, valid)
    assert "read as days" in likely.attrs["assumed"]
    with pytest.raises(ValueError, match="hours as well as days"):
        with_likely_leads(assumed, hourly)
    hours = opened(forecast().assign_coords(step=[6, 12, 18, 24]), tmp_path / "h.nc")
    np.testing.assert_array_equal(with_likely_leads(hours, hourly)["valid_time"].values, INITS[:, None] + LEADS)
    told = open_forecast(tmp_path / "a.nc", units={"prediction_timedelta": "days"})
    checked = opened(days.assign_coords(valid_time=(("time", "step"), valid)), tmp_path / "b.nc")
    for found in (told, checked):
        np.testing.assert_array_equal(found["valid_time"].values, valid)
        assert not found.attrs["assumed"]


@pytest.mark.filterwarnings("ignore")
def test_archives_and_references(tmp_path):
    truth = forecast().isel(step=0, drop=True)
    truth.to_zarr(tmp_path / "a.zarr", zarr_format=2, consolidated=True)
    for version in (2, 3):
        store = zarr.storage.ZipStore(tmp_path / f"v{version}.zarr.zip", mode="w")
        truth.to_zarr(store, zarr_format=version)
        store.close()
    with zipfile.ZipFile(tmp_path / "inside.zip", "w") as archive:
        for file in sorted((tmp_path / "a.zarr").rglob("*")):
            archive.write(file, file.relative_to(tmp_path))
    for name in ("v2.zarr.zip", "v3.zarr.zip", "inside.zip"):
        for engine in (None, "netcdf", "zarr"):
            found = open_dataset(tmp_path / name, engine=engine)
            np.testing.assert_array_equal(found["2m_temperature"].values, truth["t2m"].values)


def test_what_a_file_is_that_is_no_data(tmp_path):
    forecast().to_netcdf(tmp_path / "a.nc")
    with zipfile.ZipFile(tmp_path / "cds.nc", "w") as archive:
        archive.write(tmp_path / "a.nc", "data_stream-oper.nc")
    (tmp_path / "a.nc.gz").write_bytes(gzip.compress(b"x"))
    (tmp_path / "page.nc").write_text("<html>404</html>")
    for name, told in (
        ("cds.nc", "ZIP archive of data_stream-oper.nc; unpack it first"),
        ("a.nc.gz", "gunzip"),
        ("page.nc", "web page"),
    ):
        with pytest.raises(ValueError, match=told):
            open_dataset(tmp_path / name)
