"""Score formulas against numbers worked out by hand."""

import pytest
import torch

from emulators.scores.deterministic import absolute_error, anomalies, anomaly_correlation, error, skill

FORECAST, TRUTH = torch.tensor([1.0, 5.0]), torch.tensor([3.0, 4.0])


def test_errors_by_hand():
    assert error(FORECAST, TRUTH).tolist() == [-2.0, 1.0]
    assert absolute_error(FORECAST, TRUTH).tolist() == [2.0, 1.0]


def test_anomaly_correlation_by_hand():
    climatology = torch.tensor([2.0, 3.0])
    forecast, truth = anomalies(FORECAST, TRUTH, climatology)  # (-1, 2) and (1, 1)
    means = [t.mean() for t in (forecast * truth, forecast.square(), truth.square())]
    assert means[0].item() == 0.5
    assert anomaly_correlation(*means).item() == pytest.approx(0.5 / (2.5 * 1.0) ** 0.5)


def test_anomaly_correlation_is_not_centred():
    """A constant shift of both fields against the climatology changes it: the spatial mean anomaly is kept."""
    forecast, truth = anomalies(FORECAST + 100, TRUTH + 100, torch.zeros(2))
    means = (t.mean() for t in (forecast * truth, forecast.square(), truth.square()))
    assert anomaly_correlation(*means).item() > 0.99


def test_correlation_of_no_anomaly_is_nan():
    zero = torch.zeros(())
    assert anomaly_correlation(zero, zero, zero).isnan()


@pytest.mark.parametrize(
    ("score", "reference", "perfect", "expected"), [(1, 2, 0, 0.5), (2, 1, 0, -1), (0.9, 0.8, 1, 0.5), (-1, 2, 0, 0.5)]
)
def test_skill(score, reference, perfect, expected):
    assert skill(score, reference, perfect) == pytest.approx(expected)
