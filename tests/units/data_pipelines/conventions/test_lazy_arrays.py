"""What is transposed lazily has the values that xarray gives, and is read axis by axis."""

import numpy as np
import pytest
import xarray as xr

from data_pipelines.conventions.lazy_arrays import LazyArray, lazy_source, lazy_variable, transposed

DIMS, ORDER = ("time", "number", "level", "longitude"), ("number", "level", "longitude", "time")
VALUES = np.random.default_rng(0).normal(size=(5, 4, 3, 6))
CUTS = [  # before the dimensions are ordered, and after
    ({}, {}),
    ({}, {"time": [4, 0], "number": np.array([3, 1]), "longitude": slice(1, 5, 2)}),
    ({"time": 2, "longitude": slice(None, None, -1)}, {"longitude": slice(4, None, -2), "level": 1}),
    ({"time": [4, 0, 2], "number": np.array([3, 1])}, {"time": [2, 1], "number": 0, "level": [2, 0]}),
    ({"longitude": slice(1, None, 2)}, {"longitude": [2, 0], "time": slice(3)}),
]


class Recorded(LazyArray):
    """Values that record how much is read."""

    def __init__(self) -> None:
        self.shape, self.dtype, self.reads = VALUES.shape, VALUES.dtype, list[int]()

    def read(self, key: tuple) -> np.ndarray:
        values = VALUES
        for axis in reversed(range(VALUES.ndim)):
            values = values[(slice(None),) * axis + (key[axis],)]
        self.reads.append(values.size)
        return values


def dataset(array: Recorded) -> xr.Dataset:
    return xr.Dataset({"field": lazy_variable(DIMS, array), "held": (DIMS, VALUES)})


@pytest.mark.parametrize(("before", "after"), CUTS)
def test_the_values_are_those_of_xarray(before, after):
    array = Recorded()
    field = transposed(dataset(array).isel(before), *ORDER)["field"].isel(after)
    expected = xr.Variable(DIMS, VALUES).isel(before).transpose(*ORDER, missing_dims="ignore").isel(after)
    assert field.dims == expected.dims
    assert not array.reads
    np.testing.assert_array_equal(field.values, expected.values)
    assert array.reads == [field.size]  # nothing more was read
    again = transposed(field.to_dataset(), "level", ...)["field"]
    np.testing.assert_array_equal(again.values, expected.transpose("level", ..., missing_dims="ignore").values)


def test_the_array_that_is_stored_is_recognised():
    array = Recorded()
    field = transposed(dataset(array), *ORDER)["field"].isel(time=[3, 1])
    source = lazy_source(field.variable)
    assert source is not None
    assert source.array is array
    assert source.order == (1, 2, 3, 0)
    assert source.positions()[0].tolist() == [3, 1]


def test_stored_fields_are_read_axis_by_axis(tmp_path):
    path = tmp_path / "a.nc"
    xr.Dataset({"field": (DIMS, VALUES)}).to_netcdf(path)
    with xr.open_dataset(path) as stored:
        data = transposed(stored, *ORDER)
        np.testing.assert_array_equal(data["field"].isel(time=[4, 1]).values, VALUES[[4, 1]].transpose(1, 2, 3, 0))
