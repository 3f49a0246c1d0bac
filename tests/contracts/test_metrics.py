"""What every metric of conf/metric must do: add up exactly, be perfect at the truth, not depend on order."""

import numpy as np
import pytest
import torch

from emul.config.build import build_all
from emul.config.compose import compose
from emulators.grid import equiangular_grid
from emulators.scores.interfaces import Metric, Product, Products
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.verification.scorecard import Scorecard
from emulators.world import World
from places import CONF

CONF = CONF / "metric"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
VARIABLES = VariableSet((Variable("total_precipitation_6hr", "m", (500.0, 850.0)),))
WORLD = World(equiangular_grid(8), VARIABLES, np.timedelta64(6, "h"))
TIME = np.datetime64("2001-01-01") + np.arange(6) * np.timedelta64(1, "D")
SHAPE = (6, 2, *WORLD.grid.shape)


@pytest.fixture(scope="module")
def metrics():
    return build_all(compose("eval", [f"metric=[{','.join(NAMES)}]"]).metric)


@pytest.fixture(scope="module")
def fields():
    """An ensemble, its truth, and the climatological fields that any metric may ask for; amounts as of rain in m."""
    generator = torch.Generator().manual_seed(1)
    members, target = (3e-4 * torch.randn(*n, generator=generator).abs() for n in ((4, *SHAPE), SHAPE))
    normals = {"mean": torch.full(SHAPE, 2.4e-4), "std": torch.full(SHAPE, 1.8e-4)}
    normals |= {f"quantile_{q:g}": torch.full(SHAPE, a) for q, a in ((0.1, 4e-5), (0.25, 1e-4), (0.75, 2e-4))}
    normals |= {"quantile_0.9": torch.full(SHAPE, 2.5e-4)}
    normals |= {"seeps_threshold": torch.full(SHAPE, 4e-4), "seeps_dry_share": torch.full(SHAPE, 0.4)}
    return members, target, normals


def at_points(values):
    """A statistic, or the fields of which it is made, point by point."""
    return (
        values.fields if isinstance(values, Products) else values.at_points() if isinstance(values, Product) else values
    )


def prediction_of(metric, members):
    """What the metric reads of the ensemble: all members, or one forecast."""
    return members if metric.members else members[0]


def scorecard(metric, prediction, target, normals, rows=slice(None), **options):
    card = Scorecard(WORLD, VARIABLES, {"m": metric}, ["global", "europe"], 1, **options)
    given = {name: field[rows] for name, field in normals.items()}
    card.add(
        State(prediction[..., rows, :, :, :], VARIABLES, TIME[rows]),
        State(target[rows], VARIABLES, TIME[rows]),
        0,
        given,
    )
    return card


def score(metric, fields, rows=slice(None), **options):
    members, target, normals = fields
    return scorecard(metric, prediction_of(metric, members), target, normals, rows, **options)


def test_the_key_of_a_file_is_its_name(metrics):
    assert list(metrics) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_split_then_merge_is_the_whole(name, metrics, fields):
    whole = score(metrics[name], fields).value("m")
    assert np.isfinite(whole).any()
    merged = score(metrics[name], fields, np.array([0]))
    for rows in (np.array([1, 2, 3]), np.array([4, 5])):
        merged.add_partial(score(metrics[name], fields, rows).partial())
    np.testing.assert_allclose(merged.value("m"), whole, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_order_does_not_matter(name, metrics, fields):
    whole = score(metrics[name], fields).value("m")
    shuffled = score(metrics[name], fields, np.array([3, 1, 5, 0, 2, 4])).value("m")
    np.testing.assert_allclose(shuffled, whole, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_perfect_at_the_truth_and_worse_elsewhere(name, metrics, fields):
    metric, (members, target, normals) = metrics[name], fields
    truth = target.expand(4, *SHAPE) if metric.members else target
    best = scorecard(metric, truth, target, normals).value("m")
    if np.isnan(metric.perfect):  # some scores have no best value, and an ensemble of copies no spread
        assert best.shape == score(metric, fields).value("m").shape
    elif name == "spread_skill":
        assert np.isnan(best).all()  # 0 / 0
    else:
        np.testing.assert_allclose(
            best, metric.perfect, atol=2e-7 if name == "sedi" else 1e-12
        )  # its rates are clipped
        away = np.abs(score(metric, fields).value("m") - metric.perfect)
        assert (away > 1e-9 * float(members.abs().max()) ** metric.exponent).all()


@pytest.mark.parametrize("name", NAMES)
def test_statistics_are_pointwise_and_leave_their_input_alone(name, metrics, fields):
    metric, (members, target, normals) = metrics[name], fields
    prediction = prediction_of(metric, members)
    copies = [f.clone() for f in (prediction, target, *normals.values())]
    found = metric.statistics(prediction, target, normals)
    point = (..., 2, 1, 3, 4)
    one = metric.statistics(prediction[point], target[point], {key: field[point] for key, field in normals.items()})
    for statistic, values in found.items():
        values = at_points(values)
        assert values.shape[-4:] == target.shape
        torch.testing.assert_close(values[point], at_points(one[statistic]))
    assert all(torch.equal(a, b) for a, b in zip(copies, (prediction, target, *normals.values()), strict=True))


@pytest.mark.parametrize("missing", ["truth", "forecast"])
@pytest.mark.parametrize("name", NAMES)
def test_missing_values_are_never_passed_over(name, missing, metrics, fields):
    """A NaN must never pass for a number: it is left out as asked for, or the score is NaN."""
    metric, (members, target, normals) = metrics[name], fields
    prediction, target = prediction_of(metric, members).clone(), target.clone()
    (target if missing == "truth" else prediction)[..., 2, 1, 3, 4] = torch.nan
    found = metric.statistics(prediction, target, normals).values()
    assert any(at_points(values)[..., 2, 1, 3, 4].isnan().any() for values in found)
    value = scorecard(metric, prediction, target, normals).value("m")[..., 0, 0, :]  # (..., channel), the globe
    clean = score(metric, fields).value("m")[..., 0, 0, :]
    np.testing.assert_allclose(value[..., 0], clean[..., 0], rtol=1e-12)
    whole = np.isfinite(clean[..., 1])
    assert (np.isfinite(value[..., 1])[whole] == (missing == "truth")).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_tells_of_itself(name, metrics):
    metric = metrics[name]
    assert Metric in type(metric).__mro__
    assert metric.members in (0, 1, 2)
    assert isinstance(metric.exponent, int)
    assert len(metric.definition) > 10


def test_statistics_of_one_name_are_one_formula(metrics, fields):
    members, target, normals = fields
    seen = {}
    for metric in metrics.values():
        for statistic, values in metric.statistics(prediction_of(metric, members), target, normals).items():
            values = at_points(values)
            torch.testing.assert_close(seen.setdefault(statistic, values), values, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_reads_the_fields_it_names(name, metrics, fields):
    metric, (members, target, normals) = metrics[name], fields
    metric.statistics(prediction_of(metric, members), target, {need: normals[need] for need in metric.needs})
    for need in metric.needs:
        with pytest.raises(KeyError, match=need):
            metric.statistics(prediction_of(metric, members), target, {k: f for k, f in normals.items() if k != need})


@pytest.mark.parametrize("name", NAMES)
def test_one_forecast_has_no_ensemble_scores(name, metrics, fields):
    """Of a single forecast the metrics of ensembles of two or more are left out, and it is said why."""
    members, target, normals = fields
    card = Scorecard(WORLD, VARIABLES, {"rmse": metrics["rmse"], "m": metrics[name]}, ["global"], 1)
    states = (State(f, VARIABLES, TIME) for f in (members[0], target))
    card.add(*states, 0, normals)
    assert ("m" in card.scored) == (metrics[name].members < 2)
    assert ("m: the forecast has 1" in card.scores().attrs.get("metrics_left_out", "")) == (metrics[name].members == 2)
