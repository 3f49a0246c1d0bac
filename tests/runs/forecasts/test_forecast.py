"""Forecasts as a user makes them: whole, checked and scored, in every format, from any initial time."""

import numpy as np
import pytest
import xarray as xr

from data_pipelines.forecasts.layout import forecast_dataset
from data_pipelines.forecasts.manifest import read_manifest, verify_checksums
from data_pipelines.forecasts.production import make_forecast
from data_pipelines.forecasts.rollouts import forecast_states
from data_pipelines.verification.pairs import Pairs
from data_pipelines.verification.scoring import score_pairs
from emul.config.compose import compose
from emul.eval import evaluate
from emul.forecast import exit_code, forecast, prepare
from emul.main import main
from emulators.grid import gaussian_grid
from emulators.metrics.rmse import RMSE
from emulators.verification.evaluation import Evaluation


def test_a_forecast_lands_whole_checked_and_scored(home, tmp_path):
    folder = forecast(home.config(tmp_path))
    assert folder == tmp_path / "forecast" / "tame"
    names = {"checksums.sha256", "config.yaml", "forecast.zarr", "manifest.json", "scores.nc"}
    assert {path.name for path in folder.iterdir()} == names
    manifest = read_manifest(folder)
    assert (manifest["verdict"], manifest["reasons"], exit_code(folder)) == ("verified", [], 0)
    assert manifest["inits"] == {"first": "2003-01-13T00:00:00", "last": "2003-01-18T00:00:00", "count": 6}
    assert manifest["leads"] == {"steps": 8, "timestep": "6h"}
    assert manifest["truth"] == {"pairs": 48, "of": 48}
    assert manifest["variables"]["temperature"]["nan_share"] == 0.0
    assert verify_checksums(folder) == []
    found = xr.open_zarr(folder / "forecast.zarr")
    assert dict(found.sizes) == {
        "time": 6, "prediction_timedelta": 8, "level": 2, "latitude": 8, "longitude": 16,
    }  # fmt: skip
    assert found.attrs["verdict"] == "verified"
    assert float(abs(found["2m_temperature"] - home.fields()["2m_temperature"].sel(time=found["time"])).max()) < 1.0


def test_scores_are_those_of_the_stored_fields(home, tmp_path):
    folder = forecast(home.config(tmp_path, "batch_size=4"))
    found, truth = xr.open_zarr(folder / "forecast.zarr"), home.fields()
    weights = xr.DataArray(gaussian_grid(8).weights, dims=("latitude", "longitude"))
    target = truth.sel(time=found["valid_time"]).drop_vars(("time", "latitude", "longitude"))
    square = (found["temperature"].drop_vars(("latitude", "longitude")) - target["temperature"]) ** 2
    expected = np.sqrt((square * weights).mean(("time", "latitude", "longitude")))
    with xr.open_dataset(folder / "scores.nc", decode_timedelta=True) as scores:
        assert scores["temperature"].dims == ("metric", "region", "lead_time", "level")
        assert list(scores["region"].values) == ["global", "tropics"]
        rmse = scores["temperature"].sel(metric="rmse", region="global")
        np.testing.assert_allclose(rmse, expected, rtol=1e-5)
        assert scores.attrs["verdict"] == "verified"


def test_scores_taken_in_the_rollout_are_those_of_emul_eval(home, tmp_path):
    folder = forecast(home.config(tmp_path, "batch_size=4"))
    options = ["metric=[rmse,mae,bias]", "pictures=false", "maps.leads=[6h]", "spectra.fields=[]", "baselines=[]"]
    given = [f"run={home.run('tame')}", f"forecasts={folder}", f"output={tmp_path}", *options]
    later = xr.load_dataset(evaluate(compose("eval", given)) / "scores.nc", decode_timedelta=True)
    online = xr.load_dataset(folder / "scores.nc", decode_timedelta=True)
    both = [np.intersect1d(later[dim], online[dim]) for dim in ("metric", "region")]
    assert all(found.size for found in both)
    for name in online.data_vars:
        offline, here = (scores[name].sel(metric=both[0], region=both[1]) for scores in (later, online))
        np.testing.assert_allclose(offline, here, rtol=1e-9, atol=1e-12)


def test_the_same_command_again_does_nothing(home, tmp_path):
    folder = forecast(home.config(tmp_path))
    before = home.contents(folder)
    assert forecast(home.config(tmp_path)) == folder
    assert home.contents(folder) == before
    with pytest.raises(ValueError, match=r"other settings \(inits was .*choose another name"):
        forecast(home.config(tmp_path, "every=2d"))
    assert home.contents(folder) == before


@pytest.mark.slow
def test_netcdf_holds_the_same_numbers(home, tmp_path):
    one = forecast(home.config(tmp_path))
    two = forecast(home.config(tmp_path, "writer=netcdf", "writer.compression=1", "name=nc"))
    assert {path.name for path in two.iterdir()} == {
        "checksums.sha256", "config.yaml", "forecast.nc", "manifest.json", "scores.nc",
    }  # fmt: skip
    with xr.open_dataset(two / "forecast.nc", decode_timedelta=True) as found:
        xr.testing.assert_identical(found.load(), xr.open_zarr(one / "forecast.zarr").load())
    assert read_manifest(two)["verdict"] == "verified"
    assert verify_checksums(two) == []
    with open(two / "forecast.nc", "r+b") as file:
        file.truncate(1000)
    assert "forecast.nc was changed or truncated" in verify_checksums(two)[0]


def test_history_and_single_dates(home, tmp_path):
    given = "init=[2003-01-15T06,2003-01-14]"
    folder = forecast(home.config(tmp_path, given, "lead=3", run="past"))
    found = xr.open_zarr(folder / "forecast.zarr")
    assert found["time"].dt.strftime("%dT%H").values.tolist() == ["14T00", "15T06"]
    assert found.sizes["prediction_timedelta"] == 3
    with pytest.raises(ValueError, match="No fields at 2002-12-31T18:00:00"):
        forecast(home.config(tmp_path, "init=2003-01-01", "name=b", run="past"))


def test_batches_are_as_even_as_can_be(home, tmp_path):
    folder = forecast(home.config(tmp_path, "init=2003-01-13/2003-01-16/1d", "lead=2"))  # 4 in batches of at most 3
    found = xr.open_zarr(folder / "forecast.zarr")
    assert found["temperature"].encoding["chunks"][0] == 2
    assert read_manifest(folder)["settings"]["batch_size"] == 3


def test_other_data_give_the_initial_conditions(home, tmp_path):
    other = home.fields(1).assign_coords(time=[np.datetime64("2020-07-01", "ns")]).sel(latitude=slice(None, None, -1))
    other.to_netcdf(tmp_path / "analysis.nc")
    given = ["data=netcdf", f"data.path={tmp_path / 'analysis.nc'}", "lead=1d", "name=other"]
    folder = forecast(home.config(tmp_path, *given, "init=2020-07-01"))
    found = xr.open_zarr(folder / "forecast.zarr")
    assert found["valid_time"].dt.strftime("%Y-%m-%dT%H").values[0, -1] == "2020-07-02T00"
    assert float(abs(found["2m_temperature"][0, 0] - home.fields(1)["2m_temperature"][0]).max()) < 0.2
    assert read_manifest(folder)["verdict"] == "unverified"
    with pytest.raises(ValueError, match="no test split"):
        forecast(home.config(tmp_path, *given))


def test_a_later_checkpoint_is_another_forecast(home, tmp_path):
    run = home.save_run(tmp_path / "train" / "a", home.data, home.fields())
    settings = home.config(tmp_path, f"run={run}")
    settings.run = str(run)
    forecast(settings)
    home.save_run(run, home.data, home.fields(), growth=2e-3)
    with pytest.raises(ValueError, match="weights was "):
        forecast(settings)


def test_members_of_an_ensemble_are_written_by_number_and_made_again_one_by_one(home, tmp_path):
    folder = forecast(home.config(tmp_path, "members=3", "every=3d", "lead=12h", run="noisy"))
    assert read_manifest(folder)["verdict"] == "verified"
    found = xr.open_zarr(folder / "forecast.zarr")
    assert found["temperature"].dims == ("time", "number", "prediction_timedelta", "level", "latitude", "longitude")
    assert (found["temperature"].std("number") > 0).all()
    fewer = home.config(tmp_path, "members=2", "init=2003-01-16", "lead=12h", "writer=netcdf", "name=few", run="noisy")
    with xr.open_dataset(forecast(fewer) / "forecast.nc", decode_timedelta=True) as again:
        expected = found.isel(number=slice(2)).sel(time=again["time"])
        np.testing.assert_allclose(again["2m_temperature"], expected["2m_temperature"], rtol=1e-5)
        np.testing.assert_allclose(again["temperature"], expected["temperature"], rtol=1e-5)
    asked = ["metric=[crps,spread_skill,rmse]", f"output={tmp_path}", "pictures=false", "baselines=[]"]
    assert main(["eval", f"forecast={folder}", f"truth={home.data}", *asked]) == 0
    (file,) = (tmp_path / "eval").rglob("scores.nc")
    with xr.open_dataset(file, decode_timedelta=True) as scores:
        assert scores["temperature"].sel(metric=["crps", "spread_skill", "rmse"]).notnull().all()
    with pytest.raises(ValueError, match="draws no noise"):
        forecast(home.config(tmp_path, "members=3", "name=other"))


def test_networks_run_in_bfloat16_where_that_was_asked(home, tmp_path):
    words = ["lead=2", "init=2003-01-13"]
    whole = forecast(home.config(tmp_path, *words, "name=whole"))
    half = forecast(home.config(tmp_path, *words, "name=half", "precision=bf16-mixed"))
    exact, rounded = (xr.open_zarr(path / "forecast.zarr")["2m_temperature"].load() for path in (whole, half))
    assert rounded.dtype == np.float32
    assert 0.0 < float(abs(rounded - exact).max()) < 0.01
    assert read_manifest(half)["settings"]["precision"] == "bf16-mixed"
    with pytest.raises(ValueError, match="made with other settings"):
        forecast(home.config(tmp_path, *words, "name=whole", "precision=bf16-mixed"))
    with pytest.raises(ValueError, match="precision must be one of 32, bf16-mixed"):
        forecast(home.config(tmp_path, *words, "precision=16"))


def test_the_engine_forecasts_and_scores_without_a_command(home, tmp_path):
    job = prepare(home.config(tmp_path, "init=2003-01-13/2003-01-14/1d", "lead=4"))
    folder = make_forecast(job)
    states = forecast_states(job.step, job.archive, job.layout.inits, job.layout.steps)
    made = forecast_dataset(job.layout, states)
    xr.testing.assert_equal(made, xr.open_zarr(folder / "forecast.zarr").load())
    pairs = Pairs(made, job.archive.dataset)
    evaluation = Evaluation(pairs.world(), pairs.variables, {"rmse": RMSE()}, pairs.leads)
    score_pairs(pairs, evaluation)
    with xr.open_dataset(folder / "scores.nc", decode_timedelta=True) as stored:
        for name in ("temperature", "2m_temperature"):
            np.testing.assert_allclose(evaluation.scores()[name], stored[name].sel(region=["global"]), rtol=1e-12)
