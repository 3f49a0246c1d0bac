"""Opening data: every layout becomes the one form, or one sentence says what is wrong."""

import re
import shutil
import warnings

import cftime
import numpy as np
import pytest
import xarray as xr
import zarr

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.world import VariableRoles, world_from_dataset
from data_pipelines.conventions.attributes import grid_of
from data_pipelines.conventions.canonical import canonical
from data_pipelines.conventions.durations import spacing
from data_pipelines.derived.shaping import shaped
from data_pipelines.opening.datasets import open_dataset
from data_pipelines.reading import threads

LATITUDE = np.array([80.0, 40.0, 0.0, -40.0, -80.0])
LONGITUDE = np.arange(8) * 45.0
LEVELS = np.array([250.0, 500.0, 850.0])


def value(time, level, latitude, longitude):
    """A field that tells its own place."""
    return 1000.0 * time + 0.1 * level + latitude + longitude / 1000.0


def dataset(count=4, start="2001-01-01", hours=6) -> xr.Dataset:
    times = np.datetime64(start, "ns") + np.arange(count) * np.timedelta64(hours, "h")
    axes = np.meshgrid(np.arange(count), LEVELS, LATITUDE, LONGITUDE, indexing="ij")
    return xr.Dataset(
        {
            "temperature": (("time", "level", "latitude", "longitude"), value(*axes).astype("float32"), {"units": "K"}),
            "land_sea_mask": (("latitude", "longitude"), np.eye(5, 8, dtype="float32")),
        },
        {"time": times, "level": LEVELS, "latitude": LATITUDE, "longitude": LONGITUDE},
    )


def assert_canonical(ds: xr.Dataset, name="temperature") -> None:
    """The one form, with every value in its place."""
    assert ds[name].dims == ("time", "level", "latitude", "longitude")
    axes = np.meshgrid(np.arange(ds.sizes["time"]), ds.level, ds.latitude, ds.longitude, indexing="ij")
    assert grid_of(ds).longitude[0] == 0.0
    np.testing.assert_allclose(ds[name].values, value(*axes), rtol=1e-6, atol=2e-4)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("consolidated", [True, False])
def test_zarr(tmp_path, zarr_format, consolidated):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset().to_zarr(tmp_path / "a.zarr", zarr_format=zarr_format, consolidated=consolidated)
    assert_canonical(open_dataset(tmp_path / "a.zarr"))
    assert_canonical(open_dataset(f"file://{tmp_path}/a.zarr"))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("change", ["shape", "scale_factor"])
def test_consolidated_metadata_that_contradict_those_of_an_array_are_refused(tmp_path, zarr_format, change):
    store = tmp_path / "a.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset().to_zarr(store, zarr_format=zarr_format, consolidated=True)
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    if change == "shape":
        group["time"].resize((2,))
        group["temperature"].resize((2, *dataset()["temperature"].shape[1:]))
    else:
        group["temperature"].attrs["scale_factor"] = 0.1
    with pytest.raises(ValueError, match=rf"{change} .* of '\w+', its own"):
        open_dataset(store)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(store)
    assert open_dataset(store).sizes["time"] == (2 if change == "shape" else 4)


def test_zarr_in_memory():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset().transpose("time", "level", "longitude", "latitude").to_zarr("memory://store/a.zarr")
    assert_canonical(open_dataset("memory://store/a.zarr"))
    with pytest.raises(FileNotFoundError, match="No Zarr store at memory"):
        open_dataset("memory://store/b.zarr")


@pytest.mark.parametrize(
    "names",
    [
        {"latitude": "lat", "longitude": "lon", "level": "plev"},
        {"latitude": "y", "longitude": "x", "level": "pressure_level", "time": "valid_time"},
        {"latitude": "Y", "longitude": "X", "level": "isobaricInhPa", "time": "T"},
        {"level": "pressure", "temperature": "t"},
        {"level": "lev", "temperature": "ta"},
    ],
)
def test_netcdf_of_any_layout(tmp_path, names):
    ds = dataset().rename(names)
    back = {new: old for old, new in names.items()}
    ds = ds.transpose(*[d for k in ("longitude", "time", "latitude", "level") for d in ds.dims if back.get(d, d) == k])
    lat, lon = names.get("latitude", "latitude"), names.get("longitude", "longitude")
    ds = ds.isel({lat: slice(None, None, -1)}).assign_coords({lon: (ds[lon] + 180) % 360 - 180}).sortby(lon)
    ds = ds.expand_dims(number=[0])
    field = names.get("temperature", "temperature")
    packed = {"dtype": "int32", "scale_factor": 1e-4, "add_offset": 1000.0, "_FillValue": -2147483647}
    ds.to_netcdf(tmp_path / "a.nc", encoding={field: packed})
    ds = open_dataset(tmp_path / "a.nc")
    np.testing.assert_allclose(ds.latitude, LATITUDE)
    np.testing.assert_allclose(ds.longitude, LONGITUDE)
    assert_canonical(ds)
    np.testing.assert_array_equal(ds.land_sea_mask.squeeze(), np.eye(5, 8))


def test_many_files_join_in_time_and_by_variable(tmp_path):
    whole = dataset(8)
    for number in range(4):  # named against the order of time
        whole.isel(time=slice(2 * number, 2 * number + 2)).to_netcdf(tmp_path / f"part{9 - number}.nc")
    other = whole[["temperature"]].rename(temperature="specific_humidity")
    other.to_netcdf(tmp_path / "humidity.nc")
    assert_canonical(open_dataset(str(tmp_path / "part*.nc")))
    assert_canonical(open_dataset([tmp_path / "part9.nc", tmp_path / "part8.nc"]))
    both = open_dataset(str(tmp_path / "*.nc"))
    assert set(both.data_vars) == {"temperature", "specific_humidity", "land_sea_mask"}
    assert_canonical(both, "specific_humidity")
    whole.isel(time=slice(1, 3)).to_netcdf(tmp_path / "part_overlap.nc")
    with pytest.raises(ValueError, match="repeated"):
        open_dataset(str(tmp_path / "part*.nc"))


def test_text_beside_the_data_is_never_read(tmp_path):
    """`expver` of the Climate Data Store: netCDF-C crashes where it was read from a file that is opened twice."""
    whole = dataset(4).assign_coords(expver=("time", np.array(["0001"] * 4, dtype=object)))
    for number in range(2):
        whole.isel(time=slice(2 * number, 2 * number + 2)).to_netcdf(tmp_path / f"{number}.nc")
    kept = open_dataset(str(tmp_path / "*.nc"))
    for _ in range(2):
        open_dataset(str(tmp_path / "*.nc"))
    assert "expver" not in kept.coords
    assert kept["temperature"].mean().values > 0


def test_one_time_a_file(tmp_path):
    for number in range(3):
        dataset(3).isel(time=number).to_netcdf(tmp_path / f"{number}.nc")
    assert_canonical(open_dataset(str(tmp_path / "*.nc")))


def test_limited_area_across_the_zero_meridian():
    ds = dataset().isel(longitude=slice(0, 4)).assign_coords(longitude=[-20.0, -10.0, 0.0, 10.0])
    ds = canonical(ds.isel(longitude=[2, 3, 0, 1]))
    np.testing.assert_array_equal(ds.longitude, [340, 350, 0, 10])
    assert grid_of(ds).kind == "limited_area"


def test_repeated_last_column_is_left_out():
    ds = dataset()
    last = ds.isel(longitude=[0]).assign_coords(longitude=[360.0])
    ds = canonical(xr.concat([ds, last], "longitude", data_vars="minimal"))
    assert ds.sizes["longitude"] == 8


def test_levels_in_pascal_from_the_ground_up():
    ds = dataset().isel(level=slice(None, None, -1))
    ds = ds.assign_coords(level=("level", ds.level.values * 100.0, {"units": "Pa"}))
    ds = canonical(ds)
    np.testing.assert_array_equal(ds.level, LEVELS)
    assert_canonical(ds)


def test_levels_in_single_precision_are_those_they_are_written_as():
    ds = dataset().assign_coords(level=np.array([0.1, 0.3, 850.0], "float32"))
    ds = canonical(ds)
    np.testing.assert_array_equal(ds.level, [0.1, 0.3, 850.0])
    assert world_from_dataset(ds, VariableRoles([{"temperature": [0.1]}])).prognostic.channels


def test_further_dimension_names_the_option(tmp_path):
    ds = dataset().expand_dims(number=[3, 7])
    with pytest.raises(ValueError, match=r"'number' of 2 \(3, 7\).*select=\{number: 3\}"):
        canonical(ds[["temperature"]])
    assert_canonical(canonical(ds, select={"number": 7}))
    with pytest.raises(ValueError, match="'number' has no 4; it has 3, 7"):
        canonical(ds, select={"number": 4})
    with pytest.raises(ValueError, match="did you mean 'number'"):
        canonical(ds, select={"numbr": 3})
    assert canonical(ds, keep=["number"]).temperature.dims[:2] == ("time", "number")


def test_a_variable_left_out_is_explained_when_asked_for():
    ds = dataset()
    ds["u"] = ds["temperature"].expand_dims(member=[0, 1])
    ds = canonical(ds)
    with pytest.raises(ValueError, match=r"'u' is in the data but cannot be used.*select=\{member: 0\}"):
        world_from_dataset(ds, VariableRoles(["u"]))


def test_lead_times_are_decoded():
    ds = dataset().expand_dims(prediction_timedelta=[0, 6])
    ds = ds.assign_coords(prediction_timedelta=("prediction_timedelta", [0, 6], {"units": "hours"}))
    ds = canonical(ds, keep=["prediction_timedelta"])
    assert ds.prediction_timedelta.values[1] == np.timedelta64(6, "h")


def test_rename_goes_before_the_table():
    ds = canonical(dataset().rename(temperature="t"), {"t": "virtual_temperature"})
    assert "virtual_temperature" in ds.data_vars
    with pytest.raises(ValueError, match="did you mean 'temperature'"):
        canonical(dataset(), {"temprature": "t"})


@pytest.mark.parametrize(
    ("units", "name"),
    [("m**2 s**-2", "geopotential"), ("m", "geopotential_height"), ("gpm", "geopotential_height"), ("", "z")],
)
def test_z_is_what_its_units_say(units, name):
    ds = dataset().rename(temperature="z")
    ds.z.attrs["units"] = units
    assert name in canonical(ds).data_vars


def calendar_dataset(calendar, dates) -> xr.Dataset:
    times = xr.date_range(*dates[:1], periods=dates[1], freq=dates[2], calendar=calendar, use_cftime=True)
    return dataset(len(times)).assign_coords(time=times)


def test_calendar_without_leap_days(tmp_path):
    calendar_dataset("noleap", ("2004-02-27", 4, "D")).to_netcdf(tmp_path / "a.nc")
    ds = open_dataset(tmp_path / "a.nc")
    days = ["2004-02-27", "2004-02-28", "2004-03-01", "2004-03-02"]
    np.testing.assert_array_equal(ds.time.values, np.array(days, "datetime64[s]"))
    assert spacing(ds.time.values) == np.timedelta64(1, "D")
    archive = Archive(ds, world_from_dataset(ds, VariableRoles(["temperature"])))
    assert archive.following.tolist() == [1, -1, 3, -1]


def test_calendar_of_360_days(tmp_path):
    calendar_dataset("360_day", ("2001-01-16", 14, "MS")).to_netcdf(tmp_path / "monthly.nc")
    ds = open_dataset(tmp_path / "monthly.nc")
    assert spacing(ds.time.values) == np.timedelta64(1, "M")
    calendar_dataset("360_day", ("2001-01-01", 720, "D")).to_netcdf(tmp_path / "daily.nc")
    times = open_dataset(tmp_path / "daily.nc").time.values
    assert spacing(times) == np.timedelta64(1, "D")
    steps = np.diff(times).astype("timedelta64[D]").astype(int)
    assert set(steps) == {1, 2}
    assert (steps == 2).sum() == 10  # five days of each year are gaps
    assert times[359] == np.datetime64("2001-12-31")


def test_months_since_a_date():
    ds = dataset(3).assign_coords(time=("time", [0.5, 1.5, 2.5], {"units": "months since 1960-01-01"}))
    days = np.array(["1960-01-16", "1960-02-16", "1960-03-16"], "datetime64[s]")
    np.testing.assert_array_equal(canonical(ds).time.values, days)
    ends = dataset(3).assign_coords(time=("time", [0, 1, 2], {"units": "months since 1960-01-31"}))
    days = np.array(["1960-01-31", "1960-02-29", "1960-03-31"], "datetime64[s]")
    np.testing.assert_array_equal(canonical(ends).time.values, days)


def test_names_that_only_some_files_have(tmp_path):
    ds = dataset(3)
    ds.to_netcdf(tmp_path / "a.nc")
    name = next(iter(ds.data_vars))
    xr.Dataset({"lsm": ds[name].isel(time=0, drop=True)}).to_netcdf(tmp_path / "b.nc")
    paths = [tmp_path / "a.nc", tmp_path / "b.nc"]
    assert {"x", "land"} <= set(open_dataset(paths, rename={name: "x", "lsm": "land"}).data_vars)
    with pytest.raises(ValueError, match="rename: no 'lms'"):
        open_dataset(paths, rename={"lms": "land"})


@pytest.mark.parametrize(
    ("dim", "told", "expected"),
    [
        ("month", "1979-01/6M", ["1979-01-01", "1979-07-01"]),
        ("month", "1979-01-15T12/1M", ["1979-01-15T12", "1979-02-15T12"]),
        ("time", ["1979-01-01", "1979-01-03"], ["1979-01-01", "1979-01-03"]),
    ],
)
def test_dates_of_a_dimension_that_tells_none(tmp_path, dim, told, expected):
    ds = xr.Dataset({"t": ((dim, "lat", "lon"), np.ones((2, 4, 8)), {"units": "K"})},
                    {"lat": [60.0, 20.0, -20.0, -60.0], "lon": 45.0 * np.arange(8)})  # fmt: skip
    if dim == "month":
        ds = ds.assign_coords(month=[1, 7])
    ds.to_netcdf(tmp_path / "a.nc")
    with pytest.raises(ValueError, match=re.escape(f"data.dates={{{dim}: 1979-01")):
        open_dataset(tmp_path / "a.nc")
    found = open_dataset(tmp_path / "a.nc", dates={dim: told})
    np.testing.assert_array_equal(found["time"], np.array(expected, "datetime64[s]"))
    for wrong, said in (({dim: "1979-01"}, "expected first/step"), ({dim: ["1979"]}, "has 2 entries, 1 dates"),
                        ({"months": "1979-01/1M"}, "no dimension 'months'")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            open_dataset(tmp_path / "a.nc", dates=wrong)


def test_dates_beyond_nanoseconds():
    times = np.array([cftime.DatetimeGregorian(y, 1, 1) for y in (850, 851, 852)])
    assert canonical(dataset(3).assign_coords(time=times)).time.values[0] == np.datetime64("0850-01-01")


@pytest.mark.parametrize(
    ("order", "said"), [([0, 2, 1, 3], "out of order"), ([0, 1, 1, 2], "repeated"), ([3, 2, 1, 0], "out of order")]
)
def test_times_in_disorder(order, said):
    with pytest.raises(ValueError, match=said):
        canonical(dataset().isel(time=order))


@pytest.mark.parametrize(
    ("attributes", "said"),
    [({}, "numbers with no units"), ({"units": "day as %Y%m%d.%f"}, "numbers with units 'day as")],
)
def test_times_without_sense(attributes, said):
    with pytest.raises(ValueError, match=said):
        canonical(dataset().assign_coords(time=("time", [0, 1, 2, 3], attributes)))


def test_grids_that_are_none():
    ds = dataset()
    metres = ds.rename(latitude="y", longitude="x").assign_coords(y=("y", LATITUDE * 1e5, {"units": "m"}))
    with pytest.raises(ValueError, match="projected"):
        canonical(metres)
    two = ds.rename(latitude="j", longitude="i").drop_vars(["i", "j"])
    turned = np.add.outer(LATITUDE, LONGITUDE / 90)
    with pytest.raises(ValueError, match="of the same points"):
        canonical(two.assign_coords(lat=(("j", "i"), turned), lon=("i", LONGITUDE)))
    straight = np.meshgrid(LATITUDE, LONGITUDE, indexing="ij")
    assert_canonical(canonical(two.assign_coords(lat=(("j", "i"), straight[0]), lon=(("j", "i"), straight[1]))))
    with pytest.raises(ValueError, match="set of points"):
        canonical(ds.stack(cell=["latitude", "longitude"]).drop_vars(["cell", "latitude", "longitude"]))
    with pytest.raises(ValueError, match="Latitudes in"):
        canonical(ds.assign_coords(latitude=LATITUDE * 2))
    with pytest.raises(ValueError, match="repeated"):
        canonical(ds.isel(latitude=[0, 1, 1, 2]))


def test_missing_paths_name_what_is_near(tmp_path):
    dataset().to_netcdf(tmp_path / "winters.nc")
    with pytest.raises(FileNotFoundError, match=r"did you mean '.*winters\.nc'"):
        open_dataset(tmp_path / "winter.nc")
    with pytest.raises(FileNotFoundError, match="No file matches"):
        open_dataset(str(tmp_path / "*.zarr"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no Zarr store"):
        open_dataset(tmp_path / "empty")


@pytest.mark.parametrize("file_format", ["NETCDF4", "NETCDF3_64BIT"])
def test_truncated_file(tmp_path, file_format):
    path = tmp_path / "a.nc"
    ds = dataset(200)
    ds.to_netcdf(path, format=file_format)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"damaged|incomplete"):
        Archive(ds := open_dataset(path), world_from_dataset(ds, VariableRoles(["temperature"]))).load(["2001", "2001"])


def test_truncated_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "WAITS", (0.0,))
    dataset(8).to_zarr(tmp_path / "a.zarr", encoding={"temperature": {"chunks": (2, 3, 5, 8)}}, zarr_format=3)
    ds = open_dataset(tmp_path / "a.zarr")
    archive = Archive(ds, world_from_dataset(ds, VariableRoles(["temperature"])))
    chunk = tmp_path / "a.zarr" / "temperature" / "c" / "2" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(ValueError, match=r"Cannot read 'temperature' at 2001-01-02T00:00:00.*damaged or incomplete"):
        archive.states(np.datetime64("2001-01-02T00"))
    archive.states(np.datetime64("2001-01-01T00"))
    shutil.rmtree(tmp_path / "a.zarr" / "temperature" / "c")
    with pytest.raises(ValueError, match="missing"):
        Archive(ds, archive.world).states(np.datetime64("2001-01-01T06"))


def test_heights_are_interpolated_in_height():
    made = dataset().assign_coords(level=("level", [100.0, 500.0, 900.0], {"units": "m"}))
    at = shaped(canonical(made), levels=[200.0])["temperature"]
    expected = made["temperature"].interp(level=200.0)
    np.testing.assert_allclose(at.isel(level=0).values, expected.values, rtol=1e-6)


def test_levels_are_chosen_or_interpolated_in_log_pressure():
    ds = canonical(dataset())
    np.testing.assert_array_equal(shaped(ds, levels=[500]).temperature, ds.temperature.sel(level=[500]))
    linear = xr.DataArray(np.log(LEVELS), dims="level") + 0 * ds.temperature
    between = shaped(ds.assign(temperature=linear.transpose(*ds.temperature.dims)), levels=[300, 500, 700])
    np.testing.assert_allclose(between.temperature.isel(time=0, latitude=0, longitude=0), np.log([300, 500, 700]))
    with pytest.raises(ValueError, match="1000 lies beyond those of the data, 250 to 850"):
        shaped(ds, levels=[500, 1000])


def test_fill_and_timestep():
    ds = canonical(dataset())
    ds = ds.assign(temperature=ds.temperature.where(ds.latitude > 0))
    filled = shaped(ds, fill={"temperature": -1.0}, timestep="12h")
    assert float(filled.temperature.min()) == -1.0
    assert world_from_dataset(filled, VariableRoles(["temperature"])).timestep == np.timedelta64(12, "h")
    with pytest.raises(ValueError, match="did you mean 'temperature'"):
        shaped(ds, fill={"temperatur": 0.0})


def test_surface_pressure_is_where_geopotential_is_that_of_the_ground():
    ds = canonical(dataset()).rename(temperature="geopotential")
    scale = 80000.0  # phi = -scale ln(p / p0): an isothermal atmosphere
    phi = -scale * np.log(xr.DataArray(LEVELS * 100, dims="level") / 101325.0) + 0 * ds.geopotential
    ds = ds.assign(geopotential=phi.transpose(*ds.geopotential.dims))
    np.testing.assert_allclose(shaped(ds, derive=["surface_pressure"]).surface_pressure, 101325.0, rtol=1e-5)
    raised = ds.assign(geopotential_at_surface=0.0 * ds.land_sea_mask + scale * np.log(101325.0 / 60000.0))
    np.testing.assert_allclose(shaped(raised, derive=["surface_pressure"]).surface_pressure, 60000.0, rtol=1e-5)
    with pytest.raises(ValueError, match="needs geopotential"):
        shaped(canonical(dataset()), derive=["surface_pressure"])
