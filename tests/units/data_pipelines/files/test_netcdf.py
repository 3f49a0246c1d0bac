"""Scores in files say the units of each metric, and come back as they were."""

import json
import threading
import time

import numpy as np
import pytest
import xarray as xr
from xarray.backends.netCDF4_ import NETCDF4_PYTHON_LOCK

from data_pipelines.files.netcdf import opened_netcdf, read_form, stored_form, write_netcdf

SETTINGS = {
    "rmse": {"_target_": "a.RMSE", "levels": {"x": "it's"}},
    "mse": {"_target_": "a.MSE", "by_init": False, "shares": [0.1, None]},
}


def test_there_and_back(tmp_path):
    scores = xr.Dataset(
        {"temperature": (("metric", "region", "lead_time", "level"), np.ones((3, 1, 2, 1)), {"units": "K"})},
        {
            "metric": ["rmse", "mse", "acc"],
            "region": ["global"],
            "lead_time": np.array([6, 12], "timedelta64[h]").astype("timedelta64[ns]"),
            "inits": ("lead_time", [3, 3]),
            "level": ("level", [0.5], {"long_name": "sigma level", "units": ""}),
        },
        {
            "perfect": json.dumps({"rmse": 0.0, "mse": 0.0, "acc": 1.0}),
            "exponent": json.dumps({"rmse": 1, "mse": 2, "acc": 0}),
            "metrics": json.dumps(SETTINGS),
            "truth": "t.nc",
        },
    )
    stored_form(scores, "Scores of x").to_netcdf(tmp_path / "scores.nc")
    assert scores["temperature"].attrs == {"units": "K"}, "the Dataset in memory stays as it is"
    with xr.open_dataset(tmp_path / "scores.nc", decode_timedelta=True) as stored:
        field = stored["temperature"]
        assert "units" not in field.attrs
        assert field.attrs["metric_units"] == "rmse: K; mse: (K)^2; acc: 1"
        assert stored["exponent"].values.tolist() == [1, 2, 0]
        assert (stored.attrs["Conventions"], stored.attrs["title"]) == ("CF-1.11", "Scores of x")
        assert all(stored[name].attrs.get("long_name") for name in stored.coords)
        assert stored["settings"].values.tolist()[1:] == ["a.MSE(by_init=False, shares=[0.1, None])", ""]
        assert stored["level"].attrs["units"] == "1", "CF has no empty units"
        assert not any(str(value).startswith("{") for value in stored.attrs.values())
        back = read_form(stored.load())
    assert back["temperature"].attrs["units"] == "K"
    assert json.loads(back.attrs["perfect"]) == json.loads(scores.attrs["perfect"])
    assert json.loads(back.attrs["exponent"]) == json.loads(scores.attrs["exponent"])
    assert json.loads(back.attrs["metrics"]) == SETTINGS
    assert set(back.coords) == set(scores.coords)
    with pytest.raises(ValueError, match=r"settings of a metric are damaged: a\.RMSE"):
        read_form(stored.assign_coords(settings=("metric", ["a.RMSE(open('x'))"] * 3)))


def test_files_and_their_groups_describe_themselves(tmp_path):
    levels = ("level", [500], {"units": "hPa", "long_name": "pressure"})
    coordinates = {"time": np.array(["2001-01-01"], "datetime64[ns]"), "level": levels, "total_wavenumber": [1, 2]}
    power = xr.Dataset({"noise_degree": (tuple(coordinates), np.ones((1, 1, 2)))}, coordinates)
    write_netcdf(tmp_path / "a.nc", power, {"by_lead": power.expand_dims(lead_time=[6])})
    with xr.open_dataset(tmp_path / "a.nc") as root, xr.open_dataset(tmp_path / "a.nc", group="by_lead") as group:
        assert root.attrs["Conventions"].startswith("CF-1.")
        assert root["noise_degree"].attrs["long_name"] == "noise degree"
        assert root["level"].attrs == {"units": "hPa", "long_name": "pressure", "axis": "Z"}
        assert (root["time"].attrs["long_name"], group["time"].attrs["long_name"]) == ("time", "initial time")
        assert all(field.attrs["long_name"] for field in [*root.variables.values(), *group.variables.values()])
    assert not power["noise_degree"].attrs, "the Dataset in memory stays as it is"


def test_a_file_is_opened_under_the_locks_of_xarray_in_its_order(tmp_path):
    """Else two threads, one of them in xarray, would each wait for the lock that the other holds."""
    path, names = tmp_path / "a.nc", list[str]()
    xr.Dataset({"x": 1.0}).to_netcdf(path)

    def read() -> None:
        with opened_netcdf(path) as file:
            names.extend(file.variables)

    reader = threading.Thread(target=read, daemon=True)
    first, second = NETCDF4_PYTHON_LOCK.locks
    with first:
        reader.start()
        time.sleep(0.1)
        assert second.acquire(blocking=False)
        second.release()
    reader.join(60)
    assert names == ["x"]
