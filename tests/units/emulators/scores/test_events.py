"""Scores of events and of precipitation, by hand and by their properties."""

import numpy as np
import pytest
import torch

from emulators.scores.events import (
    TABLE_SCORES,
    Threshold,
    below,
    brier,
    contingency,
    debiased_brier,
    economic_value,
    event,
    gaussian_threshold,
    rps,
    seeps,
)

TABLE = [torch.tensor(x, dtype=torch.float64) for x in (0.2, 0.1, 0.05, 0.65)]  # hits, false alarms, misses, the rest


def test_events_by_hand():
    assert event(torch.tensor([1.0, 2.0, 3.0]), 2.0).tolist() == [0.0, 0.0, 1.0]
    assert below(torch.tensor([1.0, 2.0, 3.0]), 2.0).tolist() == [1.0, 0.0, 0.0]
    assert event(torch.tensor([torch.nan, 3.0]), torch.tensor([2.0, torch.nan])).isnan().all()
    forecast, truth = torch.tensor([1.0, 1, 0, 0]), torch.tensor([1.0, 0, 1, 0])
    assert torch.stack(contingency(forecast, truth)).tolist() == np.eye(4).tolist()


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ("csi", 0.2 / 0.35),
        ("ets", (0.2 - 0.075) / (0.35 - 0.075)),
        ("frequency_bias", 0.3 / 0.25),
        ("recall", 0.8),
        ("precision", 2 / 3),
        ("f1", 0.4 / 0.55),
        ("hss", 2 * (0.2 * 0.65 - 0.1 * 0.05) / (0.25 * 0.7 + 0.3 * 0.75)),
    ],
)
def test_table_scores_by_hand(score, expected):
    assert TABLE_SCORES[score](*TABLE).item() == pytest.approx(expected)


def test_sedi():
    hit, false = 0.8, 0.1 / 0.75
    logs = np.log([false, hit, 1 - false, 1 - hit])
    expected = (logs[0] - logs[1] - logs[2] + logs[3]) / logs.sum()
    assert TABLE_SCORES["sedi"](*TABLE).item() == pytest.approx(expected)
    random = [torch.tensor(x) for x in (0.06, 0.24, 0.14, 0.56)]  # independent: no skill
    for score in ("sedi", "ets", "hss"):
        assert TABLE_SCORES[score](*random).item() == pytest.approx(0.0, abs=1e-6)


def test_brier_does_not_punish_the_size_when_debiased():
    generator = torch.Generator().manual_seed(0)
    draws = (torch.rand(9, 200_000, generator=generator) < 0.3).double()
    truth, three, eight = draws[0], draws[1:4], draws[1:]
    assert debiased_brier(three, truth).mean().item() == pytest.approx(0.21, abs=0.002)  # p (1 - p)
    assert debiased_brier(eight, truth).mean().item() == pytest.approx(0.21, abs=0.002)
    assert brier(three, truth).mean().item() == pytest.approx(0.21 * 4 / 3, abs=0.002)
    with pytest.raises(ValueError, match="got 1"):
        debiased_brier(three[:1], truth)


def test_rps_of_many_thresholds_is_the_crps():
    from emulators.scores.ensemble import crps

    generator = torch.Generator().manual_seed(1)
    members, target = (torch.rand(*n, generator=generator, dtype=torch.float64) for n in ((6, 20), (20,)))
    edges = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    found = rps(members, target, list(edges)) / 20_000
    torch.testing.assert_close(found, crps(members, target, "biased"), rtol=0, atol=1e-4)


def test_gaussian_threshold():
    one = torch.ones((), dtype=torch.float64)
    assert gaussian_threshold(2 * one, 3 * one, 0.975).item() == pytest.approx(2 + 3 * 1.959963984540054)


def test_thresholds_are_checked():
    with pytest.raises(ValueError, match="a quantile or a threshold"):
        Threshold(None)
    with pytest.raises(ValueError, match="between 0 and 1; got 90"):
        Threshold(90)
    assert Threshold(0.9).needs == ("quantile_0.9",)
    assert Threshold(None, 0.001).needs == ()
    assert Threshold(0.9, gaussian=True).needs == ("mean", "std")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_seeps_scores_a_constant_forecast_at_one(share):
    """Dry in a share p of all cases, light in twice as many of the rest as heavy: what SEEPS is made for."""
    truth = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
    often = torch.tensor([share, (1 - share) * 2 / 3, (1 - share) / 3], dtype=torch.float64)
    p, heavy = torch.full((3,), share, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    for constant in (0.0, 0.5, 2.0):
        assert (seeps(torch.full_like(truth, constant), truth, 0.1, heavy, p) * often).sum().item() == pytest.approx(
            1.0
        )
    assert (seeps(truth, truth, 0.1, heavy, p) == 0).all()
    assert seeps(truth * torch.nan, truth, 0.1, heavy, p).isnan().all()


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.8])
def test_economic_value_is_what_users_save_by_hand(ratio):
    """Each case costs C where protected, L where an event meets no protection; C = ratio, L = 1."""
    generator = np.random.default_rng(2)
    truth = generator.random(4000) < 0.3
    count = generator.binomial(5, np.where(truth, 0.6, 0.2))
    climate, perfect = min(ratio, truth.mean()), ratio * truth.mean()
    savings, rules = [], []
    for least in range(1, 6):
        alarm = count >= least
        expense = np.where(alarm, ratio, np.where(truth, 1.0, 0.0)).mean()
        savings.append((climate - expense) / (climate - perfect))
        rules.append((alarm & truth, alarm))
    hits, alarms = (torch.tensor(np.mean(part, axis=-1)) for part in zip(*rules, strict=True))
    found = economic_value(hits, alarms, torch.tensor(truth.mean()), ratio)
    np.testing.assert_allclose(found, max(savings), rtol=1e-12)
    never = economic_value(hits * 0, alarms * 0, torch.tensor(0.0, dtype=torch.float64), ratio)
    assert never.isnan()
