"""Scores in files say the units of each metric, and come back as they were."""

import json

import numpy as np
import xarray as xr

from data_pipelines.files.netcdf import read_form, stored_form


def test_there_and_back(tmp_path):
    scores = xr.Dataset(
        {"temperature": (("metric", "region", "lead_time", "level"), np.ones((3, 1, 2, 1)), {"units": "K"})},
        {
            "metric": ["rmse", "mse", "acc"],
            "region": ["global"],
            "lead_time": np.array([6, 12], "timedelta64[h]").astype("timedelta64[ns]"),
            "inits": ("lead_time", [3, 3]),
            "level": ("level", [500], {"units": "hPa"}),
        },
        {
            "perfect": json.dumps({"rmse": 0.0, "mse": 0.0, "acc": 1.0}),
            "exponent": json.dumps({"rmse": 1, "mse": 2, "acc": 0}),
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
        assert not any(str(value).startswith("{") for value in stored.attrs.values())
        back = read_form(stored.load())
    assert back["temperature"].attrs["units"] == "K"
    assert json.loads(back.attrs["perfect"]) == json.loads(scores.attrs["perfect"])
    assert json.loads(back.attrs["exponent"]) == json.loads(scores.attrs["exponent"])
    assert set(back.coords) == set(scores.coords)
