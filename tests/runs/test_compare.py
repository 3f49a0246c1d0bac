"""`emul eval compare` on small evaluations made here: what is compared, what is left out, what is refused."""

import csv
import re

import numpy as np
import pytest
import xarray as xr

from data_pipelines.files.fingerprints import DIGEST
from data_pipelines.pictures.curves import fit_errors
from emul.config.compose import compose
from emul.eval import evaluate
from emul.main import main

pytestmark = pytest.mark.slow
INITS = np.datetime64("2001-01-01", "s") + np.arange(40) * np.timedelta64(12, "h")
LEADS = np.array([6, 12, 24]).astype("timedelta64[h]")
LATITUDE, LONGITUDE = np.linspace(75, -75, 6), np.arange(12) * 30.0


def truth(seed: int = 0) -> xr.Dataset:
    time = np.datetime64("2001-01-01", "s") + np.arange(88) * np.timedelta64(6, "h")
    field = np.random.default_rng(seed).normal(280, 5, (88, 6, 12)).astype("float32")
    dims = ("time", "latitude", "longitude")
    return xr.Dataset(
        {
            "2m_temperature": (dims, field, {"units": "K"}),
            "mean_sea_level_pressure": (dims, 100 * field, {"units": "Pa"}),
        },
        {"time": time, "latitude": LATITUDE, "longitude": LONGITUDE},
    )


def forecast(of: xr.Dataset, error: float, seed: int) -> xr.Dataset:
    """The truth at the valid time with noise of the size `error`, in two variables."""
    valid = xr.DataArray(INITS[:, None] + LEADS, dims=("time", "prediction_timedelta"))
    made = of.sel(time=valid).drop_vars("time")
    noise = np.random.default_rng(seed).normal(0, error, made["2m_temperature"].shape).astype("float32")
    made["2m_temperature"] = made["2m_temperature"] + noise
    made["mean_sea_level_pressure"] = made["mean_sea_level_pressure"] + 100 * noise
    return made.assign_coords(time=INITS, prediction_timedelta=LEADS.astype("timedelta64[ns]"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Evaluations: good, bad and late (fewer initial times), other (of another truth), plain (no statistics of each
    initial time), rough (another grid)."""
    folder = tmp_path_factory.mktemp("compare")
    same, other = truth(), truth(1)
    same.to_netcdf(folder / "truth.nc")
    other.to_netcdf(folder / "other_truth.nc")
    made = {
        "good": (forecast(same, 1.0, 2), {}),
        "bad": (forecast(same, 2.0, 3), {}),
        "late": (forecast(same, 1.0, 4).isel(time=slice(2, None)).drop_vars("mean_sea_level_pressure"), {}),
        "other": (forecast(other, 1.0, 5), {"truth": "other_truth.nc"}),
        "plain": (forecast(same, 1.0, 6).isel(time=slice(3, None)), {"significance.level": "null"}),
        "rough": (forecast(same, 1.0, 7).isel(latitude=slice(0, 3)), {}),
    }
    for name, (stored, options) in made.items():
        stored.to_netcdf(folder / f"{name}.nc")
        given = {"forecasts": folder / f"{name}.nc", "truth": folder / options.pop("truth", "truth.nc")}
        given |= {"output": folder, "pictures": "false", "regions": "[global]", "metric": "[rmse,bias]"} | options
        evaluate(compose("eval", [f"{key}={value}" for key, value in given.items()]))
    return folder


def test_two_runs_on_the_same_initial_times(folder, capsys):
    assert main(["eval", "compare", "good", "bad", f"output={folder}"]) == 0
    target = folder / "eval" / "compare"
    found = xr.load_dataset(target / "compare.nc", decode_timedelta=True)
    assert found["2m_temperature"].dims == ("run", "metric", "region", "lead_time")
    np.testing.assert_allclose(found["2m_temperature"].sel(metric="rmse", region="global", run="bad"), 2.0, rtol=0.1)
    differences = xr.load_dataset(target / "compare.nc", group="differences", decode_timedelta=True)
    assert differences["source"].values.tolist() == ["bad"]
    assert (differences["2m_temperature"].sel(metric="rmse", estimate="low") > 0.5).all()
    with open(target / "compare.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 2 * 2 * 3
    worse = [line for line in lines if (line["run"], line["metric"]) == ("bad", "rmse")]
    assert {line["significant"] for line in worse} == {"yes"}
    assert all(80 < float(line["difference_percent"]) < 120 for line in worse)
    assert {path.name for path in target.iterdir()} >= {"compare.html", "scorecards.png", "curves.png"}
    page = (target / "compare.html").read_text()
    assert "://" not in page
    assert page.count("<h3>bad</h3>") == 1
    card = page.split("<h3>bad</h3>")[1].split("</table>")[0]
    cells = [re.findall(r"<td[^>]*>([^<]*)</td>", line) for line in card.split("<tr>")[2:]]
    told = [float(line["difference_percent"]) for line in worse]
    np.testing.assert_allclose([float(cell) for line in cells for cell in line], told, atol=0.5)
    assert "~" not in capsys.readouterr().out.split("differences to")[0]


def test_initial_times_that_not_all_have_are_left_out_and_told(folder, capsys):
    assert main(["eval", "compare", "good", "late", "name=part", f"output={folder}"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "good: 2 of 40 initial times are not in all" in said
    assert "Variables left out, since not all have them: mean_sea_level_pressure" in said
    found = xr.load_dataset(folder / "eval" / "part" / "compare.nc", decode_timedelta=True)
    late = xr.load_dataset(folder / "eval" / "late" / "scores.nc", decode_timedelta=True)
    np.testing.assert_allclose(
        found["2m_temperature"].sel(run="late"),
        late["2m_temperature"].sel(metric=found["metric"]),
        rtol=1e-5,
        atol=1e-6,
    )
    assert found.attrs["number_of_inits"] == 38


def test_against_a_baseline_that_is_no_run(folder):
    assert main(["eval", "compare", "good", "bad", "baseline=persistence", "name=p", f"output={folder}"]) == 0
    found = xr.load_dataset(folder / "eval" / "p" / "compare.nc", group="differences", decode_timedelta=True)
    assert found["source"].values.tolist() == ["good", "bad"]
    assert (found["2m_temperature"].sel(metric="rmse", estimate="high") < 0).all()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["good"], "two or more"),
        (["good", "none"], "No evaluation called 'none'"),
        (["good", "other"], "their truths differ"),
        (["good", "plain"], "plain kept no statistics of each"),
        (["good", "rough"], "grid is"),
        (["good", "good"], "named twice"),
        (["good", "bad", "baseline=best"], "expected one of good, bad, persistence"),
        (["good", "bad", "metric=acc"], "metric=acc"),
        (["good", "bad", "region=mars"], "region=mars"),
        (["good", "bad", "baselin=good"], "did you mean baseline"),
        (["good", "bad", "least=many"], "least: expected a number"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(folder, words, why, capsys):
    assert main(["eval", "compare", *words, f"output={folder}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert why in said
    assert "Traceback" not in said


def test_a_truth_that_changed_in_between_is_noticed(folder, tmp_path, capsys):
    """The same path, other values: persistence tells."""
    (tmp_path / "eval" / "good").mkdir(parents=True)
    for name in ("scores.nc", "baselines.nc", "by_init.nc"):
        (tmp_path / "eval" / "good" / name).write_bytes((folder / "eval" / "other" / name).read_bytes())
    with xr.open_dataset(tmp_path / "eval" / "good" / "scores.nc", decode_timedelta=True) as stored:
        scores = stored.load()
    own = xr.load_dataset(folder / "eval" / "good" / "scores.nc")
    del scores.attrs[DIGEST]  # of the file that is written here in its place there is none
    scores.assign_attrs(truth=own.attrs["truth"]).to_netcdf(tmp_path / "eval" / "good" / "scores.nc")
    assert (
        main(["eval", "compare", str(folder / "eval" / "bad"), str(tmp_path / "eval" / "good"), f"output={folder}"])
        == 2
    )
    assert "it has changed in between" in " ".join(capsys.readouterr().err.split())


def test_an_error_that_blows_up_leaves_the_page():
    from matplotlib.figure import Figure

    axis = Figure().subplots()
    axis.plot([0, 1], [1.0, 1e20])
    fit_errors(axis, "rmse", [2.0, 4.0], room=1.5)
    assert axis.get_ylim() == (0.0, 6.0)
    fit_errors(axis, "bias", [2.0])
    assert axis.get_ylim() == (0.0, 6.0), "only of what cannot be negative"
