"""Losses of ensembles: known values, closed forms, masks in both terms, and FGN's common target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from emulators.grid import gaussian_grid
from emulators.losses.crps import CRPS
from emulators.losses.energy_score import EnergyScore
from emulators.losses.multiscale_crps import MultiscaleCRPS
from emulators.losses.spectral_crps import SpectralCRPS
from emulators.objectives.forecast import Forecast
from emulators.scores.ensemble import crps, kernel_score
from emulators.state import State, Window
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World

FIELD = VariableSet((Variable("temperature", "K"),))
GRID = gaussian_grid(8)
WORLD = World(
    GRID,
    FIELD,
    np.timedelta64(6, "h"),
    static=VariableSet((Variable("land_sea_mask"),)),
    static_fields=(np.arange(GRID.shape[1]) < 4)[None, None] * np.ones((1, *GRID.shape)),
    scales={"temperature": Scale(0.0, 1.0, 1.0), "land_sea_mask": Scale(0.0, 1.0, 1.0)},
)
ANCHORS = (
    ("fair", (0.0, 1.0, 3.0), 1 / 3),
    ("biased", (0.0, 1.0, 3.0), 2 / 3),
    ("almost_fair", (0.0, 1.0, 3.0), 0.35),
    ("fair", (0.0, 3.0), 0.0),
    ("biased", (0.0, 3.0), 0.75),
    ("almost_fair", (0.0, 3.0), 0.0375),
)


def state(values: torch.Tensor) -> State:
    return State(values, FIELD, np.zeros(values.shape[-4], "datetime64[s]"))


def uniform(*values: float) -> State:
    """Uniform fields: of one case, or of one member each."""
    fields = torch.tensor(values, dtype=torch.float64).reshape(*([-1, 1] if len(values) > 1 else [1]), 1, 1, 1)
    return state(fields.expand(*fields.shape[:-2], *GRID.shape))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, 1, *GRID.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("kind", "members", "expected"), ANCHORS)
def test_of_uniform_fields_all_are_the_crps_of_a_number(kind, members, expected):
    losses = [
        MultiscaleCRPS(WORLD, kind=kind),
        EnergyScore(WORLD, kind=kind),
        EnergyScore(WORLD, kind=kind, jointly=True),
    ]
    for loss in losses:
        found = loss(uniform(*members), uniform(2.0))
        torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-6)
    for by in ("coefficient", "degree"):  # one coefficient of sqrt(4 pi) times the number
        loss = SpectralCRPS(WORLD, kind=kind, by=by)
        share = loss.multiplicity.sum() if by == "coefficient" else loss.spectra.degrees
        found = loss(uniform(*members), uniform(2.0)) * float(share) ** 0.5
        torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-5)


def test_closed_forms_of_few_members():
    """Two members above the truth: fair gives the nearer one the whole gradient, biased 1/4 and 3/4; between: none."""
    for kind, expected in (("fair", (1.0, 0.0)), ("biased", (0.75, 0.25))):
        members = torch.tensor([3.0, 5.0], dtype=torch.float64, requires_grad=True)
        score = crps(members[:, None], torch.tensor([1.0], dtype=torch.float64), kind)
        (slope,) = torch.autograd.grad(score.sum(), members)
        np.testing.assert_allclose(slope.numpy(), expected, atol=1e-12)
        assert float(score.detach()) == pytest.approx(2.0 if kind == "fair" else 2.5)
    members = torch.tensor([0.0, 5.0], dtype=torch.float64, requires_grad=True)
    score = crps(members[:, None], torch.tensor([1.0], dtype=torch.float64))
    (slope,) = torch.autograd.grad(score.sum(), members)
    assert float(score) == 0.0
    assert not slope.any()


@pytest.mark.parametrize("loss", [CRPS, EnergyScore, MultiscaleCRPS, SpectralCRPS], ids=lambda loss: loss.__name__)
def test_gradients_belong_to_values_not_to_numbers_of_members(loss):
    """Members that coincide have the same, everywhere or over half of the globe, and it moves with their order."""
    score, fields, truth = loss(WORLD, points={"temperature": "sea"}).double(), noise(4, 2), noise(2, seed=1)
    fields[1], fields[2, ..., :4, :], truth[..., 7, :] = fields[0], fields[0, ..., :4, :], fields[0, ..., 7, :]
    truth[0, ..., 2:5, 9:12] = torch.nan

    def slopes(order: list[int]) -> torch.Tensor:
        members = fields[order].requires_grad_()
        (found,) = torch.autograd.grad(score(state(members), state(truth)).sum(), members)
        return found

    expected = slopes([0, 1, 2, 3])
    assert torch.isfinite(expected).all()
    torch.testing.assert_close(expected[0], expected[1], rtol=0, atol=1e-15)
    torch.testing.assert_close(slopes([2, 0, 3, 1]), expected[[2, 0, 3, 1]], rtol=0, atol=1e-14)
    assert not expected[:, truth.isnan()].any()


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_almost_fair_is_the_sum_over_ordered_pairs(count):
    """1 / (2 M (M - 1)) sum_{j != k} |x_j - y| + |x_k - y| - (1 - (1 - alpha) / M) |x_j - x_k|, for any M."""
    x, y, alpha = torch.randn(count, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64), 0.95
    epsilon = (1 - alpha) / count
    pairs = [
        (a - y).abs() + (b - y).abs() - (1 - epsilon) * (a - b).abs()
        for i, a in enumerate(x)
        for j, b in enumerate(x)
        if i != j
    ]
    expected = sum(pairs) / (2 * count * (count - 1))
    torch.testing.assert_close(crps(x[:, None], y[None], "almost_fair", alpha)[0], expected)
    mixed = alpha * crps(x[:, None], y[None], "fair") + (1 - alpha) * crps(x[:, None], y[None], "biased")
    torch.testing.assert_close(mixed[0], expected)
    torch.testing.assert_close(kernel_score((x - y)[:, None], torch.abs, "almost_fair", alpha)[0], expected)


def test_expectation_of_perfect_ensembles():
    """N(0, 1): fair 1/sqrt(pi), biased (1 + 1/M)/sqrt(pi), for few members as for many."""
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 200_000, generator=draw, dtype=torch.float64) for n in (4, 1))
    assert float(crps(x, y[0]).mean()) == pytest.approx(np.pi**-0.5, abs=3e-3)
    assert float(crps(x, y[0], "biased").mean()) == pytest.approx(1.25 * np.pi**-0.5, abs=3e-3)


@pytest.mark.parametrize(
    "loss",
    [
        CRPS(WORLD),
        EnergyScore(WORLD, beta=0.7),
        SpectralCRPS(WORLD),
        SpectralCRPS(WORLD, by="degree"),
        MultiscaleCRPS(WORLD),
    ],
)
def test_gradients(loss):
    truth, values = state(noise(2)), noise(3, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: loss(state(v), truth), values, atol=1e-5, fast_mode=True)
    same = noise(1, 2).expand(3, -1, -1, -1, -1).clone().requires_grad_()  # members begin alike
    (slope,) = torch.autograd.grad(loss(state(same), state(noise(2, seed=3))).sum(), same)
    assert slope.isfinite().all()
    assert slope.abs().max() > 0


@pytest.mark.parametrize("kind", [CRPS, EnergyScore, MultiscaleCRPS, SpectralCRPS])
def test_masks_hold_in_both_terms(kind):
    """What members and truth say over land, or where the truth is missing, changes neither score nor gradient."""
    loss, everywhere = kind(WORLD, points={"temperature": "sea"}), kind(WORLD)
    truth, values = noise(2), noise(3, 2, seed=1)
    disturbed = values.clone()
    disturbed[..., :4] += noise(3, 2, seed=2)[..., :4]
    plain = loss(state(values), state(truth))
    torch.testing.assert_close(loss(state(disturbed), state(truth)), plain)
    assert not torch.allclose(everywhere(state(disturbed), state(truth)), everywhere(state(values), state(truth)))
    missing = truth.clone()
    missing[..., :4] = torch.nan
    leaf = disturbed.clone().requires_grad_()
    found = everywhere(state(leaf), state(missing))
    torch.testing.assert_close(found, plain)
    (slope,) = torch.autograd.grad(found.sum(), leaf)
    assert slope.isfinite().all()
    assert not slope[..., :4].any()
    assert slope[..., 4:].any()


@pytest.mark.parametrize("by", ["coefficient", "degree"])
def test_white_errors_over_sea_are_worth_as_much_in_coefficients_as_in_points(by):
    values, truth, none = state(noise(2, 300)), state(noise(300, seed=1)), np.zeros((1, *GRID.shape))
    none[..., :5] = 1.0  # few points count, and no two cases share them
    few = replace(WORLD, static_fields=none)
    worth = {}
    for where, points in ((WORLD, None), (WORLD, "sea"), (few, "land")):
        options = {"points": points and {"temperature": points}}
        losses = SpectralCRPS(where, by=by, **options), CRPS(where, **options)
        spectral, plain = (float(loss(values, truth).mean()) for loss in losses)
        worth[where is few, points] = spectral / plain
    whole = worth.pop((False, None))
    np.testing.assert_allclose(list(worth.values()), whole, rtol=0.05)


def test_boxes_see_what_members_share():
    """White errors vanish in boxes, those of a whole region do not."""
    white, region = noise(4, 6), noise(4, 6)[..., :1, :1].expand(4, 6, 1, *GRID.shape)
    ratio = [
        float(
            MultiscaleCRPS(WORLD, scales=[4], kind="fair")(state(x), state(0 * x[0])).mean()
            / CRPS(WORLD, kind="fair")(state(x), state(0 * x[0])).mean()
        )
        for x in (white, region)
    ]
    assert ratio[0] < 0.5
    assert ratio[1] == pytest.approx(1.0, abs=1e-6)


def test_scale_one_is_the_crps():
    values, truth = state(noise(3, 2)), state(noise(2, seed=1))
    torch.testing.assert_close(MultiscaleCRPS(WORLD, scales=[1])(values, truth), CRPS(WORLD)(values, truth))


class Wandering(torch.nn.Module):
    """A network that writes noise, and keeps what it was given and what it wrote, (member x batch, 1, *grid)."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, fields: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        self.kept.append((fields[:, :1], torch.randn_like(fields[:, :1])))
        return self.kept[-1][1]


@pytest.mark.parametrize("kind", [CRPS, EnergyScore, MultiscaleCRPS, SpectralCRPS])
def test_members_from_different_starts_share_a_target(kind):
    """What a rollout of residuals is trained on is FGN's: residual targets of members, shifted to their mean.

    predicted - (target - mean target) against mean target, of a member from where it stood; Alet et al. 2025.
    """
    torch.manual_seed(0)
    network, count, start = Wandering(), 3, np.array(["2001-01-01", "2001-07-01"], "datetime64[s]")
    times = [start + n * np.timedelta64(6, "h") for n in range(3)]
    truth = [State(noise(2, seed=n).float(), FIELD, time) for n, time in enumerate(times)]
    forcing = [State(torch.zeros(2, 0, *GRID.shape), VariableSet(), time) for time in times[1:]]
    loss = kind(WORLD)
    window = Window((truth[0],), tuple(truth[1:]), tuple(forcing))
    _, parts = Forecast(WORLD, rollout=2, members=count)(Step(WORLD, network), window, {"score": loss})
    for lead, (before, predicted) in enumerate(network.kept, start=1):
        before, predicted = (fields.unflatten(0, (count, 2)) for fields in (before, predicted))
        target = truth[lead].values - before
        shifted = predicted - (target - target.mean(0))
        assert (lead == 1) == bool((before == before[0]).all())
        expected = loss(state(shifted), state(target.mean(0))).mean()
        torch.testing.assert_close(parts[f"score_{lead}"], expected, rtol=1e-5, atol=0)


def test_refusals():
    with pytest.raises(ValueError, match="not predicted"):
        CRPS(WORLD, points={"rain": "sea"})
    with pytest.raises(ValueError, match="needs the static variable"):
        CRPS(replace(WORLD, static=VariableSet(), static_fields=None), points={"temperature": "sea"})
    with pytest.raises(ValueError, match="beta"):
        EnergyScore(WORLD, beta=2.0)
    with pytest.raises(ValueError, match="boxes"):
        MultiscaleCRPS(WORLD, scales=[0])
    with pytest.raises(ValueError, match="share"):
        MultiscaleCRPS(WORLD, scales=[1, 2], shares=[1.0])
    with pytest.raises(ValueError, match="coefficient"):
        SpectralCRPS(WORLD, by="order")
