"""The same quantity in other units is refused wherever fields meet."""

import numpy as np
import pytest
import xarray as xr

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.world import VariableRoles, world_from_dataset
from data_pipelines.conventions.units import refuse_other_units
from data_pipelines.opening.datasets import open_dataset
from data_pipelines.verification.matching import shared_variables
from emulators.grid import gaussian_grid

GRID = gaussian_grid(4)


def dataset(units, start="2001-01-01"):
    times = np.datetime64(start, "ns") + np.arange(4) * np.timedelta64(6, "h")
    field = (("time", "latitude", "longitude"), np.ones((4, *GRID.shape), np.float32), {"units": units})
    return xr.Dataset({"p": field}, {"time": times, "latitude": GRID.latitude, "longitude": GRID.longitude})


@pytest.mark.parametrize(
    ("one", "other"), [("K", "kelvin"), ("m**2 s**-2", "m2/s2"), ("Pa", ""), ("kg kg**-1", "1"), ("m s-1", "m/s")]
)
def test_spellings_and_what_is_not_known_pass(one, other):
    assert refuse_other_units("x", one, other, "the data") is None


@pytest.mark.parametrize(("one", "other"), [("K", "degC"), ("Pa", "hPa"), ("m", "m2 s-2"), ("kg kg-1", "g/kg")])
def test_other_units_are_refused(one, other):
    with pytest.raises(ValueError, match="Convert it first"):
        refuse_other_units("x", one, other, "the data")


def test_a_run_a_truth_and_a_second_file_in_other_units(tmp_path):
    a_world = world_from_dataset(dataset("Pa"), VariableRoles(["p"]))
    Archive(dataset("Pa"), a_world)
    said = r"'p' is in 'hPa' in .*; expected it in 'Pa'"
    with pytest.raises(ValueError, match=said):
        Archive(dataset("hPa"), a_world)
    with pytest.raises(ValueError, match=said):
        shared_variables(dataset("Pa"), dataset("hPa"))
    for number, units in enumerate(("Pa", "hPa"), start=1):
        dataset(units, f"2001-01-0{number}").to_netcdf(tmp_path / f"{number}.nc")
    with pytest.raises(ValueError, match=said):
        open_dataset(str(tmp_path / "*.nc"))
    dataset("pascal", "2001-01-02").to_netcdf(tmp_path / "2.nc")
    assert open_dataset(str(tmp_path / "*.nc"))["p"].attrs["units"] == "Pa"
