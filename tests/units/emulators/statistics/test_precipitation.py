"""The distribution of precipitation: amounts, percentiles and overlap of known ones; units and intervals."""

import numpy as np
import pytest
from scipy.stats import lognorm

from emulators.statistics.precipitation import (
    CENTRES,
    PERCENTILES,
    PrecipitationDistribution,
    percentiles,
    precipitation_rate,
    wet_share,
)
from emulators.variables import Variable, VariableSet

RAIN = VariableSet((Variable("temperature", "K"), Variable("total_precipitation_6hr", "m")))


def distributions(forecast, truth, weights=None, parts=1):
    """Of fields in mm a day, (member, time, point) and (time, point)."""
    weights = np.full((truth.shape[-1], 1), 1.0 / truth.shape[-1]) if weights is None else weights
    made = PrecipitationDistribution(RAIN, weights)
    for rows in np.array_split(np.arange(len(truth)), parts):
        other = PrecipitationDistribution(RAIN, weights)
        other.add(forecast[:, rows] / 4000.0, truth[rows] / 4000.0)
        made.add_partial(other.partial())
    return made.distributions()


def test_frequency_amount_and_percentiles_of_a_known_distribution():
    law = lognorm(1.2, scale=2.0)
    drawn = law.rvs((400, 250), random_state=np.random.default_rng(0))
    truth = np.where(np.random.default_rng(1).random(drawn.shape) < 0.4, 0.0, drawn)
    frequency, amount = distributions(np.stack([truth, 2.0 * truth]), truth, parts=3)
    np.testing.assert_allclose(frequency.sum(axis=-1), 1.0)
    assert frequency[1, 0, 0] == pytest.approx(0.4, abs=0.005)
    np.testing.assert_allclose(amount.sum(axis=-1)[:, 0], [1.5 * truth.mean(), truth.mean()], rtol=1e-9)
    want = law.ppf(1 - (1 - np.array(PERCENTILES) / 100.0) / 0.6)
    np.testing.assert_allclose(percentiles(frequency)[1, 0], want, rtol=0.05)
    assert wet_share(frequency)[1, 0] == pytest.approx(0.6 * law.sf(1.0), abs=0.005)
    alone, _ = distributions(2.0 * truth[None], truth)
    centres = CENTRES[1:-1]
    density = law.pdf(centres) * centres, lognorm(1.2, scale=4.0).pdf(centres) * centres
    common = 0.4 + 0.6 * np.minimum(*density).sum() / density[0].sum()
    assert np.minimum(*alone).sum(axis=-1)[0] == pytest.approx(common, abs=0.01)


def test_areas_count_and_missing_points_do_not():
    truth = np.tile(np.array([0.0, 5.0, np.nan]), (7, 1))
    weights = np.array([[0.5, 0.0], [0.25, 0.5], [0.25, 0.5]])
    frequency, amount = distributions(truth[None], truth, weights)
    np.testing.assert_allclose(amount.sum(axis=-1)[1], [5.0 / 3.0, 5.0])
    np.testing.assert_allclose(frequency[1, :, 0], [2.0 / 3.0, 0.0])
    np.testing.assert_allclose(percentiles(np.eye(len(CENTRES))[0]), 0.0)


@pytest.mark.parametrize(
    ("variable", "factor"),
    [
        (Variable("total_precipitation_6hr", "m"), 4000.0),
        (Variable("total_precipitation_24hr", "mm"), 1.0),
        (Variable("total_precipitation", "m", cell="sum 1h"), 24_000.0),
        (Variable("mean_total_precipitation_rate", "kg m**-2 s**-1"), 86_400.0),
        (Variable("total_precipitation", "m"), None),
        (Variable("total_precipitation_6hr", "furlong"), None),
        (Variable("temperature", "K"), None),
    ],
)
def test_rates_in_mm_a_day(variable, factor):
    found, times = precipitation_rate(VariableSet((variable,)))
    assert (found is None) == (factor is None)
    if factor is not None:
        assert times == pytest.approx(factor)
    assert bool(PrecipitationDistribution(VariableSet((variable,)), np.ones((1, 1))).left_out) == (factor is None)
