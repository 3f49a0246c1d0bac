"""What every metric of conf/metric must do: add up exactly, be perfect at the truth, not depend on order."""

from pathlib import Path

import numpy as np
import pytest
import torch

from emul.build import compose, parts
from emulators.grid import equiangular_grid
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.verification import Scorecard
from emulators.world import World

CONF = Path(__file__).parents[2] / "conf" / "metric"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
VARIABLES = VariableSet((Variable("temperature", "K", (500.0, 850.0)),))
WORLD = World(equiangular_grid(8), VARIABLES, np.timedelta64(6, "h"))
TIME = np.datetime64("2001-01-01") + np.arange(6) * np.timedelta64(1, "D")


@pytest.fixture(scope="module")
def metrics():
    return parts(compose("eval", [f"metric=[{','.join(NAMES)}]"]).metric)


@pytest.fixture(scope="module")
def fields():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(6, 2, *WORLD.grid.shape, generator=generator) + 280.0 for _ in range(3)]


def scorecard(metric, fields, rows):
    card = Scorecard(WORLD, VARIABLES, {"m": metric}, ["global", "europe"], 1)
    prediction, target, normal = (State(f[rows], VARIABLES, TIME[rows]) for f in fields)
    card.add(prediction, target, 0, normal)
    return card


def test_the_key_of_a_file_is_its_name(metrics):
    assert list(metrics) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_split_then_merge_is_the_whole(name, metrics, fields):
    whole = scorecard(metrics[name], fields, np.arange(6)).value("m")
    assert np.isfinite(whole).all()
    merged = scorecard(metrics[name], fields, np.array([0]))
    for rows in (np.array([1, 2, 3]), np.array([4, 5])):
        merged.add_partial(scorecard(metrics[name], fields, rows).partial())
    np.testing.assert_allclose(merged.value("m"), whole, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_order_does_not_matter(name, metrics, fields):
    whole = scorecard(metrics[name], fields, np.arange(6)).value("m")
    shuffled = scorecard(metrics[name], fields, np.array([3, 1, 5, 0, 2, 4])).value("m")
    np.testing.assert_allclose(shuffled, whole, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_perfect_at_the_truth_and_worse_elsewhere(name, metrics, fields):
    _, target, normal = fields
    perfect = metrics[name].perfect
    best = scorecard(metrics[name], (target, target, normal), np.arange(6)).value("m")
    np.testing.assert_allclose(best, perfect, atol=1e-12)
    assert (np.abs(scorecard(metrics[name], fields, np.arange(6)).value("m") - perfect) > 1e-4).all()


@pytest.mark.parametrize("name", NAMES)
def test_statistics_are_pointwise_and_leave_their_input_alone(name, metrics, fields):
    copies = [f.clone() for f in fields]
    found = metrics[name].statistics(*fields)
    assert all(values.shape == fields[0].shape for values in found.values())
    one = metrics[name].statistics(*(f[2, 1, 3, 4] for f in fields))
    for statistic, values in found.items():
        torch.testing.assert_close(values[2, 1, 3, 4], one[statistic])
    assert all(torch.equal(a, b) for a, b in zip(copies, fields, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_tells_of_itself(name, metrics):
    metric = metrics[name]
    assert isinstance(metric.needs_climatology, bool)
    assert isinstance(metric.by_init, bool)
    assert isinstance(metric.exponent, int)
    assert len(metric.definition) > 10


def test_statistics_of_one_name_are_one_formula(metrics, fields):
    seen = {}
    for metric in metrics.values():
        for statistic, values in metric.statistics(*fields).items():
            torch.testing.assert_close(seen.setdefault(statistic, values), values, rtol=0, atol=0)


def test_metrics_are_found_by_the_climatology_they_need(metrics, fields):
    for name, metric in metrics.items():
        if metric.needs_climatology:
            with pytest.raises(ValueError, match="climatology"):
                metric.statistics(*fields[:2], None)
        else:
            metric.statistics(*fields[:2], None)
        assert name in NAMES
