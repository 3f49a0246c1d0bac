"""`emul eval` on files as they are in the wild: options of both sides, what cannot be given, and every output."""

import csv

import numpy as np
import pytest
import xarray as xr

from emul.config.compose import compose
from emul.eval import evaluate
from emul.main import main

INITS = np.datetime64("2020-01-01", "ns") + 24 * np.timedelta64(1, "h") * np.arange(3)
LEADS = np.array([6, 12, 18]).astype("timedelta64[h]").astype("timedelta64[ns]")
SPACE = {"latitude": np.linspace(75, -75, 6), "longitude": np.arange(12) * 30.0}
QUIET = ("pictures=false", "baselines=[persistence]")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """truth.nc, and its forecasts with an error of 1 K."""
    rng = np.random.default_rng(0)
    time = INITS[0] + np.arange(16) * np.timedelta64(6, "h")
    field = rng.normal(280, 5, (16, 6, 12)).astype("f4")
    truth = xr.Dataset(
        {"2m_temperature": (("time", "latitude", "longitude"), field, {"units": "K"})}, {"time": time, **SPACE}
    )
    truth.to_netcdf(tmp_path / "truth.nc")
    valid = xr.DataArray(INITS[:, None] + LEADS, dims=("time", "prediction_timedelta"))
    forecast = truth.sel(time=valid).drop_vars("time") + np.float32(1)
    forecast["2m_temperature"].attrs = {"units": "K"}
    forecast = forecast.assign_coords(time=INITS, prediction_timedelta=LEADS)
    forecast.to_netcdf(tmp_path / "forecast.nc")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scored(*words):
    """The scores of an evaluation, and the lines of scores.csv."""
    target = evaluate(compose("eval", [*QUIET, "truth=truth.nc", *words]))
    with xr.open_dataset(target / "scores.nc", decode_timedelta=True) as stored:
        scores = stored.load()
    with open(target / "scores.csv", newline="", encoding="utf-8") as file:
        return scores, list(csv.DictReader(file))


def rmse(scores):
    return scores["2m_temperature"].sel(metric="rmse", region="global").values


@pytest.mark.parametrize("how", ['forecasts="f_*.nc"', "forecasts=[f_0.nc,f_1.nc,f_2.nc]", "forecasts=files"])
def test_forecasts_in_several_files(folder, how):
    (folder / "files").mkdir()
    with xr.open_dataset(folder / "forecast.nc") as forecast:
        for number in range(3):
            name = f"f_{number}.nc"
            forecast.isel(time=[number]).to_netcdf(folder / ("files" if how.endswith("files") else ".") / name)
    np.testing.assert_allclose(rmse(scored(how)[0]), 1.0, rtol=1e-4)


def test_options_say_what_files_do_not(folder):
    with xr.open_dataset(folder / "forecast.nc") as forecast:
        odd = forecast.rename({"2m_temperature": "temp", "prediction_timedelta": "fc"}) - 273.15
        odd["temp"].attrs["units"] = "degC"
        xr.concat([odd, odd + 2], "run").to_netcdf(folder / "odd.nc")
    names = "rename={temp: 2m_temperature, fc: prediction_timedelta}"
    found, _ = scored("forecasts=odd.nc", names, "units={2m_temperature: K}", "select={run: 0}")
    np.testing.assert_allclose(rmse(found), 1.0, rtol=1e-3)
    found, _ = scored("forecasts=odd.nc", names, "units={2m_temperature: K}", "members=run", "metric=[rmse,crps]")
    np.testing.assert_allclose(rmse(found), 2.0, rtol=1e-3)
    assert found.attrs["members"] == 2
    one_side = "rename={forecast: {temp: 2m_temperature, fc: prediction_timedelta}}"
    sides = ("units={forecast: {2m_temperature: 'degC -> K'}}", "select={forecast: {run: 1}}")
    np.testing.assert_allclose(rmse(scored("forecasts=odd.nc", one_side, *sides)[0]), 3.0, rtol=1e-3)


def test_units_that_are_not_known_are_decided_by_values_or_refused(folder, capsys):
    with xr.open_dataset(folder / "truth.nc") as truth:
        for name, fields in (("same", truth), ("other", truth - 273.15)):
            fields = fields.copy(deep=True)
            fields["2m_temperature"].attrs["units"] = "celcius"
            fields.to_netcdf(folder / f"{name}.nc")
    np.testing.assert_allclose(rmse(scored("forecasts=forecast.nc", "truth=same.nc")[0]), 1.0, rtol=1e-4)
    assert "is in 'celcius' in the truth, which is not known; taken as 'K'" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(ValueError, match=r"units=\{truth: \{2m_temperature: '<its units> -> K'\}\}"):
        scored("forecasts=forecast.nc", "truth=other.nc")
    known = "units={truth: {2m_temperature: 'degC -> K'}}"
    np.testing.assert_allclose(rmse(scored("forecasts=forecast.nc", "truth=other.nc", known)[0]), 1.0, rtol=1e-3)


def test_advice_names_keys_that_eval_takes(folder, capsys):
    with xr.open_dataset(folder / "forecast.nc") as forecast:
        xr.concat([forecast, forecast], "run").to_netcdf(folder / "runs.nc")
        forecast.assign_coords(prediction_timedelta=[1, 2, 3]).to_netcdf(folder / "bare.nc")
        celsius = forecast - 273.15
        celsius["2m_temperature"].attrs["units"] = "degC"
        celsius.to_netcdf(folder / "celsius.nc")
    for name, key in (("runs", "members="), ("celsius", "units=")):
        words = ["eval", f"forecast={name}.nc", "truth=truth.nc", *QUIET]
        assert main(words) != 0
        said = " ".join(capsys.readouterr().err.split())
        assert "data." not in said
        assert main([*words, key + said.split(f" {key}")[1].rstrip(".")]) == 0
    assert main(["eval", "forecast=bare.nc", "truth=truth.nc", *QUIET]) == 0
    assert "have no units; read as days" in " ".join(capsys.readouterr().err.split())
    for words, told in (
        ("rename={nothing: x}", "neither forecast nor truth has 'nothing'"),
        ("units={nothing: K}", "neither forecast nor truth has 'nothing'"),
        ("units={2m_temperature: 'degC -> K'}", "tell which"),
        ("members={truth: run}", "the truth is one state"),
    ):
        with pytest.raises(ValueError, match=told):
            scored("forecasts=forecast.nc", words)


def test_what_cannot_be_given_is_named_in_every_output(folder, capsys):
    inits = "inits=[2020-01-01,2020-01-09]"
    found, lines = scored("forecasts=forecast.nc", "metric=[crps,rmse,acc]", inits, "regions=[global,tropics_land]")
    assert "rmse" in found["metric"].values
    printed = capsys.readouterr()
    reasons = {
        "crps": "it needs 2 members or more and the forecast has no members",
        "acc": "no climatology",
        "2020-01-09T00:00": "the forecast has no such initial time",
        "tropics_land": "no land-sea mask at hand",
    }
    notes = {line["metric"] or line["inits"] or line["region"]: line["note"] for line in lines if line["note"]}
    for name, reason in reasons.items():
        for text in (printed.out, printed.err, found.attrs["left_out"]):
            assert name in text
            assert reason in " ".join(text.split())
        assert reason in notes[name]


def test_one_missing_value_is_told_with_its_place(folder, capsys):
    with xr.open_dataset(folder / "forecast.nc") as forecast:
        holed = forecast.load().copy(deep=True)
    holed["2m_temperature"][1, 2, 3, 5] = np.nan
    holed.to_netcdf(folder / "holed.nc")
    found, lines = scored("forecasts=holed.nc", "metric=[rmse,bias]")
    place = "the forecast is missing at 1 of 72 points of the field of 2020-01-02T00, lead 18h (first at latitude -15, "
    for text in (capsys.readouterr().err, found.attrs["left_out"], " ".join(line["note"] for line in lines)):
        assert place in text
        assert "longitude 150); missing=any leaves such points out" in text
    found, lines = scored("forecasts=holed.nc", "metric=[rmse,bias]", "missing=any")
    np.testing.assert_allclose(rmse(found), 1.0, rtol=1e-4)
    assert not any(line["note"] for line in lines)


def test_levels_that_one_side_lacks_are_named(folder):
    rng = np.random.default_rng(1)
    for name, dims, levels in (
        ("t", ("time",), [300, 500, 850]),
        ("f", ("time", "prediction_timedelta"), [500, 850]),
    ):
        times = {"time": INITS[0] + np.arange(16) * np.timedelta64(6, "h")} if name == "t" else {
            "time": INITS, "prediction_timedelta": LEADS}  # fmt: skip
        sizes = [len(values) for values in times.values()]
        values = rng.normal(250, 5, (*sizes, len(levels), 6, 12)).astype("f4")
        xr.Dataset(
            {"temperature": ((*dims, "level", "latitude", "longitude"), values, {"units": "K"})},
            {**times, "level": ("level", levels, {"units": "hPa"}), **SPACE},
        ).to_netcdf(folder / f"{name}.nc")
    found, lines = scored("forecasts=f.nc", "truth=t.nc", "levels=[300,500,1000]", "metric=[rmse]")
    assert found["level"].values.tolist() == [500]
    notes = {line["level"]: line["note"] for line in lines if line["note"]}
    assert notes == {
        "temperature at 300": "temperature at 300 left out: the forecast does not have it",
        "temperature at 1000": "temperature at 1000 left out: neither side has it",
    }
    found, lines = scored("forecasts=forecast.nc", "levels=[500,850]", "metric=[rmse]")
    reason = "left out: no variable that is scored has levels on both sides"
    assert [line["note"] for line in lines if line["note"]] == [f"500, 850 {reason}"]
    assert "no variable that is scored has levels on both sides" in found.attrs["left_out"]
    _, lines = scored("forecasts=forecast.nc", "fields=[{2m_temperature: [500]}]", "metric=[rmse]")
    assert [line["note"] for line in lines if line["note"]] == [
        "2m_temperature at 500 left out: it has no levels on both sides"
    ]
