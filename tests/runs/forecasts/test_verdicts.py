"""What a forecast is found worth: failed where a number is missing or out of range, unverified without the truth."""

import numpy as np
import torch
import xarray as xr

from data_pipelines.forecasts.manifest import read_manifest
from data_pipelines.forecasts.production import make_forecast
from emul.forecast import exit_code, forecast, prepare
from emul.main import main


def test_out_of_range_is_failed_and_says_why(home, tmp_path, capsys):
    arguments = [f"run={home.run('wild')}", f"output={tmp_path}", "device=cpu"]
    assert main(["forecast", *arguments]) == 1
    folder = tmp_path / "forecast" / "wild"
    manifest = read_manifest(folder)
    assert (manifest["verdict"], manifest["finished"]) == ("failed", True)
    assert "beyond the physical range" in manifest["reasons"][0]
    assert "beyond the physical range" in capsys.readouterr().out
    assert xr.open_zarr(folder / "forecast.zarr").attrs["verdict"] == "failed"
    assert main(["forecast", *arguments]) == 1


class Breaking(torch.nn.Module):
    """Wraps a network; one number becomes NaN at the third step."""

    def __init__(self, network):
        super().__init__()
        self.network, self.calls = network, 0

    def forward(self, fields, time):
        self.calls += 1
        values = self.network(fields, time).clone()
        if self.calls == 3:
            values[0, 0, 0, 0] = float("nan")
        return values


def test_a_single_nan_is_failed(home, tmp_path):
    job = prepare(home.config(tmp_path, "init=2003-01-13", "lead=3"))
    job.step.network = Breaking(job.step.network)
    folder = make_forecast(job)
    manifest = read_manifest(folder)
    assert manifest["verdict"] == "failed"
    assert manifest["reasons"] == ["temperature: 0.13% of the numbers are NaN or infinite, first at lead 18h"]


def test_stricter_ranges_can_be_asked_for(home, tmp_path):
    folder = forecast(home.config(tmp_path, "ranges={2m_temperature: [200, 280]}"))
    assert "2m_temperature: reaches 29" in read_manifest(folder)["reasons"][0]


def test_without_truth_it_is_unverified(home, tmp_path):
    folder = forecast(home.config(tmp_path, "init=2003-01-20T18", "lead=1d"))
    manifest = read_manifest(folder)
    assert (manifest["verdict"], exit_code(folder)) == ("unverified", 0)
    assert not (folder / "scores.nc").exists()
    partly = forecast(home.config(tmp_path, "init=2003-01-20", "lead=1d", "name=partly"))
    manifest = read_manifest(partly)
    assert (manifest["verdict"], manifest["truth"]) == ("unverified", {"pairs": 3, "of": 4})
    assert "truth was at hand for 3 of 4 pairs" in manifest["reasons"][0]
    assert (partly / "scores.nc").exists()


def test_beyond_a_gap_in_the_data_there_is_no_truth(home, tmp_path):
    whole = home.fields()
    whole.isel(time=np.r_[0:50, 56:80]).to_netcdf(tmp_path / "gap.nc")
    given = ["data=netcdf", f"data.path={tmp_path / 'gap.nc'}", "data.timestep=6h", "lead=4d"]
    folder = forecast(home.config(tmp_path, *given, "init=2003-01-10T00"))
    manifest = read_manifest(folder)
    assert (manifest["verdict"], manifest["truth"]) == ("unverified", {"pairs": 13, "of": 16})
    with xr.open_dataset(folder / "scores.nc", decode_timedelta=True) as scores:
        assert scores["inits"].values.tolist() == [1] * 13  # later leads, of which nothing is known, are left out
