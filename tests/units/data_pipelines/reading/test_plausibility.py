"""Numbers in place of missing values lie apart; the tails of natural fields do not."""

import numpy as np
import pytest

from data_pipelines.reading.plausibility import margin, usual_range

RANDOM = np.random.default_rng(0)
WEATHER = RANDOM.normal(280.0, 10.0, 5000)
RAIN = np.where(RANDOM.random(5000) < 0.7, 0.0, RANDOM.gamma(0.5, 0.002, 5000))


@pytest.mark.parametrize("field", [WEATHER, RAIN], ids=["weather", "rain"])
@pytest.mark.parametrize(
    "marks", [[-999.9], [9.97e36] * 40, [-9999.0, 1e20], [-999.9] * 20000], ids=["one", "many", "two", "most"]
)
def test_marks_are_apart(field, marks):
    assert usual_range(np.append(field, marks)) == (field.min(), field.max())


@pytest.mark.parametrize(
    "field",
    [WEATHER, RAIN, np.exp(2.0 * RANDOM.normal(size=100_000)), np.array([0.0, 0.0, 1.0]), np.full(5, 7.0)],
    ids=["weather", "rain", "heavy tail", "mask", "constant"],
)
def test_natural_fields_are_whole(field):
    assert usual_range(field) == (field.min(), field.max())


def test_nothing_is_known_of_nothing():
    assert np.isnan(usual_range(np.full(3, np.nan))).all()
    assert margin(np.ones(4)) == np.inf
