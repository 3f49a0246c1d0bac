"""`emul eval` on small stores made here, in every shape that forecasts come in, and on input it cannot use."""

import csv
import json

import numpy as np
import pytest
import xarray as xr

from data_pipelines.conventions.durations import chosen_inits
from emul.config.compose import compose
from emul.eval import evaluate
from emul.main import main

INITS = np.datetime64("2001-01-01", "s") + np.arange(4) * np.timedelta64(1, "D")
LEADS = np.array([6, 12, 24])
LATITUDE, LONGITUDE = np.linspace(75, -75, 6), np.arange(12) * 30.0
LEVELS = [500, 850]


@pytest.fixture(scope="module")
def truth():
    generator = np.random.default_rng(0)
    time = np.datetime64("2001-01-01", "s") + np.arange(20) * np.timedelta64(6, "h")
    upper = generator.normal(250, 5, (20, 2, 6, 12)).astype("float32")
    surface = generator.normal(280, 5, (20, 6, 12)).astype("float32")
    return xr.Dataset(
        {
            "temperature": (("time", "level", "latitude", "longitude"), upper, {"units": "K"}),
            "2m_temperature": (("time", "latitude", "longitude"), surface, {"units": "K"}),
            "land_sea_mask": (("latitude", "longitude"), (np.arange(72).reshape(6, 12) % 3 == 0).astype("float32")),
        },
        {"time": time, "level": LEVELS, "latitude": LATITUDE, "longitude": LONGITUDE},
    )


@pytest.fixture(scope="module")
def forecast(truth):
    """The truth at the valid time plus 1 K at 6 h, 2 K at 12 h, 4 K at 24 h."""
    offset = xr.DataArray([1.0, 2.0, 4.0], dims="prediction_timedelta")
    valid = xr.DataArray(INITS[:, None] + LEADS.astype("timedelta64[h]"), dims=("time", "prediction_timedelta"))
    made = truth.drop_vars("land_sea_mask").sel(time=valid).drop_vars("time") + offset
    made = made.astype("float32").transpose("time", "prediction_timedelta", "level", "latitude", "longitude")
    made = made.assign_coords(time=INITS, prediction_timedelta=("prediction_timedelta", LEADS, {"units": "hours"}))
    return made


def write(dataset, path):
    if path.suffix == ".zarr":
        dataset.to_zarr(path, consolidated=False)
    else:
        dataset.to_netcdf(path)
    return path


def scores(folder, forecast, truth, **options):
    given = {"pictures": "false", "maps.fields": "[]", "output": folder} | options
    config = compose("eval", [f"forecasts={forecast}", f"truth={truth}", *(f"{k}={v}" for k, v in given.items())])
    return evaluate(config)


def loaded(target, name="scores.nc"):
    return xr.load_dataset(target / name, decode_timedelta=True)


@pytest.mark.slow
def test_all_that_an_evaluation_leaves(tmp_path, forecast, truth, capsys):
    stored = write(forecast, tmp_path / "fc.zarr"), write(truth, tmp_path / "truth.nc")
    target = scores(
        tmp_path,
        *stored,
        pictures="true",
        **{"maps.fields": "[2m_temperature]", "regions": "[global,europe,global_land]"},
    )
    assert target == tmp_path / "eval" / "fc"
    found = loaded(target)
    assert found["temperature"].dims == ("metric", "region", "lead_time", "level")
    np.testing.assert_allclose(found["2m_temperature"].sel(metric="rmse", region="global"), [1, 2, 4], rtol=1e-5)
    np.testing.assert_allclose(
        found["temperature"].sel(metric="bias", region="global_land", level=850), [1, 2, 4], rtol=1e-5
    )
    assert found["lead_time"].values.tolist() == LEADS.astype("timedelta64[h]").astype("timedelta64[ns]").tolist()
    assert found.attrs["truth"].endswith("truth.nc")
    assert "acc" in found.attrs["metrics_left_out"]
    baselines = loaded(target, "baselines.nc")
    assert baselines["source"].values.tolist() == ["persistence"]
    assert baselines["2m_temperature"].dims == ("source", "metric", "region", "lead_time")
    assert {p.name for p in target.iterdir()} >= {"scorecard.png", "curves.png", "hero.png", "report.html", "maps"}
    assert {p.name for p in (target / "maps").iterdir()} == {"2m_temperature_1d.png", "2m_temperature_1d_errors.png"}
    page = (target / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "://" not in page
    assert "2m temperature" in capsys.readouterr().out


def test_what_changes_a_number_stands_beside_it(tmp_path, forecast, truth):
    stored = write(forecast, tmp_path / "fc.nc"), write(truth.isel(time=slice(2, None)), tmp_path / "truth.nc")
    options = {"regions": "[global,{box: {latitude: [0, 40], longitude: [350, 40]}}]", "metric": "[rmse,mse]"}
    found = loaded(target := scores(tmp_path, *stored, **options))
    told = found.attrs
    assert told["inits_used"] == "2001-01-01T00 to 2001-01-04T00 every 24 hours (4)"
    assert told["inits_skipped"] == "none"
    assert told["region_bounds"] == "global; box: latitude 0 to 40, longitude 350 to 40"
    assert "by_init=False" in str(found["settings"].sel(metric="rmse").item())
    assert "emul 0." in told["versions"]
    assert {"grid", "truth", "climatology", "weights", "averaging", "points_left_out", "nan_share", "revision"} <= set(
        told
    )
    with open(target / "scores.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["source"] for line in lines} == {"forecast", "persistence"}
    chosen = {"source": "forecast", "variable": "temperature", "level": "850", "metric": "mse", "region": "box"}
    (line,) = (one for one in lines if chosen.items() <= one.items() and one["lead_hours"] == "12")
    exact = found["temperature"].sel(level=850, metric="mse", region="box").isel(lead_time=1).item()
    assert (float(line["value"]), line["units"], line["inits"]) == (exact, "(K)^2", "4")


def test_differences_to_baselines_have_intervals(tmp_path, forecast, truth):
    stored = write(forecast, tmp_path / "fc.nc"), write(truth, tmp_path / "truth.nc")
    target = scores(tmp_path, *stored, **{"regions": "[global]", "metric": "[rmse]", "significance.least": 0})
    found, baselines = loaded(target), loaded(target, "baselines.nc").sel(source="persistence")
    judged = loaded(target, "differences.nc").sel(source="persistence", metric="rmse")["2m_temperature"]
    gap = found["2m_temperature"].sel(metric="rmse") - baselines["2m_temperature"].sel(metric="rmse")
    np.testing.assert_allclose(judged.sel(estimate="difference"), gap, rtol=1e-5)
    assert (judged.sel(estimate="low") < judged.sel(estimate="difference")).all()
    assert (judged.sel(estimate="inits") == 4).all()
    scores(tmp_path, *stored, **{"significance.level": "null"})
    assert not (target / "differences.nc").exists()
    assert not (target / "by_init.nc").exists()


def test_persistence_is_the_truth_at_the_start(tmp_path, forecast, truth):
    stored = write(forecast, tmp_path / "fc.nc"), write(truth, tmp_path / "truth.nc")
    found = loaded(scores(tmp_path, *stored, regions="[global]"), "baselines.nc").sel(
        source="persistence", metric="rmse"
    )
    start, end = (
        truth["2m_temperature"].sel(time=INITS + np.timedelta64(h, "h")).values.astype(float) for h in (0, 24)
    )
    edges = np.sin(np.deg2rad([90, 60, 30, 0, -30, -60, -90]))
    weights = (edges[:-1] - edges[1:]) / np.mean(edges[:-1] - edges[1:])
    expected = np.sqrt(((end - start) ** 2 * weights[:, None]).mean())
    assert found["2m_temperature"].isel(region=0, lead_time=2).item() == pytest.approx(expected, rel=1e-12)


def reordered(forecast):
    return forecast.transpose("longitude", "latitude", "level", "prediction_timedelta", "time")


def southward(forecast):
    return forecast.isel(latitude=slice(None, None, -1))


def other_names(forecast):
    renamed = forecast.rename(latitude="lat", longitude="lon", time="init_time", prediction_timedelta="lead_time")
    return renamed.rename(level="pressure_level").assign_coords(lat=renamed["lat"].astype("float32"))


def without_units(forecast):
    return forecast.assign_coords(prediction_timedelta=LEADS)


def nanoseconds(forecast):
    return forecast.assign_coords(prediction_timedelta=LEADS * 3_600_000_000_000)


def timedeltas(forecast):
    return forecast.assign_coords(prediction_timedelta=LEADS.astype("timedelta64[h]").astype("timedelta64[ns]"))


def west(forecast):
    return forecast.assign_coords(longitude=(LONGITUDE + 180) % 360 - 180).sortby("longitude")


def level_names(forecast):
    apart = {f"temperature_{level}": forecast["temperature"].sel(level=level, drop=True) for level in LEVELS}
    return forecast.drop_vars(["temperature", "level"]).assign(apart)


def own_valid_times(forecast):
    valid = INITS[:, None] + LEADS.astype("timedelta64[h]")
    return forecast.assign_coords(valid_time=(("time", "prediction_timedelta"), valid))


@pytest.mark.parametrize(
    "shape",
    [reordered, southward, other_names, without_units, nanoseconds, timedeltas, west, level_names, own_valid_times],
)
def test_every_form_of_a_forecast_gives_the_same_scores(tmp_path, forecast, truth, shape):
    stored = write(shape(forecast), tmp_path / "fc.nc"), write(truth, tmp_path / "truth.nc")
    found = loaded(scores(tmp_path, *stored, regions="[global]", baselines="[]", metric="[rmse]"))
    for level in LEVELS:
        np.testing.assert_allclose(found["temperature"].sel(level=level).values.ravel(), [1, 2, 4], rtol=1e-5)
    np.testing.assert_allclose(found["2m_temperature"].values.ravel(), [1, 2, 4], rtol=1e-5)


def test_small_blocks_give_the_same_scores(tmp_path, forecast, truth):
    stored = write(forecast, tmp_path / "fc.nc"), write(truth, tmp_path / "truth.nc")
    whole = loaded(scores(tmp_path, *stored, name="whole"))
    parts = loaded(scores(tmp_path, *stored, name="parts", megabytes=0.001))
    for name in whole.data_vars:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-12, atol=1e-12)


def test_choices(tmp_path, forecast, truth):
    stored = write(forecast, tmp_path / "fc.nc"), write(truth, tmp_path / "truth.nc")
    chosen = {"fields": "[temperature]", "levels": "[850]", "leads": "[6h,1d]", "inits": "2001-01-02/2001-01-03"}
    found = loaded(scores(tmp_path, *stored, regions="[{box: {latitude: [0, 40], longitude: [350, 40]}}]", **chosen))
    assert list(found.data_vars) == ["temperature"]
    assert found["level"].values.tolist() == [850]
    assert found["region"].values.tolist() == ["box"]
    assert found["inits"].values.tolist() == [2, 2]
    assert found.attrs["inits"] == "2001-01-02T00:00:00 to 2001-01-03T00:00:00"


def test_inits_as_they_are_typed():
    assert chosen_inits("2001-01-01/2001-01-04/2d", INITS).tolist() == INITS[::2].tolist()
    assert chosen_inits(["2001-01-04"], INITS).tolist() == INITS[3:].tolist()
    with pytest.raises(ValueError, match="none of the forecast's initial times"):
        chosen_inits("2002", INITS)


def test_missing_truth_is_counted(tmp_path, forecast, truth, capsys):
    stored = write(forecast, tmp_path / "fc.nc"), write(truth.isel(time=slice(2, 16)), tmp_path / "truth.nc")
    found = loaded(scores(tmp_path, *stored))
    assert found["inits"].values.tolist() == [3, 4, 3]
    assert found.attrs["pairs"].startswith("10 of 12")
    said = " ".join(capsys.readouterr().err.split())
    assert "2 of 12 pairs" in said
    assert "Persistence lacks the truth at 1 of 4" in said
    assert loaded(tmp_path / "eval" / "fc", "baselines.nc")["inits"].values.tolist() == [[3, 3, 2]]


def test_climatology_from_a_file(tmp_path, forecast, truth):
    hours, days = [0, 6, 12, 18], np.arange(1, 7)
    shape = {"2m_temperature": ("latitude", "longitude"), "temperature": ("level", "latitude", "longitude")}
    fields = {n: (("hour", "dayofyear", *d), np.full((4, 6, *truth[n].shape[1:]), 280.0)) for n, d in shape.items()}
    normal = xr.Dataset(
        fields, {"hour": hours, "dayofyear": days, "level": LEVELS, "latitude": LATITUDE, "longitude": LONGITUDE}
    )
    stored = write(forecast, tmp_path / "fc.nc"), write(truth, tmp_path / "truth.nc")
    climatology = write(normal, tmp_path / "normal.nc")
    target = scores(tmp_path, *stored, climatology=climatology, baselines="[climatology]", regions="[global]")
    acc = loaded(target)["2m_temperature"].sel(metric="acc").values
    assert (np.diff(acc[0]) < 0).all()
    assert (acc > 0.5).all()
    usual = loaded(target, "baselines.nc").sel(source="climatology")["2m_temperature"]
    assert 3 < usual.sel(metric="rmse").isel(lead_time=0).item() < 7
    assert np.isnan(usual.sel(metric="acc")).all()
    short = write(normal.isel(dayofyear=slice(0, 2)), tmp_path / "short.nc")
    with pytest.raises(ValueError, match="no field for 2001-01-03"):
        scores(tmp_path, *stored, climatology=short)


def test_twin_forecasts_are_drawn_beside(tmp_path, forecast, truth):
    stored = write(forecast, tmp_path / "fc.nc"), write(truth, tmp_path / "truth.nc")
    twin = scores(tmp_path, *stored, name="twin")
    target = scores(tmp_path, *stored, predictability=twin / "scores.nc", pictures="true")
    assert 'polyline class="line-predictability"' in (target / "report.html").read_text()


def test_a_run_brings_its_truth_and_climatology(tmp_path, forecast, truth):
    """The data of the run are the truth, their training period gives the climatology, its eval options hold."""
    write(truth, tmp_path / "truth.nc")
    run, made = tmp_path / "train" / "x", tmp_path / "forecast" / "x"
    run.mkdir(parents=True)
    made.mkdir(parents=True)
    write(forecast, made / "forecast.zarr")
    splits = {"train": ["2001-01-01", "2001-01-03"], "test": ["2001-01-04", "2001-01-05"]}
    data = {"_target_": "data_pipelines.sources.netcdf.NetCDF", "path": str(tmp_path / "truth.nc"), "splits": splits}
    targets = {"mae": "mae.MAE", "rmse": "rmse.RMSE", "acc_by_init": "acc.ACC"}
    metric = {name: {"_target_": f"emulators.metrics.{target}"} for name, target in targets.items()}
    options = {"regions": ["tropics"], "pictures": False}
    (run / "config.yaml").write_text(json.dumps({"data": data, "metric": metric, "eval": options}))
    target = evaluate(compose("eval", [f"run={run}", f"output={tmp_path}"]))
    assert target == tmp_path / "eval" / "x"
    found, baselines = loaded(target), loaded(target, "baselines.nc")
    assert found["region"].values.tolist() == ["tropics"]
    assert found["metric"].values.tolist() == ["mae", "rmse", "acc_by_init"]
    assert "fitted to 12 fields of the training period 2001-01-01 to 2001-01-03" in found.attrs["climatology"]
    assert baselines["source"].values.tolist() == ["persistence", "climatology"]
    np.testing.assert_allclose(found["2m_temperature"].sel(metric="mae").values.ravel(), [1, 2, 4], rtol=1e-5)
    assert np.isfinite(baselines["2m_temperature"].sel(source="climatology", metric="rmse")).all()


def test_the_regional_cut_out(tmp_path, forecast, truth):
    part = forecast.isel(latitude=slice(1, 4), longitude=slice(2, 8))
    stored = write(part, tmp_path / "fc.nc"), write(truth, tmp_path / "truth.nc")
    found = loaded(scores(tmp_path, *stored, regions="[global,antarctic]", baselines="[]"))
    assert found["region"].values.tolist() == ["global"]
    assert "antarctic" in found.attrs["regions_left_out"]
    np.testing.assert_allclose(found["2m_temperature"].sel(metric="rmse").values.ravel(), [1, 2, 4], rtol=1e-5)


def test_a_broken_forecast_gets_no_score_and_says_so(tmp_path, forecast, truth):
    broken = forecast.copy(deep=True)
    broken["2m_temperature"][0, 0, 0, 0] = np.nan
    stored = write(broken, tmp_path / "fc.nc"), write(truth, tmp_path / "truth.nc")
    found = loaded(scores(tmp_path, *stored, regions="[global]"))
    assert np.isnan(found["2m_temperature"].sel(metric="rmse").isel(lead_time=0)).all()
    assert np.isfinite(found["2m_temperature"].sel(metric="rmse").isel(lead_time=1)).all()
    assert found["2m_temperature"].attrs["nan_share"] > 0


def test_a_failed_verdict_is_told(tmp_path, forecast, truth, capsys):
    folder = tmp_path / "x"
    folder.mkdir()
    write(forecast, folder / "forecast.nc")
    reasons = ["temperature is 900 K"]
    (folder / "manifest.json").write_text(
        json.dumps({"format": 1, "verdict": "failed", "reasons": reasons, "settings": {}})
    )
    target = scores(tmp_path, folder, write(truth, tmp_path / "truth.nc"), pictures="true")
    assert target.name == "x"
    assert "temperature is 900 K" in (target / "report.html").read_text()
    assert "temperature is 900 K" in capsys.readouterr().err
    assert loaded(target).attrs["verdict"] == "failed"


@pytest.mark.slow
def test_members_are_drawn(tmp_path, forecast, truth, capsys):
    members = xr.concat([forecast, forecast + 1.0, forecast - 1.0], "number").assign_coords(number=[0, 1, 2])
    stored = write(members, tmp_path / "fc.nc"), write(truth, tmp_path / "truth.nc")
    chosen = {"maps.fields": "[2m_temperature]", "metric": "[rmse,crps]", "regions": "[global]", "pictures": "true"}
    target = scores(tmp_path, *stored, **chosen)
    names = {path.stem.removeprefix("2m_temperature_") for path in (target / "maps").iterdir()}
    assert names == {"1d", "1d_errors", "1d_spread_errors", "1d_stamps", "1d_probability_errors", "plumes"}
    assert (target / "report.html").read_text().count("data:image/png;base64,") == 6
    none = scores(
        tmp_path, *stored, **chosen, **{"ensemble.stamps": 0, "ensemble.exceeded": 0, "ensemble.places": "[]"}
    )
    assert {path.stem for path in (none / "maps").iterdir()} == {
        f"2m_temperature_1d{kind}" for kind in ("", "_errors", "_spread_errors")
    }
    sentence = said([f"forecast={stored[0]}", f"truth={stored[1]}", "ensemble.places=[50,10]"], capsys)
    assert "latitude and longitude of each" in sentence


def test_pictures_may_fail(tmp_path, forecast, truth, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise RuntimeError("no ink")

    monkeypatch.setattr("data_pipelines.pictures.scorecards.scorecard", fail)
    stored = write(forecast, tmp_path / "fc.nc"), write(truth, tmp_path / "truth.nc")
    target = scores(tmp_path, *stored, pictures="true")
    assert (target / "scores.nc").exists()
    assert (target / "report.html").exists()
    assert "no ink" in capsys.readouterr().err


def said(arguments, capsys):
    """The sentence that the command says; it must end with exit code 2."""
    assert main(["eval", *map(str, arguments)]) == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_bad_input_is_told_in_a_sentence(tmp_path, forecast, truth, capsys):
    fc, ok = write(forecast, tmp_path / "fc.nc"), write(truth, tmp_path / "truth.nc")
    out = f"output={tmp_path}"
    assert "give run=" in said([out], capsys)
    assert "No forecast at" in said([f"forecast={tmp_path / 'none.nc'}", f"truth={ok}", out], capsys)
    assert "No data at" in said([f"forecast={fc}", f"truth={tmp_path / 'none.nc'}", out], capsys)
    assert "No truth is known" in said([f"forecast={fc}", out], capsys)
    assert "No run at" in said([f"run={tmp_path / 'none'}", out], capsys)
    assert "no lead time" in said([f"forecast={ok}", f"truth={ok}", out], capsys)
    late = write(truth.assign_coords(time=truth["time"] + np.timedelta64(365, "D")), tmp_path / "late.nc")
    assert "No valid time of the forecast" in said([f"forecast={fc}", f"truth={late}", out], capsys)
    coarse = write(truth.isel(latitude=slice(None, None, 2)), tmp_path / "coarse.nc")
    assert "No scores at" in said([f"forecast={fc}", f"truth={ok}", out, "predictability=none.nc"], capsys)
    assert "holds no scores" in said([f"forecast={fc}", f"truth={ok}", out, f"predictability={ok}"], capsys)
    assert "different grids" in said([f"forecast={fc}", f"truth={coarse}", out], capsys)
    other = write(truth.rename(temperature="a", **{"2m_temperature": "b"}), tmp_path / "other.nc")
    assert "share no variable" in said([f"forecast={fc}", f"truth={other}", out], capsys)
    both = [f"forecast={fc}", f"truth={ok}", out]
    assert "did you mean 'temperature'" in said([*both, "fields=[temprature]"], capsys)
    assert "shares no level" in said([*both, "fields=[{temperature: [300]}]"], capsys)
    assert "got 5d. Take some of those with leads=[...]" in said([*both, "leads=[5d]"], capsys)
    assert "No region 'atlantis'" in said([*both, "regions=[atlantis]"], capsys)
    assert "expected some of persistence" in said([*both, "baselines=[magic]"], capsys)
    (tmp_path / "torn.nc").write_bytes(fc.read_bytes()[:2000])
    assert "Cannot open" in said([f"forecast={tmp_path / 'torn.nc'}", f"truth={ok}", out], capsys)
    assert not (tmp_path / "eval").exists()


@pytest.mark.slow
def test_spectra_beside_the_scores(tmp_path, forecast, truth):
    stored = write(forecast, tmp_path / "fc.nc"), write(truth, tmp_path / "truth.nc")
    target = scores(tmp_path, *stored, pictures="true", **{"spectra.leads": "[6h,1d]", "spectra.threshold": 0.8})
    found = xr.load_dataset(target / "scores.nc", group="spectra", decode_timedelta=True)
    assert found["lead_time"].values.astype("timedelta64[h]").astype(int).tolist() == [6, 24]
    assert "0.8 power(truth)" in found.attrs["effective_resolution"]
    difference = found["2m_temperature"].sel(source="forecast") - found["2m_temperature"].sel(source="truth")
    np.testing.assert_allclose(difference.isel(total_wavenumber=slice(1, None)), 0.0, atol=1e-4)  # off by a constant
    assert (difference.isel(total_wavenumber=0) > 100.0).all()
    finest = found["wavelength"].values[-1]
    np.testing.assert_allclose(found["temperature_effective_resolution"], finest)
    page = (target / "report.html").read_text()
    assert '<h2 id="spectra">Spectra</h2>' in page
    assert f"{finest / 1e3:.0f}<small>l = 5, coherent to 5</small>" in page
    assert page.count('class="line-truth"') == 4, "three charts and the legend"


def test_where_there_are_no_spectra(tmp_path, forecast, truth, capsys):
    part = {"latitude": slice(0, 3), "longitude": slice(0, 5)}
    stored = write(forecast.isel(part), tmp_path / "fc.nc"), write(truth.isel(part), tmp_path / "truth.nc")
    target = scores(tmp_path, *stored, regions="[global]", pictures="true")
    assert "No spectra: " in " ".join(capsys.readouterr().err.split())
    page = (target / "report.html").read_text()
    assert "No spectra" in page
    assert '<h2 id="spectra">Spectra</h2>' not in page
    with pytest.raises(OSError, match="spectra"):
        xr.load_dataset(target / "scores.nc", group="spectra")
    whole = write(forecast, tmp_path / "whole.nc")
    target = scores(tmp_path, whole, write(truth, tmp_path / "all.nc"), **{"spectra.fields": "[]"})
    assert "Spectra" not in capsys.readouterr().err
    with pytest.raises(OSError, match="spectra"):
        xr.load_dataset(target / "scores.nc", group="spectra")
