"""Significance of differences against closed forms, independent formulas and simulated series."""

import numpy as np
import pytest
import torch

from emulators.metrics.acc import ACC
from emulators.metrics.bias import Bias
from emulators.metrics.mae import MAE
from emulators.metrics.rmse import RMSE
from emulators.statistics.significance import (
    Significance,
    adjusted,
    cosines,
    effective_number,
    paired_difference,
    variance_of_mean,
    widening,
)

DEFAULT = Significance()


def autoregression(rho: float, n: int, series: int, seed: int = 0) -> np.ndarray:
    """Stationary first-order autoregressions of variance 1, shape (n, series)."""
    noise = np.random.default_rng(seed).normal(size=(n, series))
    found = [noise[0]]
    for step in noise[1:]:
        found.append(rho * found[-1] + np.sqrt(1 - rho**2) * step)
    return np.stack(found)


def against_zero(series: np.ndarray, significance: Significance = DEFAULT):
    """The mean absolute error of one forecast less that of another, which differ by `series`."""
    return paired_difference(
        MAE(), {"absolute_error": 100.0 + series}, {"absolute_error": np.full_like(series, 100.0)}, significance
    )


def ever_lasting(n: int, series: int, seed: int, share: float, rho: float) -> np.ndarray:
    """White noise with a weak slow part: a share of the variance belongs to a first-order autoregression."""
    noise = np.random.default_rng(seed + 1).normal(size=(n, series))
    return np.sqrt(1 - share) * noise + np.sqrt(share) * autoregression(rho, n, series, seed)


def second_order(n: int, series: int, seed: int) -> np.ndarray:
    """x_t = 0.5 x_(t-1) + 0.25 x_(t-2) + noise, after its start is forgotten."""
    noise = np.random.default_rng(seed).normal(size=(n + 100, series))
    found = [noise[0], noise[1]]
    for step in noise[2:]:
        found.append(0.5 * found[-1] + 0.25 * found[-2] + step)
    return np.stack(found[-n:])


def skewed(n: int, series: int, seed: int) -> np.ndarray:
    """Lognormal, with a correlated logarithm; mean 0."""
    return np.exp(0.7 * autoregression(0.3, n, series, seed)) - np.exp(0.245)


FAMILIES = {
    "white": lambda n, series, seed: autoregression(0.0, n, series, seed),
    "autoregression 0.3": lambda n, series, seed: autoregression(0.3, n, series, seed),
    "autoregression 0.5": lambda n, series, seed: autoregression(0.5, n, series, seed),
    "autoregression 0.7": lambda n, series, seed: autoregression(0.7, n, series, seed),
    "autoregression 0.9": lambda n, series, seed: autoregression(0.9, n, series, seed),
    "second order": second_order,
    "skewed": skewed,
    "a fifth slow, 0.9": lambda n, series, seed: ever_lasting(n, series, seed, 0.2, 0.9),
    "a tenth slow, 0.95": lambda n, series, seed: ever_lasting(n, series, seed, 0.1, 0.95),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n", [30, 60, 120, 365])
def test_false_claims_are_as_rare_as_the_level_says(family, n):
    """Series without a difference: at most 8 % are called significant, and not far fewer than 5 % of those with a
    verdict. 4000 series: a rate of 8 % has a standard error of 0.4 %."""
    found = against_zero(FAMILIES[family](n, 4000, 10))
    claimed, judged = (found.p_value <= 0.05).mean(), np.isfinite(found.p_value).mean()
    assert claimed < 0.085
    assert claimed > (0.03 if n >= 120 else 0.01) or judged < 0.7
    np.testing.assert_array_equal(found.p_value <= 0.05, (found.low > 0) | (found.high < 0))


def test_a_difference_of_four_standard_errors_is_mostly_found():
    for n, least in ((30, 0.38), (120, 0.6), (365, 0.75)):
        series = autoregression(0.0, n, 2000) + 4.0 / np.sqrt(n)
        assert (against_zero(series).p_value <= 0.05).mean() > least


def test_variance_of_the_mean_is_that_of_an_autoregression():
    n, rho = 400, 0.6
    exact = (1 + 2 * sum((1 - k / n) * rho**k for k in range(1, n))) / n
    series = autoregression(rho, n, 20000)
    assert variance_of_mean(series - series.mean(axis=0)).mean() == pytest.approx(exact, rel=0.03)


def test_effective_number_of_an_autoregression():
    """n (1 - r) / (1 + r) in the mean of many series."""
    series = autoregression(0.5, 2000, 500)
    found = effective_number(series, variance_of_mean(series))
    assert np.median(found) == pytest.approx(2000 / 3, rel=0.1)
    assert effective_number(np.ones((20, 1)), np.zeros(1)) == 20


def test_number_of_cosines_and_widening_grow_and_vanish_with_the_series():
    assert [cosines(n) for n in (2, 30, 120, 365, 1460)] == [1, 3, 3, 4, 10]
    assert [round(widening(n), 2) for n in (30, 120, 1200)] == [1.47, 1.12, 1.01]


def test_too_few_effective_initial_times_give_no_verdict():
    few, slow = against_zero(autoregression(0.0, 14, 20) + 10.0), against_zero(autoregression(0.95, 40, 200) + 10.0)
    assert np.isnan(few.p_value).all()
    assert (few.effective_inits <= 14).all()
    assert np.isnan(slow.p_value).mean() > 0.9
    enough = against_zero(autoregression(0.0, 14, 20) + 10.0, Significance(least=5.0))
    assert (enough.p_value < 0.05).mean() > 0.8


def test_false_discovery_rate_is_kept():
    """Independent tests, of which 9 in 10 are of no difference: Benjamini & Hochberg's step-up rule, and its rate."""
    random = np.random.default_rng(0)
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.5])
    np.testing.assert_allclose(adjusted(p), [0.025, 0.05, 0.05, 0.025, 0.5])
    shares = []
    for _ in range(300):
        none, some = random.uniform(size=900), random.uniform(size=100) * 1e-4
        flags = Significance().significant(np.concatenate([none, some]))
        shares.append(flags[:900].sum() / max(flags.sum(), 1))
    assert np.mean(shares) == pytest.approx(0.045, abs=0.01)
    alone = Significance(false_discovery=False).significant(np.array([0.04, np.nan, 0.06]))
    np.testing.assert_array_equal(alone, [1.0, np.nan, 0.0])


def test_a_real_difference_is_found_where_pairing_shows_it():
    """Two forecasts whose errors swing together by far more than they differ."""
    shared = 10.0 * autoregression(0.5, 60, 1)
    first, second = shared**2 + 20.0, shared**2 + 20.5 + 0.1 * autoregression(0.0, 60, 1, seed=1)
    found = paired_difference(RMSE(), {"squared_error": first}, {"squared_error": second}, DEFAULT)
    assert found.value == pytest.approx(np.sqrt(first.mean()) - np.sqrt(second.mean()))
    assert found.high[0] < 0.0
    turned = paired_difference(RMSE(), {"squared_error": second}, {"squared_error": first}, DEFAULT)
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
        ACC(), dict(zip(names, terms, strict=True)), dict(zip(names, perfect, strict=True)), DEFAULT
    )
    means = torch.tensor([term.mean() for term in terms], requires_grad=True)
    (means[0] / (means[1] * means[2]).sqrt()).backward()
    added = sum(slope.item() * term for slope, term in zip(means.grad, terms, strict=True))
    error = widening(n) * np.sqrt(variance_of_mean(added - added.mean(axis=0)))
    reach = 2.776445 * error.item()  # of Student's t with 4 degrees of freedom
    assert (found.high - found.low).item() / 2 == pytest.approx(reach, rel=1e-2)


def test_what_counts_is_the_distance_from_perfect():
    """A bias of -2 is worse than one of +1."""
    random = np.random.default_rng(0)
    first, second = ({"error": mean + 0.1 * random.normal(size=(30, 1))} for mean in (-2.0, 1.0))
    found = paired_difference(Bias(), first, second, DEFAULT)
    assert found.value.item() == pytest.approx(1.0, abs=0.1)
    assert found.low > 0.0


def test_gaps_are_left_out_of_both():
    series = autoregression(0.0, 40, 3)
    gaps = series.copy()
    gaps[5:8, 1], gaps[:37, 2] = np.nan, np.nan
    found = against_zero(gaps)
    assert found.inits.tolist() == [40, 37, 3]
    np.testing.assert_allclose(found.value[1], np.delete(series[:, 1], [5, 6, 7]).mean())
    assert np.isfinite(found.low).tolist() == [True, True, False]


def test_a_broken_forecast_is_never_significant():
    series = autoregression(0.0, 40, 1)
    series[3] = np.inf
    found = against_zero(series)
    assert not (found.p_value <= 0.05).any()
    assert np.isnan(found.effective_inits).all()


def test_equal_forecasts_do_not_differ():
    found = against_zero(np.zeros((40, 2)))
    assert found.value.tolist() == found.low.tolist() == [0.0, 0.0]
    assert found.p_value.tolist() == [1.0, 1.0]


def test_bad_settings_are_told():
    with pytest.raises(ValueError, match="between 0 and 1"):
        Significance(level=95)
    with pytest.raises(ValueError, match="number of initial times from 0"):
        Significance(least=-1)
