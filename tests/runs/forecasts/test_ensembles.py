"""Ensembles: members in groups, statistics in their place, and perturbed starts for deterministic networks."""

import shutil

import numpy as np
import pytest
import xarray as xr
from omegaconf import OmegaConf

from data_pipelines.forecasts import production
from data_pipelines.forecasts.manifest import read_manifest, verify_checksums
from data_pipelines.opening.forecasts import open_forecast
from emul.config.compose import compose
from emul.forecast import forecast
from emul.main import main
from emul.training.runs import open_run

INITS = ["init=2003-01-13/2003-01-16/1d", "lead=18h", "batch_size=2"]
STATISTICS = ["keep=statistics", "events={hot: '2m_temperature > 290'}", "quantiles=[0.25,0.5]"]
GAUSSIAN = ["perturbation=gaussian", "members=5"]


def stored(folder):
    return xr.open_zarr(folder / "forecast.zarr", chunks=None, consolidated=True).load()


@pytest.fixture(scope="module")
def members(home, tmp_path_factory):
    """Five members, two at a time, of a deterministic network."""
    folder = forecast(home.config(tmp_path_factory.mktemp("members"), *INITS, *GAUSSIAN, "member_batch=2"))
    assert read_manifest(folder)["verdict"] == "verified"
    return folder


@pytest.fixture(scope="module")
def statistics(home, tmp_path_factory):
    given = [*INITS, *GAUSSIAN, "member_batch=2", *STATISTICS]
    return forecast(home.config(tmp_path_factory.mktemp("statistics"), *given))


def test_members_do_not_depend_on_their_number_or_their_groups(home, members, tmp_path):
    everyone = stored(members)
    assert everyone.sizes["number"] == 5
    assert (everyone["2m_temperature"].std("number") > 0).all()
    together = stored(forecast(home.config(tmp_path, *INITS, "perturbation=gaussian", "members=3")))
    some = everyone.sel(number=[0, 1, 2])
    np.testing.assert_allclose(together["temperature"], some["temperature"], rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("perturbation", ["gaussian", "bred"])
def test_a_perturbed_member_does_not_depend_on_the_other_dates(home, tmp_path, perturbation):
    given = ["lead=6h", "batch_size=1", f"perturbation={perturbation}", "members=3"]
    given += ["perturbation.cycles=1"] if perturbation == "bred" else []
    many, alone = (
        stored(forecast(home.config(tmp_path / name, f"init={inits}", *given)))
        for name, inits in (("many", "2003-01-13/2003-01-16/1d"), ("alone", "2003-01-15"))
    )
    for name in alone.data_vars:
        np.testing.assert_array_equal(alone[name], many[name].sel(time=alone["time"]))


def test_noise_of_a_member_is_its_own_whatever_its_group(home, tmp_path):
    runs = [
        stored(forecast(home.config(tmp_path / name, *INITS, f"members={count}", *more, run="noisy")))
        for name, count, more in (("five", 5, ["member_batch=2"]), ("all", 5, []), ("three", 3, []))
    ]
    for other in runs[1:]:
        both = runs[0]["temperature"].sel(number=other["number"])
        np.testing.assert_allclose(other["temperature"], both, rtol=1e-6, atol=1e-4)
    assert (runs[0]["temperature"].std("number") > 0).all()


def test_members_spread_as_far_as_their_noise(home, tmp_path):
    given = ["init=2003-01-13", "lead=6h", "members=4"]
    folders = {
        factor: forecast(home.config(tmp_path / str(factor), *given, f"noise_factor={factor}", run="noisy"))
        for factor in (1.0, 0.5, 0)
    }
    spread = {factor: stored(folder)["temperature"].std("number").mean().item() for factor, folder in folders.items()}
    assert spread[0] == 0.0
    assert spread[0.5] == pytest.approx(0.5 * spread[1.0], rel=0.1)
    assert "noise_factor" not in read_manifest(folders[1.0])["settings"]
    assert read_manifest(folders[0.5])["settings"]["noise_factor"] == 0.5
    with pytest.raises(ValueError, match=r"noise_factor: .* draws no noise whose size"):
        forecast(home.config(tmp_path, *INITS, *GAUSSIAN, "noise_factor=2"))


def test_members_from_python_are_those_of_the_command(home, tmp_path):
    """The factor of the noise is that of the run's config.yaml, or the one that is given."""
    folder = tmp_path / "train" / "calibrated"
    shutil.copytree(home.run("noisy"), folder)
    config = OmegaConf.load(folder / "config.yaml")
    config.forecast.noise_factor = 2.0
    OmegaConf.save(config, folder / "config.yaml")
    given, run = ["init=2003-01-13", "lead=12h", "members=3"], open_run(folder)
    for words, options in (([], {}), (["noise_factor=1.0", "name=plain"], {"noise_factor": 1.0})):
        command = forecast(compose("forecast", [f"run={folder}", f"output={tmp_path}", "device=cpu", *given, *words]))
        called = run.forecast("2003-01-13", "12h", members=3, **options)
        for name in ("temperature", "2m_temperature"):
            np.testing.assert_allclose(called[name], stored(command)[name], rtol=1e-6, atol=1e-4)
    own, plain = (stored(tmp_path / "forecast" / name)["temperature"] for name in ("calibrated", "plain"))
    assert not np.allclose(own, plain, rtol=1e-6, atol=1e-3)


@pytest.mark.slow
def test_members_made_apart_have_the_same_bits_in_any_batch(home, tmp_path):
    given = ["init=2003-01-13/2003-01-14/1d", "lead=12h", "members=3", "apart=true"]
    one, other = (
        stored(forecast(home.config(tmp_path / str(size), *given, f"batch_size={size}", *more, run="noisy")))
        for size, more in ((1, []), (2, ["member_batch=2"]))
    )
    for name in one.data_vars:
        np.testing.assert_array_equal(one[name], other[name])
    with pytest.raises(ValueError, match="apart=true steps the cases of one run; leave out seeds"):
        forecast(home.config(tmp_path, *given, f"seeds=[{home.run('noisy')}]", run="noisy"))


def test_statistics_are_those_of_the_members(members, statistics):
    each, kept = stored(members), stored(statistics)
    assert "number" not in kept.dims
    assert kept.attrs["ensemble_statistics"] == "5"
    assert not (statistics / "partial").exists()
    assert verify_checksums(statistics) == []
    for name in ("temperature", "2m_temperature"):
        field = each[name].astype(np.float64)
        np.testing.assert_allclose(kept[name], field.mean("number"), rtol=1e-6)
        np.testing.assert_allclose(kept[f"{name}_standard_deviation"], field.std("number", ddof=1), rtol=1e-4)
        np.testing.assert_array_equal(kept[f"{name}_minimum"], each[name].min("number"))
        np.testing.assert_allclose(kept[f"{name}_quantile_0.25"], field.quantile(0.25, "number"), rtol=1e-6)
    hot = (each["2m_temperature"] > 290).mean("number")
    np.testing.assert_allclose(kept["probability_of_hot"], hot, rtol=1e-6)


@pytest.mark.slow
def test_shares_write_the_same_bytes(home, statistics, tmp_path):
    for share in (2, 3, 1):
        given = [*INITS, *GAUSSIAN, "member_batch=2", *STATISTICS, f"share={share}/3"]
        folder = forecast(home.config(tmp_path, *given))
    assert verify_checksums(folder) == []
    one, other = (home.contents(path / "forecast.zarr") for path in (statistics, folder))
    assert one == other


def test_a_forecast_that_stopped_goes_on_to_the_same_bytes(home, statistics, tmp_path, monkeypatch):
    made, make = [], production.BatchForecast.make

    def stops(self, segment, report):
        if len(made) == 3:
            raise RuntimeError("pulled the plug")
        made.append(segment)
        return make(self, segment, report)

    config = home.config(tmp_path, *INITS, *GAUSSIAN, "member_batch=2", *STATISTICS, "segment=1")
    monkeypatch.setattr(production.BatchForecast, "make", stops)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        forecast(config)
    monkeypatch.setattr(production.BatchForecast, "make", make)
    folder = forecast(config)
    kept, again = stored(statistics), stored(folder)
    for name in kept.data_vars:
        np.testing.assert_array_equal(kept[name], again[name])


def test_groups_are_merged_as_they_finish_and_a_killed_forecast_goes_on(home, tmp_path, monkeypatch):
    """Few files are kept, hardly larger than the members; a damaged one is made again, to the same bytes."""
    given = ["init=2003-01-13/2003-01-14/1d", "lead=18h", "batch_size=1", "perturbation=gaussian", "members=41"]
    given += [*STATISTICS, "writer.chunk_megabytes=0.008"]

    def made(name, group):
        return forecast(home.config(tmp_path / name, *given, f"member_batch={group}"))

    def stop(*_):
        raise RuntimeError("pulled the plug")

    with monkeypatch.context() as patch:
        patch.setattr(production, "finish", stop)
        with pytest.raises(RuntimeError, match="pulled the plug"):
            made("killed", 4)
    (folder,) = (tmp_path / "killed").glob("forecast/*")
    files = sorted((folder / "partial").iterdir())
    blocks = len({path.name.split("_")[1].removesuffix(".npz") for path in files})
    assert blocks > 1
    assert len(files) == 2 * blocks  # one of each date and block of leads
    members = 2 * 3 * 3 * 8 * 16 * 4 * 41  # bytes: dates, leads, channels, points
    assert members < sum(path.stat().st_size for path in files) < 1.25 * members
    files[0].write_bytes(files[0].read_bytes()[:-9])
    again, whole, other = made("killed", 4), made("whole", 4), made("other", 41)
    assert home.contents(again / "forecast.zarr") == home.contents(whole / "forecast.zarr")
    for name, field in stored(other).data_vars.items():
        np.testing.assert_allclose(stored(again)[name], field, rtol=1e-5, atol=1e-4)


def test_scores_of_mean_and_spread_are_those_of_the_members(members, statistics, home, tmp_path, capsys):
    found = []
    for name, folder in (("members", members), ("statistics", statistics)):
        words = [f"run={home.run('tame')}", f"forecasts={folder}", f"name={name}", f"output={tmp_path}"]
        assert main(["eval", *words, "metric=[rmse,spread,gaussian_crps]", "pictures=false"]) == 0
        found.append(xr.open_dataset(tmp_path / "eval" / name / "scores.nc"))
    for name in ("temperature", "2m_temperature"):
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-4)
    assert main(["eval", *words, "metric=[crps,rmse]", "pictures=false"]) == 2
    assert (
        "metric: crps cannot be computed from a forecast without members (keep=statistics)" in capsys.readouterr().err
    )
    opened = open_forecast(statistics / "forecast.zarr")
    assert opened.sizes["member"] == 2
    assert set(opened.data_vars) == {"temperature", "2m_temperature"}


@pytest.mark.parametrize("perturbation", ["bred", "lagged"])
def test_perturbed_starts_of_a_network_with_history(home, tmp_path, perturbation):
    given = [*INITS, f"perturbation={perturbation}", "members=3", "member_batch=2"]
    more = ["perturbation.cycles=2", "perturbation.cycle=12h"] if perturbation == "bred" else []
    found = stored(forecast(home.config(tmp_path, *given, *more, run="past")))
    control = stored(forecast(home.config(tmp_path / "control", *INITS, run="past")))
    np.testing.assert_allclose(found["temperature"][:, 0], control["temperature"], rtol=1e-6)
    assert (found["temperature"].std("number") > 0).all()


def test_members_with_laws_and_history_in_groups(home, tmp_path):
    given = ["init=2003-01-13", "lead=12h", "members=3", "member_batch=2"]
    folder = forecast(home.config(tmp_path, *given, run="lawful"))
    assert read_manifest(folder)["verdict"] == "verified"
    assert xr.open_dataset(folder / "budgets.nc").sizes["time"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["members=3"], "draws no noise"),
        (["perturbation=gaussian"], "A perturbation makes members"),
        (["keep=statistics"], "keep=statistics is of an ensemble"),
        (["keep=mean"], "expected members or statistics"),
        ([*GAUSSIAN, "keep=statistics", "events={hot: 'warmth > 3'}"], r"events.hot: expected <channel>"),
        ([*GAUSSIAN, "keep=statistics", "quantiles=[2]"], "Expected quantiles within 0..1"),
        ([*GAUSSIAN, "member_batch=-1"], "member_batch must be at least 1"),
        (["perturbation=bred", "members=3", "init=2003-01-01"], "start later"),
        (["perturbation=lagged", "members=3", "perturbation.lag=5h"], "expected whole timesteps"),
    ],
)
def test_what_makes_no_ensemble_is_refused(home, tmp_path, words, message):
    with pytest.raises(ValueError, match=message):
        forecast(home.config(tmp_path, *words))
