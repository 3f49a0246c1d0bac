"""Ensemble scores against their definitions over all pairs, against other packages, and by their properties."""

import numpy as np
import pytest
import torch

from emulators.scores.ensemble import (
    beyond,
    crps,
    debiased_squared_error,
    energy_from_products,
    energy_score,
    gaussian_crps,
    gaussian_pit,
    histogram_shares,
    mean_difference,
    rank_shares,
    spread_skill,
    spread_weight,
    variance,
)

KINDS = ("fair", "biased", "almost_fair")


def drawn(members=7, points=40, seed=0, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    fields = torch.randn(members + 1, points, generator=generator, dtype=torch.float64) + offset
    return fields[:-1], fields[-1]


def over_all_pairs(members, target, kind):
    """The CRPS as it is defined, O(M^2) in time and memory."""
    count = len(members)
    pairs = (members[:, None] - members[None]).abs().sum((0, 1))
    divisor = {"fair": count * (count - 1), "biased": count**2}
    spread = {k: pairs / n for k, n in divisor.items()}
    spread["almost_fair"] = 0.95 * spread["fair"] + 0.05 * spread["biased"]
    return (members - target).abs().mean(0) - 0.5 * spread[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("members", [2, 3, 10, 51])
def test_crps_is_its_definition(kind, members):
    fields = drawn(members, seed=members)
    torch.testing.assert_close(crps(*fields, kind), over_all_pairs(*fields, kind), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_crps_with_ties(kind):
    members, target = drawn(6)
    members, target = members.round(), target.round()
    torch.testing.assert_close(
        crps(members, target, kind), over_all_pairs(members, target, kind), rtol=1e-12, atol=1e-14
    )


def test_crps_keeps_its_digits_on_a_large_mean():
    members, target = drawn(10)
    shifted = crps((members + 3e5).float(), (target + 3e5).float())
    torch.testing.assert_close(
        shifted.double(), crps((members + 3e5).float().double(), (target + 3e5).float().double())
    )


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_crps(kind):
    members, target = drawn(5, 8)
    assert torch.autograd.gradcheck(lambda x, y: crps(x, y, kind), (members.requires_grad_(), target.requires_grad_()))


def test_gradients_of_the_other_scores():
    members, target = (field.requires_grad_() for field in drawn(4, 6))
    weights = torch.full((6,), 1 / 6, dtype=torch.float64)
    for score in (
        debiased_squared_error,
        lambda x, y: energy_score(x, y, weights),
        lambda x, y: gaussian_crps(x.mean(0), variance(x).sqrt(), y),
        lambda x, y: variance(x) + 0 * y,
    ):
        assert torch.autograd.gradcheck(score, (members, target))


def test_the_fair_score_does_not_depend_on_the_size_of_the_ensemble():
    """In the mean over draws members of one distribution score the same, however many; the biased one falls with M."""
    means = {}
    for kind in KINDS:
        means[kind] = [crps(*drawn(m, 200_000, seed=m), kind).mean().item() for m in (2, 8)]
    assert means["fair"][0] == pytest.approx(means["fair"][1], rel=0.01)
    assert means["biased"][0] > 1.3 * means["biased"][1]
    assert means["fair"][0] < means["almost_fair"][0] < means["biased"][0]


def test_one_member_has_no_spread():
    members, target = drawn(1)
    torch.testing.assert_close(crps(members, target, "biased"), (members[0] - target).abs())
    for score in (crps, debiased_squared_error):
        with pytest.raises(ValueError, match="at least 2 members; got 1"):
            score(members, target)
    with pytest.raises(ValueError, match="fair, biased, almost_fair; got 'unfair'"):
        spread_weight("unfair", 2)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_members_that_coincide_have_the_same_gradient(count):
    """Of equal members below the truth each has -1/M, and two of three that coincide share theirs."""
    members = torch.zeros(count, 4, dtype=torch.float64, requires_grad=True)
    crps(members, torch.ones(4, dtype=torch.float64)).sum().backward()
    torch.testing.assert_close(members.grad, torch.full((count, 4), -1.0 / count, dtype=torch.float64))
    two = torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    mean_difference(two).backward()
    torch.testing.assert_close(two.grad, torch.tensor([-1.0, -1.0, 2.0], dtype=torch.float64) / 3.0)


def test_the_mean_difference_of_training_is_that_of_verification():
    members = torch.randn(7, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 1e6
    torch.testing.assert_close(
        mean_difference(members.clone().requires_grad_()).detach(), mean_difference(members), rtol=1e-12, atol=0
    )


def test_mean_difference_by_hand():
    assert mean_difference(torch.tensor([[3.0], [0.0], [1.0]])).item() == 2.0  # 3, 2 and 1


def test_debiased_error_is_that_of_a_large_ensemble():
    members, target = drawn(3, 200_000)
    assert debiased_squared_error(members, target).mean().item() == pytest.approx(1.0, rel=0.02)
    assert (members.mean(0) - target).square().mean().item() == pytest.approx(1 + 1 / 3, rel=0.02)
    ratio = spread_skill(variance(members).mean(), debiased_squared_error(members, target).mean())
    assert ratio.item() == pytest.approx(1.0, abs=0.02)


def test_ranks_by_hand():
    members, target = torch.tensor([[0.0], [1.0], [1.0], [5.0]]), torch.tensor([1.0])
    assert rank_shares(members, target)[:, 0].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 0])
    members, target = drawn(4, 100_000)
    np.testing.assert_allclose(rank_shares(members, target).mean(1), 0.2, atol=0.01)
    assert rank_shares(members, target.clone().fill_(torch.nan)).isnan().all()


def test_energy_score_of_one_point_is_the_crps():
    members, target = drawn(6)
    one = torch.ones(1, dtype=torch.float64)
    for kind in KINDS:
        found = energy_score(members.unsqueeze(-1), target.unsqueeze(-1), one, kind)
        torch.testing.assert_close(found, crps(members, target, kind), rtol=1e-9, atol=1e-12)


def test_energy_score_is_its_definition():
    members, target = drawn(5)
    weights = torch.rand(40, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    far = [((x - target).square() @ weights).sqrt() for x in members]
    apart = [((x - y).square() @ weights).sqrt() for x in members for y in members]
    expected = sum(far) / 5 - 0.5 * sum(apart) / 20
    torch.testing.assert_close(energy_score(members, target, weights), expected, rtol=1e-12, atol=0)
    error = members - target
    products = torch.einsum("mp,np,p->mn", error, error, weights)
    torch.testing.assert_close(energy_from_products(products), expected, rtol=1e-12, atol=0)


def test_gaussian_crps_is_the_integral():
    mean, std, target = (torch.tensor(x, dtype=torch.float64) for x in (0.3, 1.7, -0.8))
    x = torch.linspace(-30, 30, 600_001, dtype=torch.float64)
    below = 0.5 * (1 + torch.erf((x - mean) / std / 2**0.5))
    integral = torch.trapezoid((below - (x >= target).double()).square(), x)
    assert gaussian_crps(mean, std, target).item() == pytest.approx(integral.item(), abs=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_scoringrules_agrees(seed):
    scoringrules = pytest.importorskip("scoringrules")
    generator = np.random.default_rng(seed)
    size = int(generator.integers(2, 60))
    members, target = drawn(size, 30, seed, offset=float(generator.normal(0, 300)))
    for kind, estimator in (("fair", "fair"), ("biased", "nrg"), ("fair", "pwm"), ("biased", "qd")):
        other = scoringrules.crps_ensemble(target.numpy(), members.numpy(), m_axis=0, estimator=estimator)
        np.testing.assert_allclose(crps(members, target, kind), other, rtol=1e-9, atol=1e-11)
    ones = torch.ones(30, dtype=torch.float64)
    other = scoringrules.es_ensemble(target.numpy(), members.numpy(), m_axis=0, v_axis=1)
    assert energy_score(members, target, ones, "biased").item() == pytest.approx(float(other), rel=1e-9)
    other = scoringrules.crps_normal(target.numpy(), 0.5, 2.0)
    np.testing.assert_allclose(gaussian_crps(torch.tensor(0.5), torch.tensor(2.0), target), other, rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_xskillscore_agrees(seed):
    xskillscore, xr = pytest.importorskip("xskillscore"), pytest.importorskip("xarray")
    members, target = drawn(4 + seed, 50, seed)
    forecast = xr.DataArray(members.numpy(), dims=("member", "point"))
    truth = xr.DataArray(target.numpy(), dims="point")
    other = xskillscore.crps_ensemble(truth, forecast, dim=[])
    np.testing.assert_allclose(crps(members, target, "biased"), other, rtol=1e-9, atol=1e-12)
    other = xskillscore.crps_gaussian(truth, 0.5, 2.0, dim=[])
    np.testing.assert_allclose(gaussian_crps(torch.tensor(0.5), torch.tensor(2.0), target), other, rtol=1e-6)
    other = xskillscore.rank_histogram(truth, forecast, dim="point")
    np.testing.assert_array_equal(rank_shares(members, target).sum(1), other)


SMALL = torch.tensor(
    [
        [-0.802, -1.324, -0.248, 0.42, 1.136, 0.11],
        [-0.553, -0.785, 0.749, 1.635, 0.273, -1.233],
        [-0.958, 1.6, 0.203, -1.732, -0.084, -1.163],
    ],
    dtype=torch.float64,
).T
TRUTH = torch.tensor([0.2, -1.1, 1.7], dtype=torch.float64)
BEYOND = {  # of scoringrules 0.10.0: twcrps_ensemble(TRUTH, SMALL.T, a=0.5 or b=-0.5, estimator="fair" or "nrg")
    ("fair", True): [0.0, 0.0166, 0.8333333333333335],
    ("fair", False): [0.020133333333333336, 0.3134, 0.10526666666666662],
    ("biased", True): [0.017666666666666664, 0.052277777777777784, 0.863888888888889],
    ("biased", False): [0.048055555555555574, 0.3388055555555556, 0.1530833333333333],
}


@pytest.mark.parametrize(("kind", "upper"), BEYOND)
def test_threshold_weighted_crps_is_that_of_scoringrules(kind, upper):
    threshold = 0.5 if upper else -0.5
    found = crps(beyond(SMALL, threshold, upper), beyond(TRUTH, threshold, upper), kind)
    np.testing.assert_allclose(found, BEYOND[kind, upper], rtol=1e-12, atol=1e-15)


def test_threshold_weighted_crps_is_the_integral_of_the_brier_score_beyond_the_threshold():
    """CRPS = integral over z of (F(z) - 1(y <= z))^2, here from the threshold on (Gneiting & Ranjan 2011)."""
    z = torch.linspace(0.5, 4.0, 35_001, dtype=torch.float64)
    forecast = (SMALL[:, :, None] <= z).double().mean(0)
    integral = torch.trapezoid((forecast - (TRUTH[:, None] <= z).double()).square(), z, dim=-1)
    found = crps(beyond(SMALL, 0.5), beyond(TRUTH, 0.5), "biased")
    np.testing.assert_allclose(found, integral, atol=2e-4)


def test_the_gaussian_pit_is_the_normal_distribution_and_a_step_without_spread():
    expected = [0.6414163184080164, 0.14937093878928415, 0.9575305606423605]  # scipy.stats.norm.cdf
    np.testing.assert_allclose(gaussian_pit(SMALL, TRUTH), expected, rtol=1e-12)
    same = torch.ones(4, 3, dtype=torch.float64)
    assert gaussian_pit(same, torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)).tolist() == [0.0, 0.5, 1.0]


def test_the_pit_histogram_is_flat_where_the_truth_is_drawn_from_the_same_normal_distribution():
    members, truth = drawn(members=200, points=20_000)
    shares = histogram_shares(gaussian_pit(members, truth), 10)
    np.testing.assert_allclose(shares.mean(-1), 0.1, atol=0.01)
    assert torch.equal(shares.sum(0), torch.ones(20_000, dtype=torch.float64))
    assert histogram_shares(torch.tensor([1.0, torch.nan]), 4)[:, 0].tolist() == [0, 0, 0, 1]
    assert histogram_shares(torch.tensor([1.0, torch.nan]), 4)[:, 1].isnan().all()
