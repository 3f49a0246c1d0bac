"""Projections against closed forms, independent implementations and published numbers; the luck of members."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import norm

from data_pipelines.projections.climatebench import ClimateBench
from data_pipelines.projections.energy_balance import FEEDBACK, EnergyBalance, two_layers
from emulators.models.unet import UNet
from emulators.projections.network import CnnLstm, NetworkProjection
from emulators.projections.pattern_scaling import PatternScaling
from emulators.projections.predictors import Predictors
from emulators.projections.ridge import Ridge
from emulators.projections.scenarios import Scenario, ScenarioSet
from emulators.projections.scikit import GaussianProcess, RandomForest
from emulators.projections.scores import member_study, nrmse
from emulators.statistics.patterns import Patterns
from places import SHARED

TRAIN = ["historical", "hist-GHG", "hist-aer", "ssp126", "ssp370", "ssp585"]
PUBLISHED = SHARED / "realdata" / "climatebench_lps_noresm2.npz"


def world(**options):
    options = {"rows": 8, "members": 2, "train": TRAIN, "test": ["ssp245"]} | options
    return EnergyBalance(**options).read()


def errors(data, emulator, variable="tas"):
    """The scores of an emulator against the forced response."""
    emulator.fit(data, variable)
    scenario = data.scenarios[data.test[0]]
    inside = data.in_period(scenario)
    maps = emulator.project(data, scenario)
    return nrmse(maps[inside], scenario.forced[variable][inside], data.weights)


# --- scores ------------------------------------------------------------------------------------------------------


def test_scores_equal_weighted_means_of_xarray():
    random = np.random.default_rng(0)
    latitude = np.linspace(90.0, -90.0, 9)
    maps = [xr.DataArray(random.normal(1.0, 1.0, (6, 9, 16)), dims=("time", "lat", "lon")) for _ in range(2)]
    weights = np.cos(np.deg2rad(xr.DataArray(latitude, dims="lat")))

    def globe(field):
        return field.weighted(weights).mean(("lat", "lon"))

    prediction, truth = maps
    size = np.abs(globe(truth.mean("time")))
    spatial = np.sqrt(globe((prediction.mean("time") - truth.mean("time")) ** 2)) / size
    series = np.sqrt(((globe(prediction) - globe(truth)) ** 2).mean("time")) / size
    rows = np.cos(np.deg2rad(latitude))
    score = nrmse(prediction.values, truth.values, (rows / rows.mean())[:, None])
    np.testing.assert_allclose(score.spatial, float(spatial), rtol=1e-12)
    np.testing.assert_allclose(score.globe, float(series), rtol=1e-12)
    np.testing.assert_allclose(score.total, float(spatial + 5 * series), rtol=1e-12)


def test_scores_of_published_errors():
    """An error of 0.16276 K everywhere at a mean of 2.0705421 K has the NRMSE_s of Lütjens et al., 0.0786."""
    truth = np.full((21, 4, 8), 2.0705421)
    weights = np.ones((4, 1))
    wave = np.where(np.arange(8) % 2, 1.0, -1.0) * 0.16276  # no error of the global mean
    assert float(nrmse(truth + wave, truth, weights).spatial) == pytest.approx(0.078609, abs=2e-6)
    shift = nrmse(truth + 0.040997 * 2.0705421, truth, weights)
    assert float(shift.globe) == pytest.approx(0.040997)
    assert 0.078609 + 5 * float(shift.globe) == pytest.approx(0.283594)


@pytest.mark.skipif("CLIMATEBENCH" not in os.environ, reason="needs the folder of ClimateBench's files in CLIMATEBENCH")
def test_published_scores_of_pattern_scaling():
    data = ClimateBench(
        path=os.environ["CLIMATEBENCH"],
        train=TRAIN,
        test=["ssp245"],
        period=(2080, 2100),
        before="historical",
        factors={"pr": 86400.0, "pr90": 86400.0},
        units={},
    ).read()
    emulator = PatternScaling()
    emulator.fit(data, "tas")
    scenario = data.scenarios["ssp245"]
    inside = data.in_period(scenario)
    score = nrmse(emulator.project(data, scenario)[inside], scenario.mean("tas")[inside], data.weights)
    assert [float(score.spatial), float(score.globe), float(score.total)] == pytest.approx(
        [0.0786, 0.0410, 0.2836], abs=1e-4
    )


# --- emulators ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="needs the published patterns of NorESM2-LM")
def test_published_patterns_are_found_again():
    """A climate that follows the published patterns is projected without error, with the published coefficients."""
    stored = np.load(PUBLISHED)
    pattern = stored["global_tas_to_local_tas__coeffs"][:, ::-1]
    slope = float(stored["global_co2_to_global_tas__coef"].item())
    intercept = float(stored["global_co2_to_global_tas__intercept"].item())
    latitude = np.linspace(90.0, -90.0, 96)
    cosine = np.cos(np.deg2rad(latitude))
    means = (pattern * cosine[:, None]).sum(axis=(1, 2)) / cosine.sum() / 144
    np.testing.assert_allclose(means, [1.0, 0.0], atol=1e-6)  # of a regression on one's own mean

    def scenario(name, years, co2):
        index = (slope * co2 + intercept)[None, :, None, None]
        return Scenario(name, years, {"CO2": co2}, {"tas": pattern[0] * index + pattern[1]})

    train = scenario("ssp585", np.arange(2015, 2101), np.linspace(1500.0, 9000.0, 86))
    test = scenario("ssp245", np.arange(2015, 2101), np.linspace(1500.0, 4500.0, 86))
    both = {one.name: one for one in (train, test)}
    data = ScenarioSet(latitude, np.arange(144) * 2.5, both, ["ssp585"], ["ssp245"], (2080, 2100))
    emulator = PatternScaling()
    emulator.fit(data, "tas")
    np.testing.assert_allclose(emulator.pattern, pattern, atol=2e-6)
    assert emulator.slopes[0] == pytest.approx(slope, rel=1e-6)
    score = nrmse(emulator.project(data, test)[65:], test.mean("tas")[65:], data.weights)
    assert float(score.total) < 1e-9


@pytest.mark.parametrize("variable", ["tas", "pr"])
def test_pattern_scaling_is_exact_where_the_response_is_linear(variable):
    data = world(linear=True, noise=0.0, train=["historical", "ssp126", "ssp585"])
    assert float(errors(data, PatternScaling(), variable).total) < 1e-10
    assert float(errors(world(noise=0.0), PatternScaling(), variable).total) > 0.05


def test_stages_of_pattern_scaling_equal_least_squares():
    data = world()
    emulator = PatternScaling(drivers=("CO2", "SO2"))
    emulator.fit(data, "pr")
    columns = np.concatenate([data.driver_means(one, ["CO2", "SO2"]) for one in data.training])
    index = data.area_mean(data.targets("tas"))
    first = np.linalg.lstsq(np.column_stack([columns, np.ones(len(columns))]), index, rcond=None)[0]
    np.testing.assert_allclose([*emulator.slopes, emulator.intercept], first, rtol=1e-6)
    cell = np.linalg.lstsq(np.column_stack([index, np.ones(len(index))]), data.targets("pr")[:, 3, 5], rcond=None)[0]
    np.testing.assert_allclose(emulator.pattern[:, 3, 5], cell, rtol=1e-6)


def test_ridge_equals_the_stationary_point_of_its_loss():
    """The gradient of the penalised squares vanishes, by automatic differentiation."""
    data = world()
    emulator = Ridge(penalty=3.0, modes=2)
    emulator.fit(data, "tas")
    inputs = torch.as_tensor(Predictors(data, 2).of_training(data))
    targets = torch.as_tensor(data.targets("tas"))[:, 2, 4]
    weights = torch.tensor(emulator.weights[:, 2, 4], requires_grad=True)
    mean = torch.tensor(emulator.mean[2, 4], requires_grad=True)
    loss = (targets - mean - inputs @ weights).square().sum() + 3.0 * weights.square().sum()
    loss.backward()
    assert float(weights.grad.abs().max()) < 1e-6 * float(targets.square().sum())
    assert float(mean.grad.abs()) < 1e-6 * float(targets.square().sum())


def test_ridge_sees_aerosols_where_pattern_scaling_does_not():
    data = world(noise=0.0, train=["historical", "hist-GHG", "ssp126"], test=["hist-aer"], period=(1990, 2014))
    assert float(errors(data, PatternScaling()).total) > 5.0  # no CO2, no change
    assert float(errors(data, Ridge(penalty=0.1)).total) < 1.5


def test_patterns_give_maps_back():
    random = np.random.default_rng(1)
    maps, weights = random.standard_normal((7, 4, 6)), np.array([0.5, 1.0, 1.5, 1.0])[:, None]
    patterns = Patterns(maps, weights, 10)
    assert len(patterns.patterns) == 6  # seven anomalies from their mean
    np.testing.assert_allclose(patterns.maps(patterns.coefficients(maps)), maps, atol=1e-10)
    few = Patterns(maps, weights, 2)
    left = (maps - few.maps(few.coefficients(maps))) ** 2 * weights
    sizes = np.linalg.svd(((maps - maps.mean(0)) * np.sqrt(weights)).reshape(7, -1), compute_uv=False)
    assert left.sum() == pytest.approx((sizes[2:] ** 2).sum())


def test_scikit_regressions_learn_the_forced_response():
    pytest.importorskip("sklearn")
    data = world(noise=0.0, train=["historical", "ssp126", "ssp585"])
    process, forest = GaussianProcess(modes=1, targets=3, every=8), RandomForest(trees=20, modes=1, targets=3)
    found = {
        "process": errors(data, process),
        "forest": errors(data, forest),
        "scaling": errors(data, PatternScaling()),
    }
    assert float(found["process"].total) < float(found["scaling"].total)
    assert float(found["forest"].total) < 1.0  # the spatial score of no warming at all is above 1
    again = GaussianProcess(modes=1, targets=3, every=8)
    assert float(errors(data, again).total) == float(found["process"].total)


def test_missing_scikit_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.ensemble", None)
    with pytest.raises(ValueError, match=r"pip install 'emul\[projections\]'"):
        RandomForest().fit(world(), "tas")


# --- networks ----------------------------------------------------------------------------------------------------


def test_history_goes_back_into_the_scenario_before():
    data = world()
    future = data.scenarios["ssp245"]
    window = future.history("CO2", 4)
    past = data.scenarios["historical"].drivers["CO2"]
    np.testing.assert_array_equal(window[0], [*past[-3:], future.drivers["CO2"][0]])
    np.testing.assert_array_equal(window[10], future.drivers["CO2"][7:11])
    first = data.scenarios["historical"].history("SO2", 3)
    np.testing.assert_array_equal(first[0], np.repeat(data.scenarios["historical"].drivers["SO2"][:1], 3, axis=0))
    assert first.shape == (165, 3, 8, 12)


def test_network_of_climatebench_has_its_parameters():
    """As in the original, but for a second bias of the LSTM; its convolution sees each year alone."""
    data = world()
    projection = NetworkProjection(network=CnnLstm, window=10)
    network = CnnLstm(projection.world(data, "tas"))
    size = sum(parameter.numel() for parameter in network.parameters())
    assert size == (9 * 4 * 20 + 20) + 4 * (25 * (20 + 25) + 2 * 25) + 26 * 8 * 12
    fields = torch.randn(3, 40, 8, 12)
    changed = fields.clone()
    changed[:, :4] += 1.0  # the oldest year
    assert not torch.equal(network(fields, torch.zeros(3)), network(changed, torch.zeros(3)))
    with pytest.raises(ValueError, match="does not divide"):
        CnnLstm(projection.world(data, "tas"), window=9)


def test_networks_train_and_repeat():
    data = world(noise=0.0, train=["historical", "ssp126", "ssp585"])

    def trained(steps):
        network = NetworkProjection(network=lambda w: UNet(w, channels=[8], blocks=1), steps=steps, batch=8, rate=1e-2)
        return float(errors(data, network).total)

    few, many = trained(2), trained(60)
    assert many < 0.5 * few
    assert trained(60) == many


# --- internal variability ----------------------------------------------------------------------------------------


def test_floor_is_the_score_of_the_forced_response():
    """Averaged over draws of members that nobody has seen, it is the closed form sigma^2 / M."""
    random = np.random.default_rng(2)
    forced = np.full((21, 6, 8), 2.0)
    weights = np.ones((6, 1))
    members = forced + random.standard_normal((400, 1, 6, 8))  # the same in all years of the period
    study = member_study({"forced": forced}, members, weights, draws=10)
    assert study.floor[4] == pytest.approx(np.sqrt(1.0 / 4) / 2.0, rel=0.03)
    squares = [float(nrmse(forced, members[4 * n : 4 * n + 4].mean(0), weights).spatial) ** 2 for n in range(100)]
    assert np.sqrt(np.mean(squares)) == pytest.approx(study.floor[4], rel=0.05)


def test_members_needed_to_tell_two_emulators_apart():
    """Members differ by a number, the same everywhere: the exact emulator beats one that is d off where their mean is
    below d / 2, and that is normally distributed."""
    random = np.random.default_rng(3)
    forced = np.full((21, 4, 6), 3.0)
    noise = random.standard_normal((120, 1, 1, 1))
    members = forced + 0.5 * (noise - noise.mean()) / noise.std()
    offset = 0.4
    study = member_study({"exact": forced, "off": forced + offset}, members, np.ones((4, 1)), draws=600)
    for count in (1, 4, 16):
        expected = norm.cdf(offset / 2 / (0.5 / np.sqrt(count)) / np.sqrt(1 - count / 120))
        assert study.wins("exact", "off", count) == pytest.approx(expected, abs=0.06)
    needed = study.members_needed("exact", "off")
    assert needed == study.members_needed("off", "exact")
    assert 10 <= needed <= 20  # 17 / (1 + 17 / 120), of (1.645 x 0.5 / 0.2)^2 = 17 among 120
    assert (
        member_study({"a": forced, "b": forced + 1e-9}, members[:20], np.ones((4, 1))).members_needed("a", "b") is None
    )


def test_intervals_narrow_with_members():
    data = world(members=24)
    scenario = data.scenarios["ssp245"]
    emulator = PatternScaling()
    emulator.fit(data, "tas")
    inside = data.in_period(scenario)
    study = member_study(
        {"scaling": emulator.project(data, scenario)[inside]}, scenario.fields["tas"][:, inside], data.weights, 200
    )
    widths = [np.ptp(np.percentile(study.totals["scaling"][count], (5, 95))) for count in (1, 4, 12)]
    assert all(wide > 1.5 * narrow for wide, narrow in pairwise(widths))
    assert study.counts == (*range(1, 13), 24)


# --- data --------------------------------------------------------------------------------------------------------


def climatebench_folder(folder: Path) -> Path:
    """Files in the layout of ClimateBench, of two scenarios on rows from south to north."""
    random = np.random.default_rng(4)
    latitude, longitude = np.linspace(-90.0, 90.0, 5), np.arange(6) * 60.0
    for name, years in (("historical", np.arange(2010, 2015)), ("ssp245", np.arange(2015, 2019))):
        grid = {"latitude": latitude, "longitude": longitude}
        maps = {key: (("time", *grid), random.random((len(years), 5, 6))) for key in ("SO2", "BC")}
        series = {"CO2": ("time", np.arange(len(years)) + 100.0), "CH4": ("time", np.ones(len(years)))}
        xr.Dataset(series | maps, {"time": years, **grid}).to_netcdf(folder / f"inputs_{name}.nc")
        shape, dims = (3, len(years), 5, 6), ("member", "time", "lat", "lon")
        outputs = {key: (dims, random.random(shape).astype(np.float32)) for key in ("tas", "pr")}
        dates = np.array([f"{year}-07-01" for year in years], dtype="datetime64[ns]") if name == "ssp245" else years
        dataset = xr.Dataset(outputs, {"time": dates, "lat": latitude, "lon": longitude, "quantile": 0.9})
        dataset.to_netcdf(folder / f"outputs_{name}.nc")
    return folder


def reader(folder, **options):
    words = {"train": ["historical"], "test": ["ssp245"], "period": (2017, 2018), "before": "historical"}
    return ClimateBench(path=str(folder), factors={"pr": 86400.0}, units={"pr": "mm day-1"}, **(words | options))


def test_files_of_climatebench_are_read(tmp_path):
    data = reader(climatebench_folder(tmp_path)).read()
    assert (data.latitude[0], data.variables) == (90.0, ["tas", "pr"])
    future = data.scenarios["ssp245"]
    np.testing.assert_array_equal(future.years, np.arange(2015, 2019))
    with (
        xr.open_dataset(tmp_path / "outputs_ssp245.nc") as stored,
        xr.open_dataset(tmp_path / "inputs_ssp245.nc") as inputs,
    ):
        np.testing.assert_allclose(future.fields["pr"], stored["pr"].values[:, :, ::-1] * 86400.0, rtol=1e-6)
        np.testing.assert_allclose(future.drivers["SO2"], inputs["SO2"].values[:, ::-1])
    assert future.before is data.scenarios["historical"]
    assert future.history("CO2", 2)[0].tolist() == [104.0, 100.0]
    assert data.in_period(future).tolist() == [False, False, True, True]


def test_faults_of_files_are_named(tmp_path):
    folder = climatebench_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"inputs_ssp585\.nc"):
        reader(folder, train=["ssp585"]).read()
    with pytest.raises(ValueError, match="no year in period=2080"):
        reader(folder, period=(2080, 2100)).read()
    with pytest.raises(ValueError, match="trained on and tested on"):
        reader(folder, train=["ssp245"]).read()
    with xr.open_dataset(folder / "inputs_ssp245.nc") as stored:
        shorter = stored.isel(time=slice(1, None)).load()
    shorter.to_netcdf(folder / "inputs_ssp245.nc")
    with pytest.raises(ValueError, match=r"2016 to 2018, outputs_ssp245\.nc 2015 to 2018"):
        reader(folder).read()


def test_simulated_forced_response_is_the_mean_of_many_members():
    data = world(members=300, rows=4)
    scenario = data.scenarios["ssp245"]
    spread = scenario.fields["tas"].std(axis=0).max()
    assert np.abs(scenario.mean("tas") - scenario.forced["tas"]).max() < 5.0 * spread / np.sqrt(300)
    globe = data.area_mean(data.scenarios["historical"].fields["tas"] - data.scenarios["historical"].forced["tas"])
    assert 0.08 < globe.std() < 0.2
    warming = data.area_mean(data.scenarios["ssp585"].forced["tas"])[-1]
    assert 2.5 < warming < 6.0
    assert not data.scenarios["hist-aer"].drivers["CO2"].any()
    assert not data.scenarios["hist-GHG"].drivers["SO2"].any()


def test_two_layers_of_heat_settle_at_the_sensitivity():
    assert two_layers(np.full(4000, 3.7))[-1] == pytest.approx(3.7 / FEEDBACK, rel=1e-3)
    fast = two_layers(np.full(5, 3.7))
    rates = 1.13 + 0.73
    assert fast[0] == pytest.approx(3.7 / rates * (1 - np.exp(-rates / 7.3)), rel=0.02)
