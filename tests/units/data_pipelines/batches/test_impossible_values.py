"""Training refuses values that no such variable has, and numbers that lie apart from all others."""

import json

import numpy as np
import pytest
import xarray as xr

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.world import VariableRoles, world_from_dataset

ROWS, COLUMNS = np.linspace(75.0, -75.0, 6), np.arange(8) * 45.0


def dataset(name="2m_temperature", units="K", mean=280.0):
    times = np.datetime64("2001-01-01", "ns") + np.arange(6) * np.timedelta64(6, "h")
    values = np.random.default_rng(0).normal(mean, 10.0, (6, 6, 8)).astype("f4")
    coords = {"time": times, "latitude": ROWS, "longitude": COLUMNS}
    return xr.Dataset({name: (("time", "latitude", "longitude"), values, {"units": units})}, coords)


def gathered(data):
    name = next(iter(data.data_vars))
    return Archive(data, world_from_dataset(data, VariableRoles([name]))).gather(np.arange(6))


@pytest.mark.parametrize(("name", "units"), [("2m_temperature", "K"), ("chlorophyll", "mg m-3"), ("nameless", "")])
@pytest.mark.parametrize("number", [-999.9, 1e20, 9.96921e36])
def test_one_number(name, units, number):
    data = dataset(name, units)
    data[name][4, 1, 2] = number
    with pytest.raises(ValueError, match=rf"'{name}' is .* at 45 N, 90 E at 2001-01-02T00:00:00 .*missing_value"):
        gathered(data)


def test_a_time_of_zeros():
    data = dataset()
    data["2m_temperature"][0] = 0.0
    with pytest.raises(ValueError, match="beyond the physical range 165 to 345"):
        gathered(data)


def test_degrees_celsius_that_are_called_kelvin_are_refused_with_the_units_to_write():
    with pytest.raises(ValueError, match=r"look like degC: write data\.units=\{2m_temperature: 'degC -> K'\}"):
        gathered(dataset(mean=0.0))


def test_what_is_declared_or_simple_is_taken():
    data = dataset()
    data["2m_temperature"][4, 1, 2] = 400.0
    wider = data.assign_attrs(ranges=json.dumps({"2m_temperature": [150, 450]}))
    for taken in (wider, dataset(mean=1000.0), dataset("nameless", "")):
        largest = float(next(iter(taken.values())).max())
        assert float(np.asarray(gathered(taken)).max()) == pytest.approx(largest)
