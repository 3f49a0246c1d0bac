"""Significance of differences against closed forms, independent formulas and simulated series."""

import numpy as np
import pytest
import torch

from emulators.metrics.acc import ACC
from emulators.metrics.bias import Bias
from emulators.metrics.mae import MAE
from emulators.metrics.rmse import RMSE
from emulators.statistics.bootstrap import (
    Bootstrap,
    autocorrelation,
    block_counts,
    block_lengths,
    equivalent_inits,
    paired_difference,
    student_quantile,
    variance_factor,
)

DEFAULT = Bootstrap()


def autoregression(rho: float, n: int, series: int, seed: int = 0) -> np.ndarray:
    """Stationary first-order autoregressions of variance 1, shape (n, series)."""
    noise = np.random.default_rng(seed).normal(size=(n, series))
    found = [noise[0]]
    for step in noise[1:]:
        found.append(rho * found[-1] + np.sqrt(1 - rho**2) * step)
    return np.stack(found)


def against_zero(series: np.ndarray, bootstrap: Bootstrap = DEFAULT):
    """The mean absolute error of one forecast less that of another, which differ by `series`."""
    return paired_difference(
        MAE(), {"absolute_error": 100.0 + series}, {"absolute_error": np.full_like(series, 100.0)}, bootstrap
    )


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.706205), (2, 4.302653), (5, 2.570582), (10, 2.228139), (60, 2.000298)]
)
def test_quantiles_of_student_from_tables(freedom, quantile):
    assert student_quantile(0.975, freedom) == pytest.approx(quantile, rel=1e-3)
    assert student_quantile(0.975, 1e7) == pytest.approx(1.959964, rel=1e-4)


@pytest.mark.parametrize(("n", "length", "rho"), [(12, 1, 0.0), (12, 4, 0.0), (40, 5, 0.5), (60, 9, 0.8)])
def test_corrected_variance_is_that_of_the_mean_of_an_autoregression(n, length, rho):
    """Blocks give too little variance; with the factor its expectation is right, here over many series."""
    series = autoregression(rho, n, 3000)
    drawn = block_counts(n, length, 3000) @ series
    exact = (1 + 2 * sum((1 - k / n) * rho**k for k in range(1, n))) / n
    assert drawn.var(axis=0).mean() * variance_factor(n, length, np.array(rho)) == pytest.approx(exact, rel=0.05)
    assert drawn.var(axis=0).mean() < 0.95 * exact
    if rho == 0.0:
        assert variance_factor(n, length, np.array(rho)) == pytest.approx(n / (n - length), rel=1e-12)


def test_blocks_are_runs_on_a_circle():
    counts = block_counts(10, 10, 50)
    np.testing.assert_allclose(counts, 0.1)
    counts = block_counts(7, 3, 300)
    np.testing.assert_allclose(counts.sum(axis=1), 1.0)
    np.testing.assert_allclose(counts.mean(axis=0), 1 / 7, atol=0.02)


def test_length_of_blocks_solves_its_equation():
    r = np.array([0.0, 0.3, 0.6, 0.9])
    lengths = block_lengths(200, r)
    assert lengths.tolist() == sorted(lengths.tolist())
    assert lengths[0] == 1
    power = 2 / 3 * (1 - equivalent_inits(200, r) / 200)
    assert np.abs((200 - lengths + 1) ** power - lengths).max() < 1.2


def test_autocorrelation_is_freed_of_its_bias():
    assert autocorrelation(autoregression(0.5, 25, 20000)).mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("rho", "n", "least"), [(0.0, 8, 0.92), (0.0, 40, 0.93), (0.4, 40, 0.91), (0.7, 100, 0.91)])
def test_intervals_cover_the_truth_as_often_as_they_say(rho, n, least):
    found = against_zero(autoregression(rho, n, 1500), Bootstrap(200))
    covered = 1.0 - found.significant.mean()
    assert least <= covered <= 0.98


def test_a_real_difference_is_found_where_pairing_shows_it():
    """Two forecasts whose errors swing together by far more than they differ."""
    shared = 10.0 * autoregression(0.5, 60, 1)
    first, second = shared**2 + 20.0, shared**2 + 20.5 + 0.1 * autoregression(0.0, 60, 1, seed=1)
    found = paired_difference(RMSE(), {"squared_error": first}, {"squared_error": second}, Bootstrap())
    assert found.significant.all()
    assert found.value == pytest.approx(np.sqrt(first.mean()) - np.sqrt(second.mean()))
    assert found.high[0] < 0.0
    turned = paired_difference(RMSE(), {"squared_error": second}, {"squared_error": first}, Bootstrap())
    np.testing.assert_allclose([turned.value, turned.low], [-found.value, -found.high], rtol=1e-9)


def test_the_error_of_a_ratio_is_that_of_the_delta_method():
    """Pooled anomaly correlation: its error from the partial derivatives of the ratio."""
    random = np.random.default_rng(3)
    names = ("anomaly_product", "forecast_anomaly_square", "true_anomaly_square")
    n = 400
    forecast, truth = random.gamma(50, 0.02, (2, n, 1))
    terms = [0.8 * np.sqrt(forecast * truth) + 0.01 * random.normal(size=(n, 1)), forecast, truth]
    perfect = [np.ones((n, 1))] * 3
    found = paired_difference(
        ACC(), dict(zip(names, terms, strict=True)), dict(zip(names, perfect, strict=True)), Bootstrap(2000, block=1)
    )
    means = torch.tensor([term.mean() for term in terms], requires_grad=True)
    (means[0] / (means[1] * means[2]).sqrt()).backward()
    added = sum(slope.item() * term for slope, term in zip(means.grad, terms, strict=True))
    factor = variance_factor(n, 1, autocorrelation(added))
    reach = 1.96 * (added.std() * np.sqrt(factor / n)).item()
    assert (found.high - found.low).item() / 2 == pytest.approx(reach, rel=0.05)


def test_what_counts_is_the_distance_from_perfect():
    """A bias of -2 is worse than one of +1."""
    random = np.random.default_rng(0)
    first, second = ({"error": mean + 0.1 * random.normal(size=(30, 1))} for mean in (-2.0, 1.0))
    found = paired_difference(Bias(), first, second, Bootstrap())
    assert found.value.item() == pytest.approx(1.0, abs=0.1)
    assert found.significant.all()


def test_gaps_are_left_out_of_both():
    series = autoregression(0.0, 20, 3)
    gaps = series.copy()
    gaps[5:8, 1], gaps[:17, 2] = np.nan, np.nan
    found = against_zero(gaps)
    assert found.inits.tolist() == [20, 17, 3]
    np.testing.assert_allclose(found.value[1], np.delete(series[:, 1], [5, 6, 7]).mean())
    assert np.isfinite(found.low).tolist() == [True, True, False]
    assert not found.significant[2]


def test_a_broken_forecast_is_never_significant():
    series = autoregression(0.0, 20, 1)
    series[3] = np.inf
    assert not against_zero(series).significant.any()


def test_equal_forecasts_do_not_differ():
    found = against_zero(np.zeros((12, 2)))
    assert found.value.tolist() == found.low.tolist() == [0.0, 0.0]
    assert not found.significant.any()


def test_bad_settings_are_told():
    with pytest.raises(ValueError, match="at least 2 resamples"):
        Bootstrap(1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Bootstrap(level=95)
