"""Missing values are those that the CF conventions call so, in the type of the data; zeros of Zarr v2 are numbers."""

import netCDF4
import numpy as np
import pytest
import zarr

from data_pipelines.opening.datasets import open_dataset

LATITUDE, LONGITUDE = np.linspace(80.0, -80.0, 5), np.arange(8) * 45.0


def netcdf(path, numbers, **said):
    """A file with one field `tas` of these numbers, (time, 5, 8); what is masked is never written."""
    with netCDF4.Dataset(path, "w") as file:
        for name, size in (("time", None), ("lat", 5), ("lon", 8)):
            file.createDimension(name, size)
        time = file.createVariable("time", "f8", ("time",))
        time.units = "hours since 2001-01-01"
        file.createVariable("lat", "f8", ("lat",))[:] = LATITUDE
        file.createVariable("lon", "f8", ("lon",))[:] = LONGITUDE
        field = file.createVariable(
            "tas", numbers.dtype, ("time", "lat", "lon"), fill_value=said.pop("_FillValue", None)
        )
        field.set_auto_maskandscale(False)
        field.setncatts({"units": "K", **said})
        time[: len(numbers)] = np.arange(len(numbers)) * 6.0
        for n in range(len(numbers)):
            if not np.ma.is_masked(numbers[n]):
                field[n] = numbers[n]
    return path


def missing(path):
    return np.isnan(open_dataset(path)["2m_temperature"].values)


@pytest.mark.parametrize("kind", ["f4", "f8", "i2", "i4"])
def test_records_that_were_never_written(tmp_path, kind):
    numbers = np.ma.masked_array(np.full((4, 5, 8), 280, kind), mask=False)
    numbers[1] = np.ma.masked
    wanted = np.zeros((4, 5, 8), bool)
    wanted[1] = True
    np.testing.assert_array_equal(missing(netcdf(tmp_path / "f.nc", numbers)), wanted)


def test_without_prefilling_the_default_is_a_number(tmp_path):
    path = tmp_path / "f.nc"
    numbers = np.full((2, 5, 8), 280, "i2")
    numbers[0, 0, 0] = -32767
    with netCDF4.Dataset(path, "w") as file:
        file.set_fill_off()
    netcdf(path, numbers)
    assert missing(path).sum() == 1


CASES = {
    "another precision, single data": ("f4", -999.9, {"missing_value": np.float64(-999.9)}),
    "another precision, double data": ("f8", -999.9, {"missing_value": np.float32(-999.9)}),
    "text": ("f4", -999.9, {"missing_value": "-999.9f"}),
    "several": ("f4", 1e20, {"missing_value": np.array([-999.9, 1e20])}),
    "both attributes": ("f4", -999.0, {"_FillValue": np.float32(1e20), "missing_value": np.float32(-999.0)}),
    "below the range": ("f4", 100.0, {"valid_min": np.float32(150.0)}),
    "above the range": ("f4", 500.0, {"valid_range": np.array([150.0, 400.0])}),
    "range of integers": ("i2", -32000, {"valid_range": np.array([-1000, 1000], "i2"), "scale_factor": 1.0}),
    "range of unpacked numbers": ("i2", 900, {"valid_max": 400.0, "scale_factor": 1.0, "add_offset": 0.5}),
    "a mark of the wrong size": ("i2", -999, {"missing_value": np.array([-999, 10**6], "i4")}),
}


@pytest.mark.parametrize("case", CASES)
def test_marks_and_ranges(tmp_path, case):
    kind, mark, said = CASES[case]
    numbers = np.full((2, 5, 8), 280, kind)
    numbers[1, 2, 3] = mark
    found = missing(netcdf(tmp_path / "f.nc", numbers, **said))
    assert np.argwhere(found).tolist() == [[1, 2, 3]]


def test_bounds_of_a_range_are_valid(tmp_path):
    numbers = np.full((1, 5, 8), 0.1, "f4")
    assert not missing(netcdf(tmp_path / "f.nc", numbers, valid_min=0.1, valid_max=0.1)).any()


@pytest.mark.parametrize(
    "said", [{"scale_factor": "small"}, {"missing_value": "none"}, {"valid_range": np.array([1.0])}]
)
def test_attributes_that_are_no_numbers_are_named(tmp_path, said):
    with pytest.raises(ValueError, match=next(iter(said))):
        open_dataset(netcdf(tmp_path / "f.nc", np.full((1, 5, 8), 280, "i2"), **said))


def test_text_packs_numbers_too(tmp_path):
    path = netcdf(tmp_path / "f.nc", np.full((1, 5, 8), 100, "i2"), scale_factor="0.01", add_offset="280")
    np.testing.assert_allclose(open_dataset(path)["2m_temperature"], 281.0, rtol=1e-6)


def store(path, version, fill, **said):
    """A store of zeros and ones written by zarr itself, with this fill value for every array."""
    group = zarr.open_group(path, mode="w", zarr_format=version)
    fields = {
        "time": (np.arange(2) * 6, {"units": "hours since 2001-01-01"}),
        "latitude": (np.linspace(90.0, -90.0, 5), {}),
        "longitude": (LONGITUDE, {}),
        "total_precipitation": (np.indices((2, 5, 8)).sum(0).astype("f4") % 2, {"units": "m", **said}),
    }
    for name, (values, attributes) in fields.items():
        dims = [name] if values.ndim == 1 else ["time", "latitude", "longitude"]
        named = {"dimension_names": dims} if version == 3 else {}
        array = group.create_array(
            name, shape=values.shape, chunks=values.shape, dtype=values.dtype, fill_value=fill, **named
        )
        array[...] = values
        array.attrs.update(attributes | ({"_ARRAY_DIMENSIONS": dims} if version == 2 else {}))
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_zeros_of_zarr_are_numbers(tmp_path, version):
    opened = open_dataset(store(tmp_path / "s.zarr", version, 0))
    assert opened["latitude"].values.tolist() == [90.0, 45.0, 0.0, -45.0, -90.0]
    assert opened["longitude"].values[0] == 0.0
    assert not np.isnan(opened["total_precipitation"]).any()
    assert opened["total_precipitation"].values[0, 0, 0] == 0.0


@pytest.mark.parametrize("version", [2, 3])
def test_zeros_that_are_declared_are_missing(tmp_path, version):
    opened = open_dataset(store(tmp_path / "s.zarr", version, 0, missing_value=0.0))
    assert np.isnan(opened["total_precipitation"].values[0, 0, 0])


def test_a_plain_number_as_fill_value_of_version_3(tmp_path):
    opened = open_dataset(store(tmp_path / "s.zarr", 3, 7, _FillValue=1.0))
    assert np.isnan(opened["total_precipitation"].values[0, 0, 1])
