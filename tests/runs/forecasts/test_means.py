"""keep=monthly and keep=annual: the means of the States, whole after a kill, and not taken for States by emul eval."""

import numpy as np
import pytest
import xarray as xr

from data_pipelines.files.fingerprints import read_json
from data_pipelines.forecasts import production
from data_pipelines.forecasts.manifest import read_manifest
from data_pipelines.forecasts.statistics_writer import MeansWriter
from data_pipelines.forecasts.writers import ZarrWriter
from emul.forecast import forecast
from emul.main import main
from emulators.grid import gaussian_grid
from emulators.variables import Variable, VariableSet
from emulators.world import World

LONG = ["init=2003-01-13/2003-01-14/1d", "lead=70d", "batch_size=2", "segment=90"]
GAUSSIAN = ["perturbation=gaussian", "perturbation.cases=2", "members=3", "member_batch=2"]


def stored(folder):
    return xr.open_zarr(folder / "forecast.zarr", decode_timedelta=True).load()


STEP = np.timedelta64(6, "h")


def world(timestep=STEP):
    return World(gaussian_grid(8), VariableSet((Variable("2m_temperature", "K"),)), timestep)


@pytest.fixture(scope="module")
def every(home, tmp_path_factory):
    return stored(forecast(home.config(tmp_path_factory.mktemp("every"), *LONG)))


@pytest.fixture(scope="module")
def monthly(home, tmp_path_factory):
    return forecast(home.config(tmp_path_factory.mktemp("monthly"), *LONG, "keep=monthly"))


def test_means_are_those_of_the_states(every, monthly):
    means = stored(monthly)
    assert read_manifest(monthly)["verdict"] == every.attrs["verdict"]
    assert means.attrs["time_means"] == "1mo"
    assert not (monthly / "partial").exists()
    np.testing.assert_array_equal(
        means["valid_time"].values.astype("datetime64[D]"),
        np.array([["2003-02-13", "2003-03-13"], ["2003-02-14", "2003-03-14"]], dtype="datetime64[D]"),
    )
    for row, day in enumerate((13, 14)):
        for number in range(2):
            valid = every["valid_time"].isel(time=row).values
            first, last = np.datetime64(f"2003-0{number + 1}-{day}"), np.datetime64(f"2003-0{number + 2}-{day}")
            inside = (valid > first) & (valid <= last)
            assert inside.sum() == 4 * (31 if number == 0 else 28)
            for name in ("temperature", "2m_temperature"):
                expected = every[name].isel(time=row, prediction_timedelta=inside).astype(np.float64)
                found = means[name].isel(time=row, prediction_timedelta=number)
                np.testing.assert_allclose(found, expected.mean("prediction_timedelta"), rtol=1e-6)
    size = sum(path.stat().st_size for path in (monthly / "forecast.zarr").rglob("*/c.*"))
    assert size < every["temperature"].nbytes / 50


@pytest.mark.slow
def test_a_forecast_that_stopped_goes_on_to_the_same_bytes(home, monthly, tmp_path, monkeypatch):
    made, make = [], production.BatchForecast.make

    def stops(self, segment, report):
        if len(made) == 2:
            raise RuntimeError("pulled the plug")
        made.append(segment)
        return make(self, segment, report)

    monkeypatch.setattr(production.BatchForecast, "make", stops)
    config = home.config(tmp_path, *LONG, "keep=monthly")
    with pytest.raises(RuntimeError, match="pulled the plug"):
        forecast(config)
    monkeypatch.setattr(production.BatchForecast, "make", make)
    folder = forecast(config)
    one, other = (home.contents(path / "forecast.zarr") for path in (monthly, folder))
    assert one == other


@pytest.mark.slow
def test_members_and_other_segments_have_the_same_means(home, tmp_path):
    words = ["init=2003-01-13", "lead=35d", *GAUSSIAN, "batch_size=1"]
    means = stored(forecast(home.config(tmp_path / "a", *words, "keep=monthly", "segment=31")))
    again = stored(forecast(home.config(tmp_path / "b", *words, "keep=monthly")))
    every = stored(forecast(home.config(tmp_path / "c", *words)))
    assert dict(means.sizes)["number"] == 3
    whole = every["2m_temperature"].isel(prediction_timedelta=slice(0, 124)).astype(np.float64)
    np.testing.assert_allclose(means["2m_temperature"][0, :, 0], whole.mean("prediction_timedelta")[0], rtol=1e-6)
    np.testing.assert_allclose(again["2m_temperature"], means["2m_temperature"], rtol=1e-7)


def test_months_of_the_calendar_and_years_with_leap_days():
    inits = np.array(["2003-01-01", "2004-01-01"], dtype="datetime64[s]")
    numbers = MeansWriter(ZarrWriter(), "monthly").periods(world(), inits, 4 * 366)
    assert [(numbers[0] == n).sum() for n in range(12)] == [
        4 * d for d in (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    ]
    assert (numbers[1] == 1).sum() == 4 * 29
    assert numbers[0, 123] == 0  # the first of February, 0 h, ends January
    assert numbers[0, 124] == 1
    assert (numbers[0, 4 * 365 :] == -1).all()
    years = MeansWriter(ZarrWriter(), "annual").periods(world(), inits, 4 * 800)
    assert (years == 0).sum(axis=1).tolist() == [4 * 365, 4 * 366]
    assert years.max() == 1


@pytest.mark.parametrize(
    ("timestep", "steps", "message"),
    [
        (np.timedelta64(6, "h"), 40, "shorter than a period; take lead=1mo"),
        (np.timedelta64(1, "M"), 40, "one timestep is 1M; take keep=members"),
    ],
)
def test_what_has_no_months_is_refused(timestep, steps, message):
    with pytest.raises(ValueError, match=message):
        MeansWriter(ZarrWriter(), "monthly").periods(world(timestep), np.array(["2003-01-01"], "datetime64[s]"), steps)


def test_means_are_not_scored_as_states(home, monthly, tmp_path, capsys):
    words = [f"run={home.run('tame')}", f"forecasts={monthly}", "name=means", f"output={tmp_path}"]
    assert main(["eval", *words, "pictures=false"]) == 2
    said = capsys.readouterr().err
    assert "means over 1mo (keep=monthly or annual), the truth a state every 6 h" in said


def test_the_manifest_says_what_is_kept(monthly):
    assert read_json(monthly / "manifest.json")["settings"]["keep"] == "monthly"


def test_means_are_scored_against_means(home, monthly, tmp_path):
    """A truth of the same means half a kelvin colder: the bias is found."""
    means = stored(monthly).isel(time=[0])
    colder = means.isel(time=0).swap_dims(prediction_timedelta="valid_time") - 0.5
    truth = colder[["temperature", "2m_temperature"]].drop_vars(["prediction_timedelta", "time"])
    truth.rename(valid_time="time").to_netcdf(tmp_path / "truth.nc")
    words = [f"forecast={monthly / 'forecast.zarr'}", f"truth={tmp_path / 'truth.nc'}"]
    more = ["metric=[bias]", "baselines=[]", "inits=2003-01-13", "name=means", f"output={tmp_path}", "pictures=false"]
    assert main(["eval", *words, *more]) == 0
    with xr.open_dataset(tmp_path / "eval" / "means" / "scores.nc") as scores:
        bias = scores["2m_temperature"].sel(metric="bias", region="global")
        np.testing.assert_allclose(bias, 0.5, rtol=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lead=10d"], "shorter than a period; take lead=1mo"),
        (["lead=70d", "writer=grib"], "says of no field that it is a mean"),
    ],
)
def test_faults_are_said_before_any_work(home, tmp_path, words, message):
    with pytest.raises(ValueError, match=message):
        forecast(home.config(tmp_path, "init=2003-01-13", "keep=monthly", *words))
    assert not (tmp_path / "forecast").exists()
