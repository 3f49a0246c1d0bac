"""Scorecard: means over area and initial times, missing values, merging, and the Dataset of scores."""

import numpy as np
import pytest
import torch

from emulators.grid import equiangular_grid
from emulators.metrics.acc import ACC
from emulators.metrics.bias import Bias
from emulators.metrics.crps import CRPS
from emulators.metrics.mse import MSE
from emulators.metrics.rank_histogram import RankHistogram
from emulators.metrics.rmse import RMSE
from emulators.scores.interfaces import Product
from emulators.state import State
from emulators.statistics.area_means import REGIONS, AreaWeights, region_weights
from emulators.variables import Variable, VariableSet
from emulators.verification.evaluation import ErrorMaps
from emulators.verification.scorecard import Scorecard
from emulators.world import World

VARIABLES = VariableSet((Variable("geopotential", "m2 s-2", (500.0, 850.0)), Variable("2m_temperature", "K")))
WORLD = World(equiangular_grid(6), VARIABLES, np.timedelta64(6, "h"))
METRICS = {
    "rmse": RMSE(),
    "bias": Bias(),
    "rmse_by_init": RMSE(by_init=True),
    "acc": ACC(),
    "acc_by_init": ACC(by_init=True),
}


def states(batch=3, seed=0, count=3):
    generator = torch.Generator().manual_seed(seed)
    time = np.datetime64("2001-01-01") + np.arange(batch) * np.timedelta64(1, "D")
    return [State(torch.randn(batch, 3, *WORLD.grid.shape, generator=generator), VARIABLES, time) for _ in range(count)]


def card(**options):
    return Scorecard(WORLD, VARIABLES, METRICS, ["global", "tropics"], 2, **options)


def test_scores_equal_plain_numpy():
    prediction, target, normal = states()
    made = card()
    made.add(prediction, target, 1, normal)
    weights = WORLD.grid.weights / WORLD.grid.weights.sum()
    f, o, c = (s.values.double().numpy() for s in (prediction, target, normal))
    square = ((f - o) ** 2 * weights).sum((2, 3))
    np.testing.assert_allclose(made.value("rmse")[0, 1], np.sqrt(square.mean(0)), rtol=1e-13)
    np.testing.assert_allclose(made.value("rmse_by_init")[0, 1], np.sqrt(square).mean(0), rtol=1e-13)
    products = [(x * y * weights).sum((2, 3)) for x, y in ((f - c, o - c), (f - c, f - c), (o - c, o - c))]
    pooled = [p.mean(0) for p in products]
    np.testing.assert_allclose(made.value("acc")[0, 1], pooled[0] / np.sqrt(pooled[1] * pooled[2]), rtol=1e-12)
    by_init = (products[0] / np.sqrt(products[1] * products[2])).mean(0)
    np.testing.assert_allclose(made.value("acc_by_init")[0, 1], by_init, rtol=1e-12)
    assert np.isnan(made.value("rmse")[:, 0]).all()  # nothing was added for the first lead


def test_dataset_of_scores():
    made = card()
    made.add(*states(count=2), 0, states()[2])
    scores = made.scores({"truth": "t.nc"})
    assert scores["geopotential"].dims == ("metric", "region", "lead_time", "level")
    assert scores["2m_temperature"].dims == ("metric", "region", "lead_time")
    assert scores["2m_temperature"].attrs["units"] == "K"
    assert scores["level"].values.tolist() == [500, 850]
    assert scores["lead_time"].values.tolist() == np.array([6, 12], "timedelta64[h]").astype("timedelta64[ns]").tolist()
    assert scores["inits"].values.tolist() == [3, 0]
    assert scores.attrs["truth"] == "t.nc"
    assert "cell area" in scores.attrs["weights"]
    assert scores.attrs["number_of_inits"] == 3
    assert "pooled" in scores.attrs["definitions"]


def test_variables_may_differ_in_their_levels():
    variables = VariableSet((Variable("t", "K", (500.0, 850.0)), Variable("z", "", (500.0,))))
    made = Scorecard(WORLD, variables, {"rmse": RMSE()}, ["global"], 1)
    ones = State(torch.ones(1, 3, *WORLD.grid.shape), variables, np.array(["2001-01-01"], "datetime64[s]"))
    made.add(ones, State(0 * ones.values, variables, ones.time), 0)
    scores = made.scores()
    assert scores["z"].sel(level=500).item() == pytest.approx(1.0)
    assert np.isnan(scores["z"].sel(level=850).item())


def test_metrics_that_need_a_climatology_are_left_out_without_one():
    made = card()
    made.add(*states(count=2), 0)
    scores = made.scores()
    assert scores["metric"].values.tolist() == ["rmse", "bias", "rmse_by_init"]
    assert "acc" in scores.attrs["metrics_left_out"]


def test_channels_are_found_by_name():
    prediction, target = states(count=2)
    whole, part = card(), Scorecard(WORLD, VARIABLES.select(["2m_temperature"]), METRICS, ["global", "tropics"], 2)
    whole.add(prediction, target, 0)
    part.add(prediction.select(["2m_temperature", "geopotential"]), target, 0)
    np.testing.assert_allclose(part.value("rmse")[:, 0, 0], whole.value("rmse")[:, 0, 2], rtol=1e-14)


def test_a_single_state_counts_as_a_batch_of_one():
    prediction, target = states(batch=1, count=2)
    made, other = card(), card()
    made.add(prediction, target, 0)
    other.add(*(State(s.values[0], VARIABLES, s.time[0]) for s in (prediction, target)), 0)
    np.testing.assert_array_equal(made.value("bias"), other.value("bias"))


def test_partial_sums_survive_a_file(tmp_path):
    prediction, target, normal = states()
    made = card()
    made.add(prediction, target, 0, normal)
    np.savez(tmp_path / "part.npz", **made.partial())
    with np.load(tmp_path / "part.npz") as stored:
        again = card().add_partial(dict(stored))
    for metric in METRICS:
        np.testing.assert_array_equal(again.value(metric), made.value(metric))
    with pytest.raises(ValueError, match="same metrics"):
        Scorecard(WORLD, VARIABLES, METRICS, ["global"], 2).add_partial(made.partial())


def test_sums_of_some_leads_are_added_where_they_belong():
    prediction, target, normal = states()
    whole, parts = (Scorecard(WORLD, VARIABLES, METRICS, ["global"], 3) for _ in range(2))
    for lead in range(3):
        whole.add(prediction, target, lead, normal)
    for first, stop in ((1, 3), (0, 1)):
        part = Scorecard(WORLD, VARIABLES, METRICS, ["global"], whole.leads[first:stop])
        for lead in range(first, stop):
            part.add(prediction, target, lead - first, normal)
        parts.add_partial(part.partial(), first)
    for metric in METRICS:
        np.testing.assert_array_equal(parts.value(metric), whole.value(metric))
    with pytest.raises(ValueError, match="same metrics, leads"):
        parts.add_partial(part.partial(), 1)


@pytest.mark.parametrize("missing", ["truth", "any", "none"])
def test_missing_values(missing):
    prediction, target = states(count=2)
    holed = target.values.clone()
    holed[0, 2, :2] = torch.nan  # the two northern rows, both outside the tropics
    made = card(missing=missing)
    made.add(prediction, State(holed, VARIABLES, target.time), 0)
    value = made.value("bias")[:, 0, 2]
    assert np.isfinite(value[1])  # the tropics hold no missing point
    assert np.isfinite(value[0]) == (missing != "none")
    if missing != "none":
        weights = np.where(holed[0, 2].isnan().numpy(), 0.0, WORLD.grid.weights)
        difference = np.nan_to_num((prediction.values.double() - holed.double())[:, 2].numpy())
        expected = np.mean(
            [(difference[0] * weights).sum() / weights.sum(), *(difference[1:] * WORLD.grid.weights).mean((1, 2))]
        )
        assert value[0] == pytest.approx(expected, rel=1e-12)
    assert made.scores().attrs["nan_share"] > 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_broken_forecast_is_never_passed_over(bad):
    prediction, target = states(count=2)
    values = prediction.values.clone()
    values[1, 2, 0, 0] = bad
    made = card()
    made.add(State(values, VARIABLES, prediction.time), target, 0)
    assert np.isnan(made.value("rmse")[0, 0, 2])
    assert np.isfinite(made.value("rmse")[1, 0, 2])


def test_bad_input_is_told():
    prediction, target = states(count=2)
    made = card()
    with pytest.raises(ValueError, match="Lead index 2"):
        made.add(prediction, target, 2)
    with pytest.raises(ValueError, match="lacks geopotential_500"):
        made.add(prediction.select(["2m_temperature"]), target, 0)
    with pytest.raises(ValueError, match="same batch"):
        made.add(prediction, State(target.values[:2], VARIABLES, target.time[:2]), 0)
    with pytest.raises(ValueError, match="Expected a climatology of shape"):
        made.add(prediction, target, 0, torch.zeros(3, 3, 4, 4))
    with pytest.raises(ValueError, match="truth, any or none"):
        card(missing="some")
    with pytest.raises(ValueError, match="nothing to score"):
        made.scores()


def test_error_maps():
    prediction, target = states(count=2)
    maps = ErrorMaps(WORLD, VARIABLES.select(["2m_temperature"]), [1])
    maps.add(prediction, target, 0)
    for row in range(3):
        maps.add(*(State(s.values[row : row + 1], VARIABLES, s.time[row : row + 1]) for s in (prediction, target)), 1)
    difference = (prediction.values - target.values)[:, 2].double().numpy()
    np.testing.assert_allclose(maps.bias()[0, 0], difference.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(maps.rmse()[0, 0], np.sqrt((difference**2).mean(0)), rtol=1e-5)


def test_error_maps_hold_the_spread_of_the_members():
    prediction, target = states(count=2)
    members = State(torch.stack([prediction.values, prediction.values + 3.0]), VARIABLES, prediction.time)
    maps, other = (ErrorMaps(WORLD, VARIABLES.select(["2m_temperature"]), [1]) for _ in range(2))
    maps.add(members, target, 1)
    np.testing.assert_allclose(maps.spread(), np.sqrt(4.5), rtol=1e-5)  # two members 3 apart: 2 * 1.5^2
    np.testing.assert_array_equal(other.add_partial(maps.partial()).spread(), maps.spread())
    single = ErrorMaps(WORLD, VARIABLES.select(["2m_temperature"]), [1])
    single.add(prediction, target, 1)
    assert not single.spread().any()


def test_an_ensemble_is_scored_by_member_and_by_its_mean():
    prediction, target = states(count=2)
    members = State(torch.stack([prediction.values, prediction.values + 1.0]), VARIABLES, prediction.time)
    metrics = {"rmse": RMSE(), "crps": CRPS(), "ranks": RankHistogram()}
    made = Scorecard(WORLD, VARIABLES, metrics, ["global"], 1)
    made.add(members, target, 0)
    mean = Scorecard(WORLD, VARIABLES, metrics, ["global"], 1)
    mean.add(State(members.values.double().mean(0), VARIABLES, prediction.time), target, 0)
    np.testing.assert_allclose(made.value("rmse"), mean.value("rmse"), rtol=1e-12)
    assert mean.scored == ("rmse", "ranks")
    scores, histograms = made.scores(), made.histograms()
    assert scores["metric"].values.tolist() == ["rmse", "crps"]
    assert scores.attrs["members"] == 2
    assert histograms["2m_temperature_ranks"].dims == ("rank", "region", "lead_time")
    assert histograms["geopotential_ranks"].dims == ("rank", "region", "lead_time", "level")
    np.testing.assert_allclose(histograms["geopotential_ranks"].sum("rank"), 1.0)
    with pytest.raises(ValueError, match="ensembles of one size; it has 2, got 0"):
        made.add(prediction, target, 0)


def test_winds_are_scored_as_vectors():
    variables = VariableSet((Variable("u", "m s-1", (500.0, 850.0)), Variable("v", "m s-1", (850.0,))))
    world = World(equiangular_grid(6), variables, np.timedelta64(6, "h"))
    values = torch.randn(3, 3, *world.grid.shape, generator=torch.Generator().manual_seed(3))
    time = np.datetime64("2001-01-01") + np.arange(3) * np.timedelta64(1, "D")
    metrics = {"mse": MSE(), "bias": Bias(), "rmse_by_init": RMSE(by_init=True)}
    made = Scorecard(world, variables, metrics, ["global"], 1, vectors={"wind": ("u", "v"), "other": ("u", "w")})
    made.add(State(values, variables, time), State(0 * values, variables, time), 0)
    scores = made.scores().isel(region=0, lead_time=0)
    parts = scores["u"].sel(level=850) + scores["v"].sel(level=850)
    np.testing.assert_allclose(scores["wind"].sel(metric="mse", level=850), parts.sel(metric="mse"), rtol=1e-12)
    assert np.isnan(scores["wind"].sel(level=500)).all()
    assert np.isnan(scores["wind"].sel(metric="bias")).all()
    square = (values[:, 1:].double().square() * torch.from_numpy(world.grid.weights)).mean((2, 3)).sum(1)
    by_init = scores["wind"].sel(metric="rmse_by_init", level=850)
    np.testing.assert_allclose(by_init, square.sqrt().mean(), rtol=1e-12)
    assert "other" not in scores


@pytest.mark.parametrize("regions", [["global"], ["global", "tropics", "europe"], list(REGIONS)])
@pytest.mark.parametrize("points", [slice(None), slice(24, 96)])
def test_sums_over_circles_are_sums_over_points(regions, points):
    grid = equiangular_grid(12)
    land = np.random.default_rng(0).random(grid.shape)
    matrix = region_weights(grid, regions, land).matrix
    weights = AreaWeights(matrix, grid.shape[1])
    first, second = torch.randn(2, 3, 5, 288, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first, second = first[..., points], second[..., points]
    for values, plain in ((first, first), (Product(first, second), first * second)):
        expected = plain @ torch.from_numpy(matrix[points])
        torch.testing.assert_close(weights.sums(values, points), expected, rtol=1e-12, atol=1e-14)


def test_threads_share_the_work_and_not_the_result(monkeypatch):
    monkeypatch.setattr("emulators.statistics.area_means.BLOCK", 500)
    prediction, target, normal = states(batch=40)
    found = []
    threads = torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        made = card()
        made.add(prediction, target, 0, normal)
        found.append([made.value(name) for name in METRICS])
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
