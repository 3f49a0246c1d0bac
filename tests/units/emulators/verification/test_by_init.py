"""What each initial time adds: scores follow from it, differences pair what both have, and nothing is passed over."""

import numpy as np
import pytest
import torch

from emulators.grid import equiangular_grid
from emulators.metrics.acc import ACC
from emulators.metrics.rank_histogram import RankHistogram
from emulators.metrics.rmse import RMSE
from emulators.state import State
from emulators.statistics.significance import Significance
from emulators.variables import Variable, VariableSet
from emulators.verification.by_init import InitStatistics, differences, terms
from emulators.verification.scorecard import Scorecard
from emulators.world import World

VARIABLES = VariableSet((Variable("temperature", "K", (500.0, 850.0)), Variable("rain", "m")))
WORLD = World(equiangular_grid(6, 8), VARIABLES, np.timedelta64(6, "h"))
INITS = np.datetime64("2001-01-01", "s") + np.arange(48) * np.timedelta64(1, "D")
LEADS = [np.timedelta64(6, "h"), np.timedelta64(12, "h")]
METRICS = {"rmse": RMSE(), "acc_by_init": ACC(by_init=True)}


def fields(seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(48, 3, 6, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scored(offset: float, seed: int, metrics=METRICS):
    """A scorecard and its statistics: two batches of initial times a lead, whose error has the size of `offset`."""
    card = Scorecard(WORLD, VARIABLES, metrics, ("global", "tropics"), LEADS)
    kept = InitStatistics(card, INITS)
    for lead in range(2):
        truth, usual = fields(lead), fields(9, 0.1)
        forecast = truth + fields(seed + lead, offset)
        for some in (slice(0, 5), slice(5, 48)):
            times = INITS[some] + LEADS[lead]
            states = [State(field[some], VARIABLES, times) for field in (forecast, truth, usual)]
            kept.add(INITS[some], lead, card.add(states[0], states[1], lead, states[2]))
    return card, kept.dataset()


def test_scores_follow_from_what_each_initial_time_added():
    card, kept = scored(1.0, 3)
    scores = card.scores()
    assert kept["temperature"].dims == ("statistic", "time", "region", "lead_time", "level")
    for name in ("temperature", "rain"):
        squares = terms(kept, "rmse", METRICS["rmse"], name)["squared_error"]
        np.testing.assert_allclose(np.sqrt(squares.mean(axis=0)), scores[name].sel(metric="rmse"), rtol=1e-6)
        ratios = terms(kept, "acc_by_init", METRICS["acc_by_init"], name)["acc_by_init by init"]
        np.testing.assert_allclose(ratios.mean(axis=0), scores[name].sel(metric="acc_by_init"), rtol=1e-5)


def test_a_worse_forecast_is_told_from_a_better_one_on_the_times_both_have():
    (_, good), (_, bad) = scored(1.0, 3), scored(1.5, 3)
    found = differences(good, {"bad": bad.isel(time=slice(2, None)), "same": good}, METRICS, Significance())
    assert found["temperature"].dims == ("source", "estimate", "metric", "region", "lead_time", "level")
    against = found["temperature"].sel(source="bad", metric="rmse")
    assert (against.sel(estimate="high") < 0).all()
    assert (against.sel(estimate="inits") == 46).all()
    assert (against.sel(estimate="significant") == 1).all()
    assert (found["rain"].sel(source="same", estimate=["difference", "low", "high"]) == 0).all()
    assert "false discovery rate 5 %" in found.attrs["significance"]


def test_all_variables_levels_and_leads_are_judged_together():
    """Half of the differences are real: the others must reach a smaller p-value than alone."""
    (_, good), (_, bad) = scored(1.0, 3), scored(1.02, 8)
    found = differences(good, {"bad": bad}, METRICS, Significance(0.6))
    fields = [found[name].sel(source="bad", metric="rmse", region="tropics") for name in found.data_vars]
    p, flags = (np.concatenate([f.sel(estimate=e).values.ravel() for f in fields]) for e in ("p_value", "significant"))
    assert p.size == 6
    ranked = np.sort(p) <= 0.4 * np.arange(1, 7) / 6
    assert flags.sum() == (np.flatnonzero(ranked).max() + 1 if ranked.any() else 0)
    alone = differences(good, {"bad": bad}, METRICS, Significance(0.6, false_discovery=False))
    counted = sum(
        int((alone[n].sel(metric="rmse", region="tropics", estimate="significant") == 1).sum()) for n in alone
    )
    assert counted == (p <= 0.4).sum() != flags.sum()


def test_a_broken_initial_time_breaks_the_difference():
    (_, good), (_, bad) = scored(1.0, 3), scored(1.5, 3)
    bad["rain"][:, 4] = np.inf
    found = differences(good, {"bad": bad}, METRICS, Significance())["rain"].sel(metric="rmse", source="bad")
    assert not np.isfinite(found.sel(estimate=["low", "high"])).any()


def test_statistics_with_axes_of_their_own_are_not_kept():
    ensemble = {"rank_histogram": RankHistogram()}
    card = Scorecard(WORLD, VARIABLES, ensemble, ("global",), LEADS)
    kept = InitStatistics(card, INITS)
    members = torch.stack([fields(seed) for seed in range(3)])
    kept.add(INITS, 0, card.add(State(members, VARIABLES, INITS), State(fields(5), VARIABLES, INITS), 0))
    assert kept.dataset() is None


def test_the_room_that_is_needed_is_told():
    card, kept = scored(1.0, 3)
    held = sum(kept[name].size for name in ("temperature", "rain")) * 4 / 2**20
    assert InitStatistics.megabytes(card, len(INITS), 2) == pytest.approx(held, rel=0.5)
