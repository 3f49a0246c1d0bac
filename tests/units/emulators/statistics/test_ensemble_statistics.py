"""Statistics of members that are merged group by group are those of all members at once."""

import numpy as np
import pytest

from emulators.statistics.ensemble_statistics import EnsembleStatistics
from emulators.variables import Variable, VariableSet

VARIABLES = VariableSet((Variable("temperature", "K", (500.0, 850.0)), Variable("rain", "m")))
QUANTILES = (0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0)
EVENTS = {"hot": "temperature_850 > 3", "dry": "rain < 1"}


def members(count):
    return np.random.default_rng(0).gamma(2.0, 1.0, (count, 2, 3, 2, 4)).astype(np.float32)


def merged(fields, group, cells=200):
    statistics = EnsembleStatistics(VARIABLES, quantiles=QUANTILES, events=EVENTS, cells=cells)
    parts = [statistics.partial(fields[first : first + group]) for first in range(0, len(fields), group)]
    sums = parts[0]
    for part in parts[1:]:
        sums = statistics.merged(sums, part)
    return statistics, sums


def by_name(statistics, sums):
    fields = statistics.fields(sums)
    return {name: fields[:, statistics.variables.slice(name)] for name in statistics.variables.names}


@pytest.mark.parametrize("group", [1, 7, 40])
def test_up_to_as_many_members_as_cells_everything_is_exact(group):
    fields = members(40)
    found = by_name(*merged(fields, group))
    np.testing.assert_allclose(found["temperature"], fields[:, :, :2].mean(0), rtol=1e-6)
    np.testing.assert_allclose(found["rain_standard_deviation"][:, 0], fields[:, :, 2].std(0, ddof=1), rtol=1e-5)
    np.testing.assert_array_equal(found["temperature_maximum"], fields[:, :, :2].max(0))
    for level in QUANTILES:
        expected = np.quantile(fields.astype(np.float64), level, axis=0)
        np.testing.assert_allclose(found[f"temperature_quantile_{level:g}"], expected[:, :2], rtol=1e-6)
    np.testing.assert_allclose(found["probability_of_hot"][:, 0], (fields[:, :, 1] > 3).mean(0), rtol=1e-6)
    np.testing.assert_allclose(found["probability_of_dry"][:, 0], (fields[:, :, 2] < 1).mean(0), rtol=1e-6)


def test_the_digest_of_many_members_is_closer_than_the_sampling_error():
    fields = members(2000)
    statistics, sums = merged(fields, 100)
    assert sums["centroids"].shape[0] == 200
    np.testing.assert_array_equal(sums["weights"].sum(0), 2000)
    found = by_name(statistics, sums)
    for level, density in ((0.1, 0.315), (0.5, 0.313), (0.9, 0.0796)):  # of the gamma distribution at its quantiles
        expected = np.quantile(fields.astype(np.float64), level, axis=0)[:, 2:]
        sampling = np.sqrt(level * (1 - level) / 2000) / density
        assert np.abs(found[f"rain_quantile_{level:g}"] - expected).mean() < 0.5 * sampling
    np.testing.assert_array_equal(found["rain_quantile_1"], found["rain_maximum"])


def test_a_missing_member_is_missing_in_what_depends_on_it():
    fields = members(5)
    fields[2, 0, 0, 0, 0] = np.nan
    found = by_name(*merged(fields, 2))
    for name in ("temperature", "temperature_standard_deviation", "temperature_minimum", "temperature_quantile_0.5"):
        assert np.isnan(found[name][0, 0, 0, 0])
        assert np.isfinite(found[name]).sum() == found[name].size - 1


@pytest.mark.parametrize("text", ["pressure > 3", "temperature > 3", "rain = 3", "rain > much"])
def test_an_event_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match=r"events.x: expected <channel>.*temperature_500"):
        EnsembleStatistics(VARIABLES, events={"x": text})
