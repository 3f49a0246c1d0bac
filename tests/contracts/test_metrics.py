"""What every metric of conf/metric must do: add up exactly, be perfect at the truth, not depend on order."""

import numpy as np
import pytest
import torch

from emul.config.build import build_all
from emul.config.compose import compose
from emulators.contracts.parts import METRIC, SCORED, SCORED_WORLD, SHAPE, metric_fields, prediction_of
from emulators.scores.interfaces import Product, Products
from emulators.state import State
from emulators.verification.scorecard import Scorecard
from places import CONF

CONF = CONF / "metric"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
VARIABLES, WORLD = SCORED, SCORED_WORLD
TIME = np.datetime64("2001-01-01") + np.arange(6) * np.timedelta64(1, "D")


@pytest.fixture(scope="module")
def metrics():
    return build_all(compose("eval", [f"metric=[{','.join(NAMES)}]"]).metric)


@pytest.fixture(scope="module")
def fields():
    return metric_fields()


def at_points(values):
    """A statistic, or the fields of which it is made, point by point."""
    return (
        values.fields if isinstance(values, Products) else values.at_points() if isinstance(values, Product) else values
    )


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


@pytest.mark.parametrize("contract", METRIC, ids=lambda contract: contract.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_contract(name, contract, metrics):
    contract(metrics[name])


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


def test_statistics_of_one_name_are_one_formula(metrics, fields):
    members, target, normals = fields
    seen = {}
    for metric in metrics.values():
        for statistic, values in metric.statistics(prediction_of(metric, members), target, normals).items():
            values = at_points(values)
            torch.testing.assert_close(seen.setdefault(statistic, values), values, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_one_forecast_has_no_ensemble_scores(name, metrics, fields):
    """Of a single forecast the metrics of ensembles of two or more are left out, and it is said why."""
    members, target, normals = fields
    card = Scorecard(WORLD, VARIABLES, {"rmse": metrics["rmse"], "m": metrics[name]}, ["global"], 1)
    states = (State(f, VARIABLES, TIME) for f in (members[0], target))
    card.add(*states, 0, normals)
    assert ("m" in card.scored) == (metrics[name].members < 2)
    assert ("m: the forecast has 1" in card.scores().attrs.get("metrics_left_out", "")) == (metrics[name].members == 2)
