"""Scores of neighbourhoods against all pairs of points, other packages, and what they must tell apart."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from emulators.constants import EARTH_RADIUS
from emulators.grid import equiangular_grid
from emulators.metrics.crps_pooled import PooledCRPS
from emulators.metrics.fractions_skill_score import FractionsSkillScore
from emulators.metrics.spread_skill_by_spread import SpreadSkillBySpread
from emulators.metrics.variogram_score import VariogramScore
from emulators.scores.ensemble import crps
from emulators.scores.neighbourhoods import Neighbourhood, neighbourhood
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.verification.scorecard import Scorecard
from emulators.world import World

GRID, RADIUS = equiangular_grid(6), 4000.0
VARIABLES = VariableSet((Variable("temperature", "K"),))
WORLD = World(GRID, VARIABLES, np.timedelta64(6, "h"))
AREA = GRID.weights.ravel() / GRID.weights.sum()


def near_points():
    latitude, longitude = (np.deg2rad(p) for p in GRID.points)
    cosine = np.sin(latitude) * np.sin(latitude[:, None])
    cosine += np.cos(latitude) * np.cos(latitude[:, None]) * np.cos(longitude - longitude[:, None])
    return np.arccos(cosine.clip(-1, 1)) * EARTH_RADIUS / 1e3 <= RADIUS


def drawn(members=5, inits=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    fields = torch.randn(members + 1, inits, 1, *GRID.shape, generator=generator, dtype=torch.float64)
    return fields[:-1], fields[-1]


def scored(metric, members, target, climatology=None):
    times = np.datetime64("2001-01-01") + np.arange(len(target)) * np.timedelta64(1, "D")
    card = Scorecard(WORLD, VARIABLES, {"m": metric}, ["global"], 1)
    card.add(State(members, VARIABLES, times), State(target, VARIABLES, times), 0, climatology)
    return card.value("m")[..., 0, 0, 0]


def test_neighbours_are_the_points_within_the_radius():
    near, disc = near_points(), Neighbourhood(GRID, RADIUS)
    found = np.zeros_like(near)
    found[disc.centres, disc.indices] = True
    np.testing.assert_array_equal(found, near)
    field = drawn()[1].flatten(-2)[:, 0]
    share = near * AREA / (near * AREA).sum(1, keepdims=True)
    np.testing.assert_allclose(disc.mean(field), field.numpy() @ share.T, rtol=1e-12)
    np.testing.assert_array_equal(disc.maximum(field), np.where(near, field.numpy()[:, None], -np.inf).max(-1))
    field[0, 7] = torch.nan
    np.testing.assert_array_equal(disc.mean(field)[0].isnan(), near[:, 7])
    assert not disc.maximum(field)[1].isnan().any()
    assert neighbourhood(GRID, RADIUS) is neighbourhood(GRID, RADIUS)
    with pytest.raises(ValueError, match="Expected a radius above 0 and up to 10000 km; got 0"):
        Neighbourhood(GRID, 0.0)


@pytest.mark.parametrize("pool", ["mean", "maximum"])
def test_a_pooled_crps_is_that_of_pooled_fields(pool):
    (members, target), disc = drawn(), neighbourhood(GRID, RADIUS)
    fields = [getattr(disc, pool)(f.flatten(-2)[..., 0, :]) for f in (members, target)]
    expected = (crps(*fields, "fair").mean(0).numpy() * AREA).sum()
    np.testing.assert_allclose(scored(PooledCRPS(radius=RADIUS, pool=pool), members, target), expected, rtol=1e-10)
    scoringrules = pytest.importorskip("scoringrules")
    theirs = scoringrules.crps_ensemble(fields[1].numpy(), fields[0].movedim(0, -1).numpy(), estimator="fair")
    np.testing.assert_allclose((theirs.mean(0) * AREA).sum(), expected, rtol=1e-10)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_the_variogram_score_is_a_sum_over_pairs_of_points(power):
    members, target = (f[..., 0, :, :].flatten(-2).numpy() for f in drawn())
    weights = near_points() * AREA
    weights = AREA[:, None] * weights / weights.sum(1, keepdims=True)
    apart = np.abs(members[..., :, None] - members[..., None, :]) ** power
    true = np.abs(target[..., :, None] - target[..., None, :]) ** power
    expected = (weights * (apart.mean(0) - true) ** 2).sum((-2, -1))
    found = scored(VariogramScore(radius=RADIUS, power=power), *drawn())
    np.testing.assert_allclose(found, expected.mean(), rtol=1e-10)
    scoringrules = pytest.importorskip("scoringrules")
    for init in range(2):
        theirs = scoringrules.vs_ensemble(target[init], members[:, init], weights, m_axis=0, v_axis=-1, p=power)
        np.testing.assert_allclose(theirs, expected[init], rtol=1e-10)


def test_the_fractions_skill_score_forgives_a_displacement_within_its_radius():
    target = torch.zeros(1, 1, *GRID.shape, dtype=torch.float64)
    target[..., 2, 4] = 1.0
    moved, away = target.roll(1, -1), target.roll(6, -1)

    def score(forecast, radius=RADIUS):
        return float(scored(FractionsSkillScore(radius=radius, threshold=0.5), forecast[None], target))

    assert score(target) == 1.0
    assert score(moved, 100.0) == 0.0  # points alone: no overlap
    assert 0.3 < score(moved) < 0.5  # two of five points in common
    assert score(away) == 0.0
    share = near_points()[:, 2 * GRID.shape[1] + 4], near_points()[:, 2 * GRID.shape[1] + 5]
    total = (near_points() * AREA).sum(1)
    p, o = (s * AREA[2 * GRID.shape[1] + 4] / total for s in share)
    expected = 1 - (AREA * (p - o) ** 2).sum() / (AREA * (p**2 + o**2)).sum()
    np.testing.assert_allclose(score(moved), expected, rtol=1e-10)


def test_spread_by_spread_tells_an_ensemble_that_knows_from_one_that_does_not():
    """Against closed forms: the spread of M normal members is a chi-square, which picks the bin, and V its part there.

    With f the density of V, (M - 1) V / s^2 being a chi-square of M - 1, the ratio in a bin is that of sums over s of
    integrals of V f and of (s^2 / M + t^2 - V / M) f, t the deviation of the truth: s if the ensemble knows.
    """
    generator, chosen, count = torch.Generator().manual_seed(0), (0.2, 0.8), 8
    size = (3000, 1, *GRID.shape)
    sigma = torch.where(torch.rand(size, generator=generator, dtype=torch.float64) < 0.5, *chosen)
    noise = torch.randn(count + 1, *size, generator=generator, dtype=torch.float64)
    climate = {"std": State(torch.ones(size, dtype=torch.float64), VARIABLES, np.full(3000, "2001-01-01", "M8[s]"))}
    metric = SpreadSkillBySpread(bins=4, largest=1.5)

    def expected(truth):
        terms = np.zeros((2, 4))
        for s, t in zip(chosen, truth, strict=True):
            edges = np.array([0.0, 0.5, 1.0, 1.5, np.inf]) ** 2 * (count - 1) / s**2
            inside, spread = (np.diff(chi2.cdf(edges, count + more)) for more in (-1, 1))
            terms += s**2 * spread, (s**2 / count + t**2) * inside - s**2 * spread / count
        return np.sqrt(terms[0] / terms[1])

    knows = scored(metric, (sigma * noise)[1:], (sigma * noise)[0], climate)
    assert knows.shape == (4,)
    np.testing.assert_allclose(knows[:3], expected(chosen)[:3], rtol=0.02)
    assert 0.7 < knows[0] < knows[1] < 1.0  # members close by chance are in the first bin too
    guesses = scored(metric, (sigma * noise)[1:], 0.58 * noise[0], climate)
    np.testing.assert_allclose(guesses[:3], expected((0.58, 0.58))[:3], rtol=0.02)
    assert guesses[0] < 0.5 < 1.15 < guesses[1]  # sure without reason, and unsure without reason
    with pytest.raises(ValueError, match="Expected 2 bins or more"):
        SpreadSkillBySpread(bins=1)
