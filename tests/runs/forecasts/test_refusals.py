"""Forecasts that cannot be made: said in one sentence, before any work."""

import pytest
import torch

from emul.forecast import forecast


def test_data_that_do_not_fit_the_run_are_refused_before_any_work(home, tmp_path):
    home.fields().isel(latitude=slice(0, 6)).to_netcdf(tmp_path / "cut.nc")
    home.fields().drop_vars("2m_temperature").to_netcdf(tmp_path / "less.nc")
    for name, said in (("cut", "Expected the grid"), ("less", "No variable '2m_temperature'")):
        given = ["data=netcdf", f"data.path={tmp_path / name}.nc", "init=2003-01-02"]
        with pytest.raises(ValueError, match=said):
            forecast(home.config(tmp_path, *given))
    assert not (tmp_path / "forecast").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("init=1999-01-01", "No fields at 1999-01-01T00:00:00"),
        ("init=tomorrow", "Expected a date"),
        ("lead=5h", "whole number of timesteps of 6h"),
        ("checkpoint=worst", "checkpoint must be 'best' or 'last'"),
        ("batch_size=0", "batch_size must be at least 1"),
        ("device=cuda", "finds no GPU"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(home, tmp_path, override, said):
    if override == "device=cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ValueError, match=said):
        forecast(home.config(tmp_path, override))
    assert not (tmp_path / "forecast").exists()


def test_missing_runs_are_named(home, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No run at .*nowhere"):
        forecast(home.config(tmp_path, run="nowhere"))


@pytest.mark.parametrize(
    ("run", "way", "said"),
    [
        ("tame", ["path=averaged", "intervals=[1,2]"], "SFNO is not told the interval"),
        (
            "told",
            ["path=aggregated", "intervals=[1,6]"],
            "over 6 timesteps was not measured; known are intervals of 1, 2",
        ),
    ],
)
def test_paths_over_intervals_that_a_run_does_not_know_are_refused(home, tmp_path, run, way, said):
    with pytest.raises(ValueError, match=said):
        forecast(home.config(tmp_path, *way, run=run))
    assert not (tmp_path / "forecast").exists()
